"""A run's folder, and what is read back from it."""

import json
import os
import runpy
import time

import pytest
import torch
from PIL import Image

import leae
from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.training.checkpoints import read_checkpoint, write_checkpoint
from leae.training.run import Run, begin, milestones
from tests.conftest import ROOT, assert_same

DATA = {"name": "folder", "title": "pictures", "fingerprint": "abc"}
MEASURES = ["psnr_clean", "psnr_masked"]
CPU = torch.device("cpu")


def make_run(**settings):
    settings = {"EPOCHS": 3, "CROP_RATIOS": (0.15, 1.0), "DATASET": "auto", "RESUME": "", **settings}
    return Run.create("self-teaching", settings, ["loss"], MEASURES, DATA, "cpu")


def make_model(**settings):
    torch.manual_seed(0)
    return Autoencoder(**{"image_size": 16, "hidden_dim": 4, "latent_dim": 4, "map_channels": 4, **settings})


def test_every_run_has_a_folder_of_its_own_with_its_settings(workplace):
    first, second = make_run(), make_run(EPOCHS=5)
    assert [run.folder.name for run in (first, second)] == ["self-teaching-001", "self-teaching-002"]
    content = json.loads((second.folder / "settings.json").read_text())
    assert content["settings"] == {"EPOCHS": 5, "CROP_RATIOS": [0.15, 1.0], "DATASET": "folder"}
    assert content["data"] == DATA
    assert content["versions"]["torch"] == torch.__version__
    assert {path.name for path in first.folder.iterdir()} == {"settings.json", "grids", "checkpoints"}


def test_a_new_run_takes_the_number_after_the_last_whatever_else_lies_there(workplace):
    runs = [make_run() for _ in range(3)]
    os.rename(runs[0].folder, workplace / "elsewhere")
    (workplace / "runs" / "self-teaching-003-copy").mkdir()
    (workplace / "runs" / "notes.txt").touch()
    assert make_run().folder.name == "self-teaching-004"


def test_milestones_are_the_design_s_percentages():
    assert milestones(1000) == {0: ["000"], 200: ["020"], 400: ["040"], 600: ["060"], 800: ["080"], 1000: ["100"]}
    few = milestones(3)  # some percentages fall on the same step
    assert sorted(name for names in few.values() for name in names) == ["000", "020", "040", "060", "080", "100"]
    assert few[0] == ["000"]
    assert few[3][-1] == "100"


