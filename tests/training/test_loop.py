"""A loop's parts: learning rates, counting and timing of steps, the signal that asks it to stop."""

import itertools
import math
import os
import re
import signal
import sys
import time

import pytest
import torch

from leae.errors import UsageError, run_command
from leae.training.loop import Progress, Schedule, StopSignal


def rates(steps=200, warmup=0.1, kind="cosine"):
    schedule = Schedule(1, 0, 0.01, warmup, kind)
    return [schedule.learning_rate_at(step, steps) / 0.01 for step in range(steps)]


def test_the_learning_rate_rises_linearly_and_falls_along_half_a_cosine():
    rate = rates()
    rises = [later - earlier for earlier, later in itertools.pairwise(rate[:20])]
    assert rises == pytest.approx([1 / 21] * 19)
    assert rate[20] == 1
    assert rate[110] == pytest.approx(0.5)  # half-way between step 20 and step 200
    assert rate[-1] == pytest.approx((math.pi / 180) ** 2 / 4, rel=1e-3)
    assert all(0 < value <= 1 for value in rate)
    assert rates(warmup=0.0)[0] == 1
    assert set(rates(kind="constant")[20:]) == {1.0}


def test_a_run_ends_with_its_epochs_or_its_limit():
    for limit, steps in ((0, 100), (200, 100), (64, 64)):
        assert Schedule(5, limit, 0.01, 0, "cosine").total_steps(20) == steps


def test_it_counts_from_the_first_step_and_has_one_turn_more_for_the_last_evaluation():
    assert list(Progress(3, 7, batch_size=1)) == [3, 4, 5, 6, 7]
    assert list(Progress(7, 7, batch_size=1)) == [7]
    with pytest.raises(UsageError, match=r"step 8 .*7"):
        Progress(8, 7, batch_size=1)


def test_speed_is_that_since_the_last_measurement_without_evaluations_and_minutes_those_since_a_restart(monkeypatch):
    clock, speeds = [100.0], {}
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    progress = Progress(0, 100, batch_size=8)
    for step in progress:
        if step == 14:
            assert progress.minutes == pytest.approx((10 * 0.5 + 4 * 2) / 60)
            clock[0] += 1000  # an evaluation
            progress.restart()
            assert progress.minutes == 0
        clock[0] += 0.5 if step < 10 else 2.0 if step < 14 else 0.25
        if step + 1 in (10, 14, 16):
            speeds[step + 1] = progress.show({"loss": 2.5})
            assert progress.bar.postfix == f"{speeds[step + 1]:.0f} img/s, loss 2.500"
    assert speeds == {10: 16.0, 14: 4.0, 16: 32.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_ends_the_run_with_step_and_term(value):
    with pytest.raises(UsageError, match=f"^kl is {value} after step 13.*LEARNING_RATE"):
        Progress(12, 100, batch_size=8).show({"loss": 1.0, "kl": value})


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_only_asks_and_the_second_ends_a_command_with_its_status(capsys, number, status):
    def main():
        with StopSignal() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)  # the same, by way of a launcher
            assert stop.requested
            assert stop.received == number
            assert stop.agree({"loss": torch.tensor(2.5)}) == {"loss": 2.5}
            stop.at -= 1.5
            os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    with pytest.raises(SystemExit) as end:
        run_command(main, name="leae prepare")
    assert end.value.code == status
    assert "leae prepare: interrupted" in capsys.readouterr().err


def test_a_run_under_nohup_does_not_notice_that_its_terminal_is_gone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("terminal", "disabled", "lines"), [(False, "", 2), (True, "1", 2), (True, "", 0)])
def test_where_there_is_no_bar_evaluations_and_every_ten_minutes_are_lines(
    monkeypatch, capsys, terminal, disabled, lines
):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = Progress(0, 100, batch_size=8)
    for step in progress:
        if step == 1:
            progress.report("PSNR 20 dB")
        if step == 7:
            progress.reported -= 600
        if step in (6, 7, 8):
            progress.show({"loss": 0.5})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    if lines:
        assert said[0] == "step 1 of 100: PSNR 20 dB"
        assert re.fullmatch(r"step 7 of 100: \d+ img/s, loss 0.500, [\d:]+ left", said[1])
