"""What is logged to TensorBoard and W&B is what stands in metrics.csv, and neither can end a run."""

import json
import subprocess
import sys

import pytest
import torch

from leae.training.run import Run, read_metrics
from tests.conftest import ROOT, TINY, assert_one_line, metrics_of, run_script, wait_for_step
from tests.processes import ENVIRONMENT
from tests.test_checkpoints import make_training
from tests.training.test_run import make_run

HALVES = [*TINY, "--epochs", "6", "--log-every", "1", "--grid-every", "100", "--save-minutes", "60"]


def start(*options):
    """A process of its own, as a tracker writes some of what it has only when that ends."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, ROOT / "main.py", *options], env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True
    )


def read_tensorboard(folder):
    """The figures by (name, step), the steps of the grids, and the settings as a text."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    figures = {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}
    grids = {event.step for event in events.Images("grids/test")}
    [text, *_] = events.Tensors("settings/text_summary")
    return figures, grids, text.tensor_proto.string_val[0].decode()


def records_of(content):
    """The records of W&B's file, which has the format of LevelDB's log behind seven bytes of its own."""
    place, record = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:  # the rest of a block, too short for the head of a piece
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # all of it, or its last piece
            yield record
            record = b""


def read_wandb(folder):
    """The same."""
    from wandb.proto.wandb_internal_pb2 import Record

    figures, grids, settings = {}, set(), ""
    parts = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(parts) == 2
    assert len({path.name for path in parts}) == 1  # which has the run's id
    for record in (Record.FromString(each) for path in parts for each in records_of(path.read_bytes())):
        settings += "".join(f"{item.key} = {item.value_json}\n" for item in record.run.config.update)
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        grids |= {row["step"]} if "grids/test" in row else set()
        figures |= {(name, row["step"]): value for name, value in row.items() if name.startswith(("train/", "test/"))}
    return figures, grids, settings


@pytest.mark.parametrize(("tracker", "read"), [("tensorboard", read_tensorboard), ("wandb", read_wandb)])
def test_a_run_that_was_stopped_and_resumed_has_the_same_figures_in_its_tracker(workplace, tracker, read):
    pytest.importorskip(tracker, reason=f"needs --extra {tracker}")
    run = workplace / "runs" / "self-teaching-001"
    first = start(*HALVES, "--tracker", tracker)
    wait_for_step(run, 15)
    first.terminate()
    assert "warning:" not in first.communicate()[1]
    assert first.returncode == 143
    second = start("--resume", run.relative_to(workplace))
    assert "warning:" not in second.communicate()[1]
    assert second.returncode == 0

    figures, grids, settings = read(run)
    rows, text = read_metrics(run), ("split", "step")
    logged = {(f"{r['split']}/{name}", int(r["step"])): float(r[name]) for r in rows for name in r if name not in text}
    assert figures == pytest.approx(logged, rel=1e-5)
    assert grids == {int(row["step"]) for row in rows if row["split"] == "test"}
    assert "LATENT_DIM = 8\n" in settings


def test_tensorboard_shows_what_a_resumed_run_keeps_and_makes_again_once(workplace):
    pytest.importorskip("tensorboard", reason="needs --extra tensorboard")
    run, training = make_run(), make_training()
    run.tracker = "tensorboard"
    run.log("train", 10, 0.5, {"loss": 1.0})
    run.log("test", 20, 1.0, {"psnr_clean": 20.0})
    run.log("train", 20, 1.0, {"loss": 2.0})
    run.save(20, *training)  # and then it is killed, some steps later
    run.log("train", 30, 1.5, {"loss": 3.0})
    run.draw("test", 30, {"original": torch.rand(1, 3, 8, 8)})
    run.lock.release()
    resumed = Run.resume(run.folder, "self-teaching")
    resumed.restore(*training)
    resumed.tracker = "tensorboard"
    resumed.log("test", 20, 1.0, {"psnr_clean": 20.0})
    resumed.log("train", 25, 1.25, {"loss": 4.0})
    resumed.draw("test", 25, {"original": torch.rand(1, 3, 8, 8)})
    figures, grids, _ = read_tensorboard(run.folder)
    assert {step: value for (name, step), value in figures.items() if name == "train/loss"} == {10: 1, 20: 2, 25: 4}
    assert figures["test/psnr_clean", 20] == 20
    assert grids == {25}


@pytest.mark.parametrize("fails_at", [0, 5])
def test_a_tracker_that_fails_is_one_warning_and_the_run_is_the_same(workplace, monkeypatch, capsys, fails_at):
    sent = []

    def open_broken(run):
        def send(*arguments):
            sent.append(arguments)
            if len(sent) == fails_at:
                raise RuntimeError("no route\nto host")

        if fails_at == 0:
            raise OSError("disk full")
        return send

    monkeypatch.setattr("leae.training.run.open_tracker", open_broken)
    monkeypatch.setattr("leae.training.settings.is_installed", lambda name: True)
    run_script(monkeypatch, "main.py", *TINY)
    run_script(monkeypatch, "main.py", *TINY, "--tracker", "tensorboard")
    assert len(sent) == fails_at
    assert capsys.readouterr().err.count("warning: tensorboard has failed") == 1
    alone, tracked = (metrics_of(workplace / "runs" / f"self-teaching-00{number}") for number in (1, 2))
    assert tracked == alone


@pytest.mark.parametrize("script", ["main.py", "main_regular.py"])
def test_a_tracker_that_is_not_installed_is_a_line_before_any_work(workplace, monkeypatch, capsys, script):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert_one_line(monkeypatch, capsys, script, *TINY, "--tracker", "wandb", says="--extra wandb")
    assert not list(workplace.iterdir())


def test_only_the_first_of_several_processes_sends_anything(workplace, monkeypatch):
    run, sent = make_run(), []
    run.tracker, run.send = "wandb", lambda *arguments: sent.append(arguments)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        run.log("train", 10, 0.5, {"loss": 0.25})
    assert sent == [(10, {"train/epoch": 0.5, "train/loss": 0.25})]
