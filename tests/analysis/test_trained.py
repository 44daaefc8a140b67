"""Trained runs: which are opened, which are refused and with what words."""

import os
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import leae
from leae.analysis.embed import embed_folder
from leae.analysis.trained import TrainedRun, encode_all, free_path, open_runs, output_path, require_extra, require_own
from leae.data.batches import to_float
from leae.errors import UsageError
from leae.files import write_csv
from tests.conftest import CPU, RUNS, assert_one_line, run_leae, write_image


def test_runs_are_opened_at_the_checkpoint_that_is_asked_for(trained):
    for checkpoint, step in (("000", 0), ("100", 9), ("last", 9)):
        runs = open_runs(RUNS, checkpoint, CPU)
        assert [(run.name, run.step) for run in runs] == [("self-teaching-001", step), ("masked-001", step)]
        expected = leae.load(f"{RUNS[0]}/checkpoints/{checkpoint}.safetensors").state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in runs[0].model.state_dict().items())
    method = "self-teaching, symmetric, whitened norm"
    assert [run.method for run in runs] == [method, "masked"]
    assert runs[0].title == f"self-teaching-001 ({method}), step 9; latent size 8, 96× compression"


def test_files_among_folders_are_left_out_and_said(trained, capsys):
    Path("runs/comparison.png").touch()
    assert len(open_runs([*RUNS, "runs/comparison.png"], "100", CPU)) == len(RUNS)
    assert "left out, as they are no folders: runs/comparison.png" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"comparison.png is not a run's folder"):
        open_runs(["runs/comparison.png"], "100", CPU)
    Path("runs/comparison.png").unlink()


def test_a_checkpoint_by_a_name_that_is_not_utf_8_is_refused_as_such(trained, tmp_path):
    run = shutil.copytree(RUNS[0], os.fsdecode(bytes(tmp_path) + b"/o\xff"))
    with pytest.raises(UsageError, match="its name is not UTF-8"):
        open_runs([run], "100", CPU)


def test_a_folder_by_the_name_of_what_is_not_installed_is_no_module(workplace, monkeypatch):
    Path("nowhere_installed").mkdir()
    monkeypatch.syspath_prepend(workplace)
    with pytest.raises(UsageError, match="--map needs nowhere_installed"):
        require_extra("--map", "umap", "nowhere_installed")


def test_runs_of_other_data_or_sizes_are_refused_by_name(trained):
    with pytest.raises(UsageError, match=r"self-.* was .*faces.* \(3, 16, 16\), .*plain-.* was .*\(1, 32, 32\)"):
        open_runs([*RUNS, "runs/plain-001"], "100", CPU)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda run: (run / "checkpoints/100.safetensors").unlink(),
            "train it to its end, .*--checkpoint of .000, 020",
        ),
        (lambda run: shutil.rmtree(run / "checkpoints"), "has no checkpoint 100"),
        (lambda run: (run / "settings.json").write_text("{}"), "kind is missing"),
        (lambda run: edit(run / "settings.json", "MASK_RATIO", "MASKED"), "has no MASK_RATIO"),
    ],
)
def test_a_run_that_cannot_be_opened_is_refused_in_one_line(trained, tmp_path, damage, says):
    run = shutil.copytree(RUNS[0], tmp_path / "copy")
    damage(run)
    with pytest.raises(UsageError) as refused:
        open_runs([str(run)], "100", CPU)
    assert re.search(says, str(refused.value))
    assert "\n" not in str(refused.value)


def test_codes_are_the_models_of_every_image_and_its_masked_view_in_order(trained):
    [run] = open_runs(RUNS[:1], "100", CPU)
    assert run.views(None).mask_ratio == 0.35  # the run's
    images = np.tile(run.open_data().images["train"], (2, 1, 1, 1))  # more than one batch
    for views in (None, run.views(0.1)):
        batch = views(to_float(images)) if views else to_float(images)
        with torch.no_grad():
            torch.testing.assert_close(encode_all(run.model, images, views, CPU, ""), run.model.encode(batch))


