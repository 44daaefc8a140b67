"""Counting and timing steps."""

import time

import pytest
import torch

from leae.errors import UsageError
from leae.training.loop import Progress, StopSignal

OPTIMIZER = torch.optim.SGD([torch.zeros(1)], lr=0.125)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets; seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_it_counts_from_the_first_step_and_has_one_turn_more_for_the_last_evaluation():
    assert list(Progress(3, 7, batch_size=1)) == [3, 4, 5, 6, 7]
    assert list(Progress(7, 7, batch_size=1)) == [7]
    with pytest.raises(UsageError, match="the checkpoint is at step 8 of only 7"):
        Progress(8, 7, batch_size=1)


def test_speed_is_images_per_second_since_the_last_measurement_and_without_evaluations(clock):
    progress, terms, speeds = Progress(0, 100, batch_size=8), {"loss": torch.tensor(2.5)}, {}
    for step in progress:
        if step == 14:
            clock[0] += 1000  # an evaluation
            progress.restart()
        clock[0] += 0.5 if step < 10 else 2.0 if step < 14 else 0.25
        if step + 1 in (10, 14, 16):
            measured = progress.measure(terms, StopSignal(), OPTIMIZER)
            assert list(measured) == ["images_per_second", "loss", "learning_rate"]
            speeds[step + 1] = measured["images_per_second"]
    assert speeds == {10: 16.0, 14: 4.0, 16: 32.0}


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"), [(80, "PSNR 29.33", "latent"), (120, "sigreg 1.250", "consist")]
)
def test_the_bar_says_what_the_terminal_has_room_for(monkeypatch, clock, columns, shown, left_out):
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = Progress(0, 25_000, batch_size=128)
    progress.restart("PSNR 29.33")
    clock[0] += 1
    terms = {name: torch.tensor(1.25) for name in ("loss", "latent", "sigreg", "consistency", "clean_crop_0.15")}
    assert progress.measure(terms, StopSignal(), OPTIMIZER)["learning_rate"] == 0.125
    assert "loss 1.250" in progress.bar.postfix
    assert shown in progress.bar.postfix
    assert left_out not in progress.bar.postfix
    assert len(progress.bar.postfix) + len("100% ███ 25000/25000 steps, 1:00:00 left, ") <= columns


def test_minutes_are_counted_since_the_last_restart_not_the_last_measurement(clock):
    progress = Progress(0, 100, batch_size=8)
    clock[0] += 90
    progress.measure({"loss": torch.tensor(1.0)}, StopSignal(), OPTIMIZER)
    assert progress.minutes == 1.5
    progress.restart()
    assert progress.minutes == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_ends_the_run_with_step_and_term(value):
    progress = Progress(10, 100, batch_size=8)
    steps = iter(progress)
    for _ in range(3):
        next(steps)
    with pytest.raises(UsageError, match=f"kl is {value} after step 13.*lower LEARNING_RATE"):
        progress.measure({"loss": torch.tensor(1.0), "kl": torch.tensor(value)}, StopSignal(), OPTIMIZER)
