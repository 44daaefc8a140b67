"""Runs that are killed by SIGKILL at random moments, again and again, end as those that nobody touched."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import LONG, ROOT, metrics_of, wait_for_step
from tests.processes import torchrun

# Saved after every step, so that many kills fall into the writing of a checkpoint; few evaluations, which take long.
OPTIONS = [*LONG, "--save-minutes", "0"]
SCRIPTS = {  # the run's name, and its options
    "main.py": ("self-teaching-001", [*OPTIONS, "--judge-norm", "whitened"]),
    "main_regular.py": ("variational-001", [*OPTIONS, "--objective", "variational"]),
}


def kill_at_random(processes, command, run, steps, kills, draw):
    """Start a run and go on with it, killing it on the way; how often with a checkpoint half-written."""
    folder, within_a_checkpoint = run.parent.parent, 0
    for killed in range(kills):
        options = ["--resume", run] if run.exists() else command[1:]
        child = processes.start(command[0], *options, folder=folder)
        done = max((int(row["step"]) for row in metrics_of(run)), default=0) if (run / "metrics.csv").exists() else 0
        if done > (steps - 4) * killed / kills:  # far enough: before it makes another step
            time.sleep(draw.uniform(0, 0.12))
        elif draw.random() < 0.5:
            wait_for_step(run, done + 1)
            time.sleep(draw.uniform(0, 0.03))
        else:
            wait_for_half_a_checkpoint(run / "checkpoints")
        assert processes.stop(child, signal.SIGKILL) == -signal.SIGKILL, (folder / "output").read_text()
        within_a_checkpoint += any((run / "checkpoints").glob(".*.tmp"))
    return within_a_checkpoint


def wait_for_half_a_checkpoint(checkpoints):
    """Wait for a temporary file of a checkpoint, or some seconds."""
    until, before = time.monotonic() + 5, {path: path.stat().st_mtime_ns for path in checkpoints.glob(".*.tmp")}
    while time.monotonic() < until:
        for path in checkpoints.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime_ns != before.get(path):
                    return
        time.sleep(0.0002)


SOAK = [pytest.param(script, 80, 40, seed, marks=pytest.mark.soak) for script in SCRIPTS for seed in range(10)]


@pytest.mark.parametrize(
    ("script", "steps", "kills", "seed"), [("main.py", 24, 12, 0), ("main_regular.py", 12, 6, 0), *SOAK]
)
def test_a_run_that_is_killed_anywhere_ends_as_one_that_nobody_touched(processes, tmp_path, script, steps, kills, seed):
    name, options = SCRIPTS[script]
    command = [script, *options, "--max-steps", steps]
    run, whole = (tmp_path / place / "runs" / name for place in ("killed", "whole"))
    within_a_checkpoint = kill_at_random(processes, command, run, steps, kills, random.Random(seed))
    for command_line, place in (([script, "--resume", run], "killed"), (command, "whole")):
        assert processes.run(*command_line, folder=tmp_path / place) == 0, (tmp_path / place / "output").read_text()

    assert {path.name for path in run.parent.iterdir()} == {run.name, ".new.lock"}  # one run, and nothing half-written
    names = {path.relative_to(whole) for path in whole.rglob("*")}
    assert {path.relative_to(run) for path in run.rglob("*")} == names
    for name in (name for name in names if name.parent.name in ("checkpoints", "grids")):
        assert (run / name).read_bytes() == (whole / name).read_bytes()  # of last the judge and the optimizer, too
    rows = metrics_of(run)
    assert rows == metrics_of(whole)
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == list(range(1, steps + 1))
    assert not list(tmp_path.rglob("*.tmp"))
    print(script, seed, within_a_checkpoint, "half-written")
    assert kills == 40 or within_a_checkpoint >= kills // 6


def children_of(process):
    """The processes that torchrun has started, by /proc."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_a_shared_run_that_loses_a_process_goes_on_with_two_and_with_one(tmp_path, seed, processes):
    draw, run = random.Random(seed), tmp_path / "runs" / "self-teaching-001"
    options = [*LONG, "--save-minutes", "0", "--max-steps", "24", "--batch-size", "2" if seed == 0 else "8"]
    for options_now in (options, ["--resume", str(run)], ["--resume", str(run)]):
        process = torchrun(tmp_path, str(ROOT / "main.py"), *options_now)
        done = len(metrics_of(run)) if (run / "metrics.csv").exists() else 0
        wait_for_step(run, min(20, done + draw.randrange(1, 5)))
        whom, number = draw.choice([(process.pid, signal.SIGTERM), (children_of(process)[-1], signal.SIGKILL)])
        os.kill(whom, number)
        process.communicate(timeout=120)
        assert process.returncode != 0
    assert processes.run("main.py", "--resume", run, folder=tmp_path) == 0, (tmp_path / "output").read_text()
    steps = [int(row["step"]) for row in metrics_of(run) if row["split"] == "train"]
    assert steps == list(range(1, 25))
    assert not list(tmp_path.rglob("*.tmp"))
