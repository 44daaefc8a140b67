"""Disks that are full, folders that are read-only, files that vanish: real processes under the system's real limits."""

import os
import re
import shutil
import signal

import pytest
import torch

from tests.conftest import TINY, assert_same, metrics_of
from tests.training.test_signals import has_logged, wait_until

OPTIONS = [*TINY, "--epochs", "500", "--log-every", "1", "--grid-every", "100000", "--save-minutes", "0"]


def output_of(folder):
    """The lines that a process left on its screen, the last states of progress bars among them."""
    return [line.split("\r")[-1].strip() for line in (folder / "output").read_text().splitlines()]


def begin_and_stop(nursery, folder, steps=10):
    """A run of some steps that was stopped in between."""
    child = nursery.start("main.py", *OPTIONS, "--max-steps", steps, folder=folder)
    run = folder / "runs" / "self-teaching-001"
    wait_until(has_logged(run, 2))
    os.kill(child, signal.SIGTERM)
    assert nursery.wait(child) == 143
    return run


def contents_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_data_set_that_does_not_fit_is_refused_with_its_path_and_leaves_nothing(nursery, workplace):
    options = ("faces", "--faces", 40, "--image-size", 32)
    assert nursery.run("-m leae.data.prepare", *options, folder=workplace, bytes_of_a_file=50_000) == 2
    (said,) = [line for line in output_of(workplace) if line.startswith("prep_data.py: ")]
    assert "train.npy cannot be written (File too large); raise the limit of a file's size" in said
    assert "Traceback" not in (workplace / "output").read_text()
    assert list((workplace / "data" / "prepared").iterdir()) == []
    assert nursery.run("-m leae.data.prepare", *options, folder=workplace) == 0


@pytest.mark.parametrize("cause", ["full", "read-only"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_which_goes_on_once_it_can(nursery, workplace, cause):
    run = begin_and_stop(nursery, workplace)
    before, rows, size = contents_of(run / "checkpoints"), metrics_of(run), 0
    if cause == "full":
        size = (run / "checkpoints" / "last.pt").stat().st_size - 1
        says = "cannot be written (File too large); raise the limit of a file's size"
    else:
        (run / "checkpoints").chmod(0o500)
        says = "cannot be written (Permission denied); make the folder writable"
    assert nursery.run("main.py", "--resume", run, folder=workplace, bytes_of_a_file=size or -1) == 2
    (said,) = [line for line in output_of(workplace) if line.startswith("main.py: ")]
    assert re.match(rf"main.py: {run}/checkpoints/\w+.pt {re.escape(says)}", said)
    assert said.endswith("; what was there before is as it was")
    assert "Traceback" not in (workplace / "output").read_text()
    assert contents_of(run / "checkpoints").items() >= before.items()
    assert not list(run.rglob("*.tmp"))
    assert metrics_of(run)[: len(rows)] == rows

    (run / "checkpoints").chmod(0o700)
    assert nursery.run("main.py", "--resume", run, folder=workplace) == 0
    (workplace / "other").mkdir()
    assert nursery.run("main.py", *OPTIONS, "--max-steps", 10, folder=workplace / "other") == 0
    whole = workplace / "other" / "runs" / run.name
    assert metrics_of(run) == metrics_of(whole)
    first, second = (torch.load(place / "checkpoints" / "last.pt", weights_only=True) for place in (run, whole))
    assert_same(first, second)
    assert not list(workplace.rglob("*.tmp"))


def test_where_runs_cannot_be_written_none_begins(nursery, workplace):
    (workplace / "runs").mkdir(mode=0o500)
    assert nursery.run("main.py", *OPTIONS, folder=workplace) == 2
    assert output_of(workplace)[-1].startswith(
        "main.py: runs/self-teaching-001 cannot be written (Permission denied); make the folder writable"
    )
    assert list((workplace / "runs").iterdir()) == []


def test_data_that_was_prepared_is_used_from_a_read_only_place(nursery, workplace):
    assert nursery.run("-m leae.data.prepare", "faces", "--faces", 64, "--image-size", 16, folder=workplace) == 0
    for folder in ("data/prepared/faces-64-16", "data/prepared", "data"):
        (workplace / folder).chmod(0o500)
    assert nursery.run("main.py", *OPTIONS, "--max-steps", 1, folder=workplace) == 0


def test_a_run_whose_folder_vanishes_says_so(nursery, workplace):
    child = nursery.start("main.py", *OPTIONS, "--max-steps", 2000, folder=workplace)
    run = workplace / "runs" / "self-teaching-001"
    wait_until(has_logged(run, 1))
    (workplace / "runs").rename(workplace / "elsewhere")
    assert nursery.wait(child) == 2
    (said,) = [line for line in output_of(workplace) if line.startswith("main.py: ")]
    assert said.startswith("main.py: runs/self-teaching-001/")
    assert "cannot be written (No such file or directory); bring the folder back" in said
    shutil.move(workplace / "elsewhere", workplace / "runs")
    child = nursery.start("main.py", "--resume", run, folder=workplace)
    wait_until(has_logged(run, int(metrics_of(run)[-1]["step"]) + 1))
    os.kill(child, signal.SIGTERM)
    assert nursery.wait(child) == 143


def test_a_lost_last_checkpoint_or_settings_file_is_told_of(nursery, workplace):
    run = begin_and_stop(nursery, workplace)
    (run / "checkpoints" / "last.pt").write_bytes(b"")
    assert nursery.run("main.py", "--resume", run, folder=workplace) == 2
    assert "last.pt is not a checkpoint of leae, or is damaged" in output_of(workplace)[-1]
    (run / "settings.json").chmod(0o400)
    assert nursery.run("main.py", "--resume", run, folder=workplace) == 2
    assert f"{run}/settings.json cannot be written (Permission denied)" in output_of(workplace)[-1]
