"""Disks that are full, folders that are read-only, files that vanish: real processes under the system's real limits."""

import re
import shutil

import pytest

from tests.conftest import LONG, metrics_of, wait_for_step

OPTIONS = [*LONG, "--save-minutes", "0"]


def error_of(folder):
    """The one line in which a process said why it ended, behind the last state of a progress bar."""
    output = (folder / "output").read_text()
    assert "Traceback" not in output
    lines = [line.split("\r")[-1].strip() for line in output.splitlines()]
    (said,) = [line for line in lines if line.startswith("main.py: ")]
    return said


def trained_of(run):
    """The rows of steps; an evaluation after the last one comes again."""
    return [row for row in metrics_of(run) if row["split"] == "train"]


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("cause", ["full", "read-only"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_which_goes_on_once_it_can(processes, workplace, cause):
    run = workplace / "runs" / "self-teaching-001"
    child = processes.start("main.py", *OPTIONS, "--max-steps", 10, folder=workplace)
    wait_for_step(run, 2)
    assert processes.stop(child) == 143
    before, rows, size = contents_of(run / "checkpoints"), trained_of(run), -1
    if cause == "full":
        size = (run / "checkpoints" / "last.safetensors").stat().st_size - 1
    else:
        (run / "checkpoints").chmod(0o500)
    assert processes.run("main.py", "--resume", run, folder=workplace, bytes_of_a_file=size) == 2
    says = "File too large" if cause == "full" else "Permission denied"
    assert re.match(rf"main.py: {run}/checkpoints/\w+\.safetensors: {says}; ", error_of(workplace))
    assert contents_of(run / "checkpoints").items() >= before.items()
    assert not list(run.rglob("*.tmp"))
    assert trained_of(run) == rows

    (run / "checkpoints").chmod(0o700)
    assert processes.run("main.py", "--resume", run, folder=workplace) == 0
    assert processes.run("main.py", *OPTIONS, "--max-steps", 10, folder=workplace / "other") == 0
    whole = workplace / "other" / "runs" / run.name
    assert metrics_of(run) == metrics_of(whole)
    assert contents_of(run / "checkpoints") == contents_of(whole / "checkpoints")
    assert not list(workplace.rglob("*.tmp"))


def test_where_runs_cannot_be_written_none_begins(processes, workplace):
    (workplace / "runs").mkdir(mode=0o500)
    assert processes.run("main.py", *OPTIONS, folder=workplace) == 2
    assert "runs/.new: Permission denied; " in error_of(workplace)
    assert list((workplace / "runs").iterdir()) == []


def test_a_run_whose_folder_vanishes_says_so(processes, workplace):
    child = processes.start("main.py", *OPTIONS, "--max-steps", 2000, folder=workplace)
    run = workplace / "runs" / "self-teaching-001"
    wait_for_step(run, 1)
    (workplace / "runs").rename(workplace / "elsewhere")
    assert processes.wait(child) == 2
    # It looked before it wrote, or the folder vanished between the two.
    assert re.match(r"main.py: runs/self-teaching-001[\w./]*: No such file", error_of(workplace))
    shutil.move(workplace / "elsewhere", workplace / "runs")
    child = processes.start("main.py", "--resume", run, folder=workplace)
    wait_for_step(run, int(metrics_of(run)[-1]["step"]) + 1)
    assert processes.stop(child) == 143


def test_a_disk_that_fills_while_a_row_of_metrics_is_added_makes_one_line(processes, workplace):
    run = workplace / "runs" / "self-teaching-001"
    child = processes.start("main.py", *LONG, "--max-steps", 200, folder=workplace)
    wait_for_step(run, 2)
    assert processes.stop(child) == 143
    path, last = run / "metrics.csv", run / "checkpoints" / "last.safetensors"
    head, evaluated, row, *rest = path.read_text().splitlines(keepends=True)
    many = last.stat().st_size // len(row) + 1  # so that the table is longer than any other file
    path.write_text("".join([head, evaluated, *[row] * many, *rest]))
    size = path.stat().st_size + 2000
    assert processes.run("main.py", "--resume", run, folder=workplace, bytes_of_a_file=size) == 2
    assert re.match(rf"main.py: {run}/metrics.csv: File too large; ", error_of(workplace))