OUTPUTS = {
    "codes.npz": ["embed", "test", "--output", "codes.npz"],
    "codes.csv": ["embed", "test", "--output", "codes.csv"],
    "of one.png": ["compare", "--output", "of one.png"],
    "table.csv": ["evaluate", "--csv", "table.csv"],
    "table.md": ["evaluate", "--markdown", "table.md"],
    "curves.csv": ["evaluate", "--checkpoints", "all", "--output", "curves.csv"],
    f"{RUNS[0]}/evaluation.json": ["evaluate", "--train-images", "100", "--held-out", "100"],
    f"{RUNS[0]}/latents/map-pca.png": ["latents", "--map", "pca"],
    f"{RUNS[0]}/latents/usual.safetensors": ["score", "grids"],
    **{name: ["score", "grids", "--output", "."] for name in ("scores.csv", "scores.png", "roc.png")},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_command_replaces_no_file_of_others(trained, monkeypatch, capsys, name):
    command, *options = OUTPUTS[name]
    write_image(Path("grids") / "a.png", 1, (16, 16))
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("split,step,epoch\n")
    assert_one_line(monkeypatch, capsys, command, RUNS[0], *options, says=name)
    assert Path(name).read_text() == "split,step,epoch\n"
    Path(name).unlink()


def test_a_command_replaces_its_own_files(trained, monkeypatch):
    write_image(Path("mine") / "a.png", 1, (16, 16))
    shutil.copy("mine/a.png", "mine/b.png")
    for line in (*list(OUTPUTS.values())[:3], ["score", "mine", "--output", "scores"]):
        for _ in range(2):
            run_leae(monkeypatch, line[0], RUNS[0], *line[1:])


def test_a_command_replaces_no_picture_of_training_which_could_not_be_made_again(trained, monkeypatch, capsys):
    name = f"{RUNS[0]}/grids/test-000000.png"
    before = Path(name).read_bytes()
    assert_one_line(monkeypatch, capsys, "compare", RUNS[0], "--output", name, says=name)
    assert Path(name).read_bytes() == before


def test_a_table_with_a_long_first_line_is_the_commands_own(tmp_path):
    labels = [f"a long name of an attribute {number}" for number in range(200)]
    write_csv(tmp_path / "codes.csv", ("file", "error", *labels, "code_0"), [])
    require_own(tmp_path / "codes.csv")


@pytest.mark.parametrize("text", ["file,error,code_0\nmine,1,2\n", "file,error,code_0,verdict\r\nmine,1,2,3\r\n"])
def test_a_table_that_was_made_of_a_commands_own_is_left(tmp_path, text):
    (tmp_path / "codes.csv").write_bytes(text.encode())
    with pytest.raises(UsageError, match="not written by this command"):
        require_own(tmp_path / "codes.csv")


def test_a_free_name_is_free_with_every_ending(tmp_path):
    assert free_path(tmp_path, "curves", ".csv", "-minutes.png") == tmp_path / "curves.csv"
    (tmp_path / "curves-minutes.png").touch()
    (tmp_path / "curves-2.csv").symlink_to("nowhere")
    assert free_path(tmp_path, "curves", ".csv", "-minutes.png") == tmp_path / "curves-3.csv"
    (tmp_path / "scores-a.b").mkdir()
    assert free_path(tmp_path, "scores-a.b", "") == tmp_path / "scores-a.b-2"


def test_what_is_written_unasked_replaces_nothing(trained, monkeypatch, capsys):
    texts = []
    for seed in ("0", "1", "2"):
        run_leae(monkeypatch, "compare", RUNS[0], "--images", "1", "--seed", seed)
        texts.append(re.search(r"comparison: (.*)", capsys.readouterr().out)[1])
    assert texts == [f"runs/comparison{part}.png" for part in ("", "-2", "-3")]
    assert len({Path(text).read_bytes() for text in texts}) == 3
    for text in texts:
        Path(text).unlink()


@pytest.mark.parametrize(("name", "options"), [("comparison.png", ["compare"]), ("codes.npz", ["embed", "test"])])
def test_a_default_name_that_is_taken_while_a_command_works_is_left(trained, monkeypatch, capsys, name, options):
    path = Path("runs") / name

    def take(self):
        path.write_text("precious")
        return open_data(self)

    open_data = TrainedRun.open_data
    monkeypatch.setattr(TrainedRun, "open_data", take)
    run_leae(monkeypatch, options[0], RUNS[0], *options[1:])
    assert path.read_text() == "precious"
    other = path.with_stem(f"{path.stem}-2")
    assert str(other) in capsys.readouterr().out
    for each in (path, other):
        each.unlink()


DATA = ("leae.analysis.trained.TrainedRun.open_data", TrainedRun.open_data)


@pytest.mark.parametrize(
    ("name", "step", "function"),
    [
        ("codes.csv", *DATA),
        ("of one.png", *DATA),
        ("table.md", *DATA),
        ("scores.csv", "leae.analysis.score.embed_folder", embed_folder),
    ],
)
def test_a_file_that_appears_while_a_command_works_is_left(trained, monkeypatch, capsys, name, step, function):
    command, *options = OUTPUTS[name]
    write_image(Path("grids") / "a.png", 1, (16, 16))
    monkeypatch.setattr(step, lambda *values: Path(name).write_text("precious") and function(*values))
    with pytest.raises(SystemExit, match="2"):
        run_leae(monkeypatch, command, RUNS[0], *options)
    assert f"{name} was not written by this command" in capsys.readouterr().err
    assert Path(name).read_text() == "precious"
    Path(name).unlink()


def test_of_two_commands_the_second_waits_until_the_first_has_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = []

    def write():
        with output_path(None, "codes", ".npz") as path:
            written.append(path.name)
            path.touch()

    with output_path(None, "codes", ".npz") as path:
        other = threading.Thread(target=write)
        other.start()
        time.sleep(0.5)
        assert written == []
        path.touch()
    other.join()
    assert (path.name, written) == ("codes.npz", ["codes-2.npz"])


def test_files_of_others_are_told_from_our_own(tmp_path):
    np.savez(tmp_path / "a.npz", codes=np.zeros(3), precious=np.zeros(3))
    np.savez(tmp_path / "b.npz", train=np.zeros(3))
    (tmp_path / "b.csv").write_text("file,error,comment\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("profile,error,comment\n")
    (tmp_path / "a.md").write_text("notes; mask ratio 0.5\n")
    for path in tmp_path.iterdir():
        with pytest.raises(UsageError, match=f"^{path} "):
            require_own(path)
    (tmp_path / "empty.csv").touch()
    require_own(tmp_path / "empty.csv", tmp_path / "missing.png")
