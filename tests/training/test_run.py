"""A run's folder, and what is read back from it."""

import json
import os
import shutil
import subprocess
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from leae.errors import UsageError
from leae.training.run import RUNS, Run, init_from_checkpoint, milestones, read_metrics, versions
from tests.test_checkpoints import make_training

DATA = {"name": "faces", "title": "rendered faces", "identity": "abc"}
DATASET = SimpleNamespace(**DATA, images={"train": range(8), "test": range(4)}, validation_split="test", class_names=())
SETTINGS = {"EPOCHS": 3, "CROP_RATIOS": (0.15, 1.0), "DATASET": "auto", "BATCH_SIZE": 8, "HELD_OUT": 4}
SETTINGS |= {"PRECISION": "float32", "COMPILE": False}


def make_run(**settings):
    run = Run({**SETTINGS, **settings}, "self-teaching")
    assert run.create_or_restore(DATASET, 20, *make_training(steps=0)) == 0
    return run


def rows_of(run):
    return [(row["split"], row["step"]) for row in read_metrics(run.folder)]


def test_every_run_has_a_folder_of_its_own_with_its_settings(workplace):
    first, second = make_run(), make_run(EPOCHS=5)
    assert [run.folder.name for run in (first, second)] == ["self-teaching-001", "self-teaching-002"]
    content = json.loads((second.folder / "settings.json").read_text())
    assert content["settings"] == {**SETTINGS, "EPOCHS": 5, "CROP_RATIOS": [0.15, 1.0], "DATASET": "faces"}
    assert content["data"] == {**DATA, "channels": 3}
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["leae"]
    os.rename(first.folder, workplace / "elsewhere")
    (RUNS / "self-teaching-003-copy").mkdir()
    (RUNS / "notes.txt").touch()
    (RUNS / ".new" / "grids").mkdir(parents=True)  # a process was killed here
    assert make_run().folder.name == "self-teaching-003"
    assert Run.read(second.folder).settings == second.settings


def test_milestones_are_the_designs_percentages():
    assert milestones(1000) == {0: ["000"], 200: ["020"], 400: ["040"], 600: ["060"], 800: ["080"], 1000: ["100"]}
    assert milestones(3) == {0: ["000"], 1: ["020"], 2: ["040", "060"], 3: ["080", "100"]}


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_run_needs_no_git(monkeypatch, error):
    monkeypatch.setattr("subprocess.run", Mock(side_effect=error))
    assert versions()["leae"] == "unknown"


def test_another_projects_commit_is_not_taken_for_the_sources(tmp_path, monkeypatch):
    project = tmp_path / "project"
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    package = project / ".venv" / "lib" / "leae" / "training"
    package.mkdir(parents=True)
    monkeypatch.setattr("leae.training.run.__file__", str(package / "run.py"))
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))  # as in git's hooks
    assert versions()["leae"] == "unknown"


def test_a_run_of_which_only_a_kept_checkpoint_is_left_is_not_begun_again(workplace):
    run, training = make_run(), make_training()
    run.save(20, *training)
    (run.folder / "checkpoints" / "last.safetensors").unlink()
    with pytest.raises(UsageError, match=r"last\.safetensors.* is missing; bring it back"):
        Run.read(run.folder).restore(*training)


def test_a_checkpoint_without_the_optimizers_moments_is_none_to_resume_from(workplace):
    run, (model, optimizer, _) = make_run(), make_training()
    run.save(20, model, optimizer)
    shutil.copy(run.folder / "checkpoints" / "100.safetensors", run.folder / "checkpoints" / "last.safetensors")
    with pytest.raises(UsageError, match=r"last\.safetensors does not fit this run"):
        Run.read(run.folder).restore(model, optimizer)


def test_a_path_with_a_zero_byte_is_a_damaged_setting(workplace):
    run = make_run()
    path = run.folder / "settings.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"settings": content["settings"] | {"INIT": "a\0b"}}))
    with pytest.raises(UsageError, match="INIT is missing, too long"):
        Run.read(run.folder)


def test_weights_for_pixels_of_another_scale_are_warned_of(workplace, capsys):
    run, training = make_run(), make_training(output="linear")
    run.save(0, *training)
    path = run.folder / "checkpoints" / "000.safetensors"
    init_from_checkpoint(path, make_training()[0], None, SETTINGS)
    assert f"{path} was trained on pixels of another scale, OUTPUT linear" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["a link", "a pipe", "a folder"])
def test_what_lies_at_the_place_of_a_new_run_is_no_run(workplace, left):
    mine = workplace / "mine"
    mine.mkdir()
    (mine / "settings.json").write_text("precious")
    RUNS.mkdir()
    new = RUNS / ".new"
    {"a link": lambda: new.symlink_to(mine), "a pipe": lambda: os.mkfifo(new), "a folder": new.mkdir}[left]()
    run = make_run()
    assert not run.folder.is_symlink()
    assert (mine / "settings.json").read_text() == "precious"