@pytest.mark.parametrize("settings", [{}, {"latent": "spatial"}, {"image_channels": 1}])
def test_load_needs_only_the_file_and_gives_the_same_reconstructions_to_the_bit(workplace, settings):
    model = make_model(**settings)
    images = torch.rand(4, model.settings["image_channels"], 16, 16)
    model(images)  # moves the running statistics
    run = make_run()
    run.save("100", model, step=7)
    loaded = leae.load(run.folder / "checkpoints" / "100.pt")
    assert isinstance(loaded, Autoencoder)
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    "kind", ["hostile", "text", "empty", "cut", "other", "directory", "missing", "class", "weights"]
)
def test_what_is_not_a_checkpoint_is_refused_and_nothing_in_it_executed(workplace, kind):
    run, path = make_run(), workplace / "file.pt"
    run.save("100", make_model(), step=7)
    content = (run.folder / "checkpoints" / "100.pt").read_bytes()
    checkpoint = torch.load(run.folder / "checkpoints" / "100.pt", weights_only=True)
    if kind == "hostile":
        torch.save({"format": 1, "model": Hostile()}, path)
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "other":
        torch.save([1, 2, 3], path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "class":
        checkpoint["model"]["class"] = "Linear"
        torch.save(checkpoint, path)
    elif kind == "weights":
        checkpoint["model"]["settings"]["latent_dim"] = 5
        torch.save(checkpoint, path)
    with pytest.raises(UsageError, match=r"file\.pt"):
        leae.load(path)
    assert not (workplace / "executed").exists()


def test_a_checkpoint_of_another_format_is_refused(workplace):
    torch.save({"format": 99}, workplace / "file.pt")
    with pytest.raises(UsageError, match="format 99"):
        read_checkpoint(workplace / "file.pt")


def test_metrics_after_the_last_checkpoint_are_dropped_on_resuming(workplace):
    run = make_run()
    for step in (10, 20, 30):
        run.log("train", step, step / 20, {"images_per_second": 5.0, "loss": 1 / step})
    run.log("test", 20, 1.0, {"psnr_clean": 20.0, "psnr_masked": 19.0})
    run.save("last", make_model(), step=20)
    with (run.folder / "metrics.csv").open("a") as file:
        file.write("train,40,2")  # a row that was cut off
    resumed = Run.resume(run.folder, "self-teaching")
    assert resumed.settings == run.settings
    assert resumed.restore(make_model(), {}, CPU) == 20
    rows = resumed.read_metrics()
    assert [(row["split"], row["step"]) for row in rows] == [("train", "10"), ("train", "20"), ("test", "20")]
    assert rows[0]["loss"] == "0.1"
    assert rows[2]["psnr_masked"] == "19"
    assert rows[2]["loss"] == ""


@pytest.mark.parametrize("what", ["nothing", "file", "folder", "settings", "kind"])
def test_a_folder_that_is_not_a_run_to_resume_is_refused(workplace, what):
    run = make_run()
    target, kind, says = run.folder, "self-teaching", "is not a run's folder.*self-teaching-001"
    if what == "nothing":
        target = workplace / "none"
    elif what == "file":
        target = workplace / "file"
        target.touch()
    elif what == "folder":
        target = workplace
    elif what == "settings":
        (run.folder / "settings.json").write_text("[1]")
        says = "is not a run's folder"
    elif what == "kind":
        kind, says = "masked", "self-teaching run, not a plain or masked run"
    with pytest.raises(UsageError, match=says):
        Run.resume(target, "plain", kind)


def test_metrics_are_written_at_most_once_a_second_and_whole_before_a_checkpoint(workplace, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = make_run()

    def steps():
        return [row["step"] for row in run.read_metrics()]

    for step in (1, 2, 3):
        run.log("train", step, 0.1, {"loss": 1.0})
    assert steps() == ["1"]
    now[0] += 1.5
    run.log("train", 4, 0.1, {"loss": 1.0})
    run.log("train", 5, 0.1, {"loss": 1.0})
    assert steps() == ["1", "2", "3", "4"]
    run.save("last", make_model(), 5)
    assert steps() == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace("train,10", "train,ten"), "'ten'"),
        (lambda text: text.replace("loss", "los"), "other columns"),
        (lambda text: text.replace("0.1", "0.1.1"), "0.1.1"),
        (lambda text: text.encode()[:40] + b"\xff\xff" + text.encode()[40:], "can't decode"),
    ],
    ids=["a step", "a column", "a value", "no text"],
)
def test_damaged_metrics_are_refused_rather_than_lost(workplace, damage, says):
    run = make_run()
    for step in (10, 20):
        run.log("train", step, step / 20, {"images_per_second": 5.0, "loss": 1 / step})
    run.save("last", make_model(), 20)
    changed = damage((run.folder / "metrics.csv").read_text())
    (run.folder / "metrics.csv").write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(UsageError, match=f"metrics.csv is damaged .*{says}"):
        run.restore(make_model(), {}, CPU)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(workplace):
    run = make_run()
    run.log("test", 0, 0.0, {"psnr_clean": 10.0, "psnr_masked": 9.0})
    resumed = Run.resume(run.folder, "self-teaching")
    assert resumed.restore(make_model(), {}, CPU) == 0
    assert resumed.read_metrics() == []  # the first look comes again
    run.log("test", 0, 0.0, {"psnr_clean": 10.0, "psnr_masked": 9.0})
    run.save("last", make_model(), 0)
    assert resumed.restore(make_model(), {}, CPU) == 0
    assert resumed.read_metrics() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"settings": [1]}, "is not a run's folder"),
        ({"settings": {"torch": "x"}}, "sets torch, which is no constant of main.py"),
        ({"terms": [1]}, "is not a run's folder"),
        ({"data": "x"}, "is not a run's folder"),
        ({"data": {"name": "x", "title": 1, "fingerprint": "x"}}, "is not a run's folder"),
        ({"kind": ["self-teaching"]}, "is not a run's folder"),
    ],
)
def test_hostile_settings_are_refused(workplace, monkeypatch, change, says):
    run = make_run()
    content = json.loads((run.folder / "settings.json").read_text())
    (run.folder / "settings.json").write_text(json.dumps({**content, **change}))
    monkeypatch.setattr("sys.argv", ["main.py", "--resume", str(run.folder)])
    namespace = runpy.run_path(str(ROOT / "main.py"), run_name="not main")
    with pytest.raises(UsageError, match=says):
        begin(namespace, "self-teaching")


