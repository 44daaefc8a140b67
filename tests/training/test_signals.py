"""Ctrl-C and SIGTERM, sent to real processes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from leae.errors import run_command
from leae.training.signals import StopSignal
from tests.conftest import ROOT, TINY, assert_same_tensors, metrics_of, read_tensors

LONG = [*TINY, "--epochs", "500", "--log-every", "1", "--grid-every", "100000", "--save-minutes", "60"]


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def has_logged(run, step):
    return lambda: (run / "metrics.csv").exists() and any(int(row["step"]) >= step for row in metrics_of(run))


def step_of(run):
    return read_tensors(run / "checkpoints" / "last.safetensors")[0]["step"]


@pytest.mark.parametrize(
    ("script", "kind", "number", "status"),
    [("main.py", "self-teaching", signal.SIGINT, 130), ("main_regular.py", "masked", signal.SIGTERM, 143)],
)
def test_a_signal_ends_a_run_after_its_step_saved_and_with_the_command_that_goes_on(
    processes, workplace, script, kind, number, status
):
    child = processes.start(script, *LONG, "--max-steps", 2000, folder=workplace)
    run = workplace / "runs" / f"{kind}-001"
    wait_until(has_logged(run, 1))
    os.kill(child, number)
    assert processes.wait(child) == status
    said = (workplace / "output").read_text()
    found = re.search(rf"stopped after step (\d+) and saved; go on with: uv run \S*{script} (--resume .*)\n", said)
    assert step_of(run) == int(found[1])
    assert metrics_of(run)[-1]["step"] == found[1]
    assert "Traceback" not in said
    assert not list(workplace.rglob("*.tmp"))

    child = processes.start(script, *found[2].split(), folder=workplace)
    wait_until(has_logged(run, int(found[1]) + 2))
    os.kill(child, number)
    processes.wait(child)
    assert [int(row["step"]) for row in metrics_of(run) if row["split"] == "train"][: int(found[1]) + 2] == [
        *range(1, int(found[1]) + 3)
    ]


def test_a_run_that_was_stopped_politely_ends_as_one_that_was_not(processes, workplace):
    (workplace / "other").mkdir()
    child = processes.start("main.py", *LONG, "--max-steps", 12, folder=workplace)
    stopped, whole = (place / "runs" / "self-teaching-001" for place in (workplace, workplace / "other"))
    wait_until(has_logged(stopped, 3))
    os.kill(child, signal.SIGTERM)
    assert processes.wait(child) == 143
    assert processes.run("main.py", "--resume", stopped, folder=workplace) == 0
    assert processes.run("main.py", *LONG, "--max-steps", 12, folder=workplace / "other") == 0
    assert_same_tensors(*(run / "checkpoints" / "last.safetensors" for run in (stopped, whole)))
    assert metrics_of(stopped) == metrics_of(whole)


def test_the_first_signal_only_asks_and_the_second_has_its_effect():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_second_sigterm_ends_a_command_with_its_status(capsys):
    def main():
        with StopSignal():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 143
    assert "interrupted" in capsys.readouterr().err


def test_processes_that_share_a_run_leave_it_after_the_same_step(workplace):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, str(ROOT / "main.py"), *LONG, "--log-every", "2", "--max-steps", "2000"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=workplace, env=environment, stdout=pipe, stderr=pipe, text=True)
    run = workplace / "runs" / "self-teaching-001"
    wait_until(has_logged(run, 2))
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    found = re.search(r"stopped after step (\d+) and saved; go on with: uv run torchrun --nproc-per-node 2 ", said)
    assert found, errors
    assert said.count("stopped after") == 1
    assert step_of(run) == int(found[1])
    assert step_of(run) % 2 == 0
