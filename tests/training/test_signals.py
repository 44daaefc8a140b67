"""Ctrl-C and SIGTERM, sent to real processes."""

import re
import signal

import pytest

from leae.checkpoints import read_checkpoint
from tests.conftest import LONG, ROOT, metrics_of, run_script, wait_for_step
from tests.processes import torchrun


def step_of(run):
    return read_checkpoint(run / "checkpoints" / "last.safetensors")[0]["step"]


@pytest.mark.parametrize(
    ("script", "kind", "number", "status"),
    [("main.py", "self-teaching", signal.SIGINT, 130), ("main_regular.py", "masked", signal.SIGUSR1, 138)],
)
def test_a_signal_saves_a_run_and_names_the_command_that_goes_on(processes, workplace, script, kind, number, status):
    child = processes.start(script, *LONG, "--max-steps", 2000, folder=workplace)
    run = workplace / "runs" / f"{kind}-001"
    wait_for_step(run, 1)
    assert processes.stop(child, number) == status
    said = (workplace / "output").read_text()
    found = re.search(rf"after step (\d+) .*: uv run \S*{script} (--resume .*)\n", said)
    assert step_of(run) == int(found[1])
    assert metrics_of(run)[-1]["step"] == found[1]
    assert "Traceback" not in said
    assert not list(workplace.rglob("*.tmp"))

    child = processes.start(script, *found[2].split(), folder=workplace)
    goal = int(found[1]) + 2
    wait_for_step(run, goal)
    processes.stop(child, number)
    steps = [int(row["step"]) for row in metrics_of(run) if row["split"] == "train"]
    assert steps[:goal] == list(range(1, goal + 1))


ALONE = """
import torch
from leae.distributed import barrier, init_processes, rank
from leae.errors import UsageError, run_command

def main():
    init_processes(torch.device("cpu"))
    if rank() == {rank}:
        raise {error}("its disk is full")
    barrier()

run_command(main, "main.py")
"""


@pytest.mark.parametrize(("rank", "error"), [(0, "UsageError"), (1, "UsageError"), (1, "KeyError")])
def test_a_process_that_fails_alone_says_why_and_the_others_end(workplace, rank, error):
    (workplace / "alone.py").write_text(ALONE.format(rank=rank, error=error))
    process = torchrun(workplace, "alone.py")
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    says = {"UsageError": "^main.py" + rank * ", process 1" + ": ", "KeyError": "^KeyError: '"}[error]
    assert len(re.findall(f"{says}its disk is full", errors, re.MULTILINE)) == 1


def test_processes_that_share_a_run_leave_it_after_the_same_step_and_one_alone_goes_on_with_it(workplace, monkeypatch):
    options = [*LONG, "--log-every", "2", "--max-steps", "40"]
    process = torchrun(workplace, str(ROOT / "main.py"), *options)
    shared, alone = (workplace / "runs" / f"self-teaching-00{number}" for number in (1, 2))
    wait_for_step(shared, 2)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    found = re.search(r"after step (\d+) .*: uv run torchrun --nproc-per-node 2 ", said)
    assert found, errors
    assert said.count("stopped after") == 1  # one process speaks, and writes
    assert "Warning" not in errors
    assert step_of(shared) == int(found[1])
    assert step_of(shared) % 2 == 0

    run_script(monkeypatch, "main.py", "--resume", str(shared))
    run_script(monkeypatch, "main.py", *options)
    assert len(metrics_of(shared)) == len(metrics_of(alone))
    for rows in zip(metrics_of(shared)[:3], metrics_of(alone)[:3], strict=True):
        ours, theirs = ({name: float(row[name]) for name in row if row[name] and name != "split"} for row in rows)
        assert ours == pytest.approx(theirs, rel=0.02)