def test_settings_nested_beyond_measure_are_refused(workplace):
    run = make_run()
    (run.folder / "settings.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="is not a run's folder"):
        Run.resume(run.folder, "self-teaching")


@pytest.mark.parametrize("what", ["model", "judge", "moments", "moments of others", "hyperparameter", "settings"])
def test_a_checkpoint_of_another_run_is_refused_before_anything_is_loaded(workplace, what):
    run, model = make_run(), make_model()
    judge, optimizer = Judge(model.encoder), torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.rand(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    run.save("last", model, 7, {"judge": judge, "optimizer": optimizer})
    path = run.folder / "checkpoints" / "last.pt"
    checkpoint = read_checkpoint(path)
    moments = checkpoint["others"]["optimizer"]["state"]
    if what == "model":
        checkpoint["model"]["weights"]["decoder.head.weight"] = torch.ones(2)
    elif what == "judge":
        checkpoint["others"]["judge"]["encoder.stem.weight"] = torch.ones(2)
    elif what == "moments":
        moments[3]["exp_avg"] = torch.ones(2)
    elif what == "moments of others":
        moments[99] = moments.pop(3)
    elif what == "hyperparameter":
        checkpoint["others"]["optimizer"]["param_groups"][0]["betas"] = "0.9"
    elif what == "settings":
        checkpoint["model"]["settings"]["output"] = "linear"
    write_checkpoint(path, {name: checkpoint[name] for name in ("model", "step", "others")})
    fresh = make_model()
    others = {"judge": Judge(fresh.encoder), "optimizer": torch.optim.AdamW(fresh.parameters(), 1e-3)}
    with pytest.raises(UsageError, match=r"last\.pt does not fit this run"):
        run.restore(fresh, others, CPU)
    assert_same(dict(fresh.state_dict()), dict(make_model().state_dict()))
    assert not others["optimizer"].state


def test_a_resumed_run_keeps_its_settings_and_its_data(workplace):
    run = make_run(DEVICE="cuda")
    assert run.settings_with({"DEVICE": "cpu", "RESUME": "x", "EPOCHS": 3})["DEVICE"] == "cpu"
    with pytest.raises(UsageError, match=r"EPOCHS is 3 in .*, not 4"):
        run.settings_with({"EPOCHS": 4})
    run.check_data(DATA)
    with pytest.raises(UsageError, match="trained on pictures, which has changed since"):
        run.check_data({**DATA, "fingerprint": "abd"})


def test_restoring_brings_everything_back_or_says_what_does_not_fit(workplace):
    run, model = make_run(), make_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.rand(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    run.save("last", model, 7, {"optimizer": optimizer})
    fresh = Autoencoder(**model.settings)
    its_optimizer = torch.optim.AdamW(fresh.parameters(), 1e-3)
    assert run.restore(fresh, {"optimizer": its_optimizer}, CPU) == 7
    for mine, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(its_optimizer.state[mine]["exp_avg"], optimizer.state[theirs]["exp_avg"])

    with pytest.raises(UsageError, match=r"last.pt does not fit this run"):
        run.restore(make_model(latent_dim=5), {"optimizer": its_optimizer}, CPU)
    run.save("last", model, 7)  # as a percent's checkpoint is: the model alone
    with pytest.raises(UsageError, match=r"last.pt does not fit this run \('optimizer'\)"):
        run.restore(fresh, {"optimizer": its_optimizer}, CPU)


@pytest.mark.parametrize("what", ["gradient", "weight", "judge", "moment"])
def test_nothing_is_saved_with_numbers_that_are_none_and_what_was_saved_stays(workplace, what):
    run, model = make_run(), make_model()
    judge, optimizer = Judge(model.encoder), torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.rand(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    others = {"judge": judge, "optimizer": optimizer}
    run.save("last", model, 7, others)
    before = (run.folder / "checkpoints" / "last.pt").read_bytes()
    weight = model.decoder.head.weight
    with torch.no_grad():
        if what == "gradient":
            weight.grad[0] = float("inf")
            says = "the gradient of decoder.head.weight is inf after step 8"
        elif what == "weight":
            weight[0] = float("nan")
            says = "decoder.head.weight is nan after step 8"
        elif what == "judge":
            judge.encoder.stem.weight[0] = float("nan")
            says = "judge.encoder.stem.weight is nan after step 8"
        elif what == "moment":
            optimizer.state[weight]["exp_avg_sq"][0] = float("inf")
            says = r"optimizer.state.\d+.exp_avg_sq is inf after step 8"
    quality = {"psnr_clean": 20.0, "psnr_masked": 19.0}
    for attempt in (
        lambda: run.save("last", model, 8, others),
        lambda: run.look(8, 1.0, quality, {}, model, others, ["020"]),
    ):
        with pytest.raises(UsageError, match=f"^{says}, training has diverged; lower LEARNING_RATE"):
            attempt()
    assert (run.folder / "checkpoints" / "last.pt").read_bytes() == before
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["last.pt"]
    assert run.read_metrics() == []


def test_saving_writes_pictures_that_open(workplace):
    run = make_run()
    path = run.save_grid("test", 500, {"original": torch.rand(2, 3, 16, 16)})
    assert path.name == "test-000500.png"
    assert Image.open(path).size[1] == 32 + 132
    run.log("train", 10, 0.5, {"images_per_second": 5.0, "loss": 0.5})
    run.plot_metrics()
    assert Image.open(run.folder / "metrics.png").size[0] > 800