def test_what_is_deleted_while_a_run_goes_on_is_written_again(workplace):
    run = make_run()
    rows = {"original": torch.rand(1, 3, 16, 16)}
    for step in (10, 20):
        shutil.rmtree(run.folder / "grids", ignore_errors=True)
        (run.folder / "metrics.csv").unlink(missing_ok=True)
        run.draw("test", step, rows)
        run.log("train", step, step / 20, {"loss": 1 / step})
    assert (run.folder / "grids" / "test-000020.png").is_file()
    assert rows_of(run) == [("train", "10"), ("train", "20")]
    path = run.folder / "metrics.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as a spreadsheet begins it
    assert rows_of(run) == [("train", "10"), ("train", "20")]


def test_a_run_that_lost_its_checkpoints_is_no_exported_model(workplace):
    run = make_run()
    run.lock.release()
    (run.folder / "checkpoints").rmdir()
    with pytest.raises(UsageError, match="has lost its checkpoints"):
        Run.resume(run.folder, "self-teaching")


@pytest.mark.parametrize("part", ["checkpoints", "grids"])
def test_a_run_whose_parts_lie_elsewhere_is_not_resumed_into_them(workplace, part):
    run = make_run()
    run.lock.release()
    (run.folder / part).rename("elsewhere")
    (run.folder / part).symlink_to(workplace / "elsewhere")
    with pytest.raises(UsageError, match=rf"{run.folder}/{part} is a link"):
        Run.resume(run.folder, "self-teaching")


@pytest.mark.parametrize("again", [True, False])
def test_a_run_whose_folder_was_moved_writes_into_no_other_ones(workplace, again):
    first, training = make_run(), make_training()
    first.log("train", 0, 0.0, {"loss": 1.0})
    first.folder.rename("aside")
    if again:
        assert make_run().folder == first.folder
    before = sorted(path for path in RUNS.rglob("*"))
    for write in (
        lambda: first.log("train", 10, 0.5, {"loss": 1.0}),
        lambda: first.save(20, *training),
        lambda: first.draw("test", 20, {"original": torch.rand(1, 3, 16, 16)}),
        first.plot_metrics,
    ):
        with pytest.raises(UsageError if again else FileNotFoundError, match=str(first.folder)):
            write()
    assert sorted(path for path in RUNS.rglob("*")) == before


def test_restoring_drops_what_will_be_made_again(workplace):
    run = make_run()
    run.log("test", 0, 0.0, {"psnr_clean": 10.0})
    for step in (10, 20, 30):
        run.log("train", step, step / 20, {"loss": 1 / step})
    run.log("test", 20, 1.0, {"psnr_clean": 20.0})
    run.save(20, *make_training())
    with (run.folder / "metrics.csv").open("a") as file:
        file.write("train,40,2")  # a row that was cut off
    run.lock.release()
    resumed = Run.resume(run.folder, "self-teaching")
    assert resumed.restore(*make_training(steps=0)) == 20
    assert rows_of(resumed) == [("test", "0"), ("train", "10"), ("train", "20"), ("test", "20")]
    resumed.log("test", 20, 1.0, {"psnr_clean": 21.0})  # which may not be due any more, or be made again
    assert rows_of(resumed) == [("test", "0"), ("train", "10"), ("train", "20"), ("test", "20")]
    assert read_metrics(resumed.folder)[-1]["psnr_clean"] == "21"
    resumed.log("train", 30, 1.5, {"loss": 0.25, "a_new_term": 0.5})  # declared nowhere, logged all the same
    row = {"split": "train", "step": "30", "epoch": "1.5", "loss": "0.25", "a_new_term": "0.5"}
    assert read_metrics(resumed.folder)[-1] == row


@pytest.mark.parametrize(("name", "value"), [("EPOCHS", 4), ("CROP_RATIOS", [0.15])])
def test_settings_that_were_edited_are_refused_by_name_and_lost_ones_written_again(workplace, name, value):
    run, training = make_run(DEVICE="cpu"), make_training()
    path = run.folder / "settings.json"
    content = path.read_text()
    path.unlink()
    run.save(20, *training)
    assert path.read_text() == content
    run.lock.release()
    edited = json.loads(content)
    path.write_text(json.dumps({**edited, "settings": {**edited["settings"], "DEVICE": "cuda"}}))  # changes no number
    assert Run.read(run.folder).restore(*training) == 20
    path.write_text(json.dumps({**edited, "settings": {**edited["settings"], name: value}}))
    with pytest.raises(UsageError, match=f"{name} .*{path}"):
        Run.read(run.folder).restore(*training)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"step", b"pets", "step"),
        (b"0.1\n", b"0.1.1\n", "0.1.1"),
        (b"0.1\n", b"0.1,5\n", "step 10"),
        (b"0.1\n", b"0.\xff\n", "0xff"),
        (b"train,10", b",10", "step 10"),
        (b"split,", b"split;", "its first line is 'split;step"),
        (b"epoch", b",".join(b"a%d" % n for n in range(99)), "the number of columns is 102.* at most 100"),
        (b"train,10", b"train,10,0.5,0.1\n" * 3 + b"train,10", "the number of rows is 4.* at most 3"),
    ],
)
def test_damaged_metrics_are_refused_rather_than_lost(workplace, monkeypatch, old, new, says):
    monkeypatch.setattr("leae.training.run.MAX_ROWS", 3)
    run, training = make_run(), make_training()
    for step in (10, 20):
        run.log("train", step, step / 20, {"loss": 1 / step})
    run.save(20, *training)
    path = run.folder / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(old, new, 1))
    with pytest.raises(UsageError, match=f"{path}.*{says}"):
        run.restore(*training)


