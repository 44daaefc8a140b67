"""Several processes at the same thing at the same time."""

import os
import signal

from tests.conftest import TINY, metrics_of
from tests.training.test_signals import LONG, has_logged, wait_until


def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(processes, workplace):
    assert processes.run("-m leae", "prepare", "faces", "--faces", 64, "--image-size", 16, folder=workplace) == 0
    children = [processes.start("main.py", *TINY, "--max-steps", 1, folder=workplace) for _ in range(3)]
    assert [processes.wait(child) for child in children] == [0] * 3
    runs = sorted((workplace / "runs").glob("*/checkpoints/100.safetensors"))
    assert [path.parent.parent.name for path in runs] == [f"self-teaching-00{n}" for n in range(1, 4)]


def test_a_run_that_is_still_running_is_not_resumed_and_one_whose_process_was_killed_is(processes, workplace):
    run = workplace / "runs" / "self-teaching-001"
    first = processes.start("main.py", *LONG, "--max-steps", 2000, folder=workplace)
    wait_until(has_logged(run, 1))
    (workplace / "second").mkdir()
    assert processes.run("main.py", "--resume", run, folder=workplace / "second") == 2
    said = (workplace / "second" / "output").read_text()
    assert said == f"main.py: {run} is still running, in another process; stop that one first, or let it finish\n"
    os.kill(first, signal.SIGKILL)
    processes.wait(first)
    third = processes.start("main.py", "--resume", run, folder=workplace)
    wait_until(has_logged(run, len(metrics_of(run)) + 2))
    assert processes.run("main.py", "--resume", run, folder=workplace / "second") == 2
    os.kill(third, signal.SIGTERM)
    assert processes.wait(third) == 143
