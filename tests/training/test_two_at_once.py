"""Several processes at the same thing at the same time."""

import re
import signal

from tests.conftest import LONG, TINY, metrics_of, wait_for_step


def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(processes, workplace):
    assert processes.run("-m leae", "prepare", "faces", "--faces", 64, "--image-size", 16, folder=workplace) == 0
    children = [processes.start("main.py", *TINY, "--max-steps", 1, folder=workplace) for _ in range(3)]
    assert [processes.wait(child) for child in children] == [0] * 3
    runs = sorted((workplace / "runs").glob("*/checkpoints/100.safetensors"))
    assert [path.parent.parent.name for path in runs] == [f"self-teaching-00{n}" for n in range(1, 4)]


def test_a_run_that_is_still_running_is_not_resumed_and_one_whose_process_was_killed_is(processes, workplace):
    run = workplace / "runs" / "self-teaching-001"
    first = processes.start("main.py", *LONG, "--max-steps", 2000, folder=workplace)
    wait_for_step(run, 1)
    assert processes.run("main.py", "--resume", run, folder=workplace / "second") == 2
    said = (workplace / "second" / "output").read_text()
    assert re.fullmatch(f"main.py: .*{run}.*\n", said)
    processes.stop(first, signal.SIGKILL)
    third = processes.start("main.py", "--resume", run, folder=workplace)
    wait_for_step(run, len(metrics_of(run)) + 2)
    assert processes.run("main.py", "--resume", run, folder=workplace / "second") == 2
    assert processes.stop(third) == 143