BAD_SETTINGS = [{"settings": [1]}, {"data": "x"}, {"data": {**DATA, "title": 1}}, {"kind": ["x"]}, {"steps": "9"}]
BAD_SETTINGS += [{"settings": {"CROP_RATIOS": [[0.15]]}}, {"defaults": {"FOO": {}}}]
BAD_SETTINGS += [{"command": float("inf")}, {"versions": [1, 2]}, {"versions": {"torch": 2}}, {"defaults": [1]}]


@pytest.mark.parametrize("bad", [None, "", "[1]", "[" * 100_000, *BAD_SETTINGS], ids=lambda bad: str(bad)[:20])
def test_a_folder_that_is_not_a_runs_is_refused_with_those_that_are(workplace, bad):
    run, other = make_run(), make_run()
    path = run.folder / "settings.json"
    path.write_text(json.dumps({**run.content, **bad}) if isinstance(bad, dict) else bad or "")
    if bad is None:
        path.unlink()
    with pytest.raises(UsageError, match=f"{run.folder} .*{other.folder}"):
        Run.read(run.folder)


def test_a_run_is_resumed_by_the_script_that_began_it_and_an_exported_folder_by_none(workplace):
    run = make_run()
    with pytest.raises(UsageError, match=f"{run.folder} is a self-teaching run"):
        Run.resume(run.folder, "plain", "masked")
    run.lock.release()
    left = run.folder / "checkpoints" / ".last.safetensors.1a2b3c4d.tmp"
    others = [run.folder / name for name in (".my-notes.tmp", ".codes.csv.1a2b3c4d.tmp")]
    for path in (left, *others):  # by a process that was killed, and by somebody, or a command that writes
        path.touch()
    resumed = Run.resume(run.folder, "self-teaching")
    assert resumed.data["identity"] == "abc"
    assert [path.exists() for path in (left, *others)] == [False, True, True]
    resumed.lock.release()
    shutil.rmtree(run.folder / "checkpoints")  # as in a folder that `export` makes
    (run.folder / "model.safetensors").touch()
    with pytest.raises(UsageError, match=f"{run.folder} .*--init {run.folder}"):
        Run.resume(run.folder, "self-teaching")


def test_nothing_non_finite_is_saved_and_what_was_saved_stays(workplace):
    run, (model, optimizer, judge) = make_run(), make_training()
    run.save(7, model, optimizer, judge)
    before = (run.folder / "checkpoints" / "last.safetensors").read_bytes()
    weight, run.milestones = model.decoder.head.weight, {8: ["020"]}
    tensors = {
        "the gradient of decoder.head.weight": weight.grad,
        "model.decoder.head.weight": weight,
        "judge.encoder.stem.weight": judge.encoder.stem.weight,
        "optimizer.decoder.head.weight.exp_avg_sq": optimizer.state[weight]["exp_avg_sq"],
    }
    for name, tensor in tensors.items():
        tensor.data[0] = float("inf")
        with pytest.raises(UsageError, match=f"^{name} is inf after step 8, .*LEARNING_RATE"):
            run.save(8, model, optimizer, judge)
        tensor.data[0] = 0
    assert (run.folder / "checkpoints" / "last.safetensors").read_bytes() == before
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["last.safetensors"]


def test_a_run_without_its_last_checkpoint_is_not_begun_anew(workplace):
    run, training = make_run(), make_training()
    run.save(0, *training)
    run.log("test", 0, 0.0, {"psnr_clean": 8.0})
    run.log("train", 10, 0.5, {"loss": 1.0})
    (run.folder / "checkpoints" / "last.safetensors").unlink()
    before = (run.folder / "metrics.csv").read_bytes()
    with pytest.raises(UsageError, match=f"last.safetensors.*missing.*--init {run.folder}"):
        run.restore(*training)
    assert (run.folder / "metrics.csv").read_bytes() == before
