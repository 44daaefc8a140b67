"""Counting and timing steps."""

import time

import pytest
import torch

from leae.errors import UsageError
from leae.training.progress import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets; seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_it_counts_from_the_first_step_to_the_last():
    assert list(Pace(3, 7, batch_size=1)) == [3, 4, 5, 6]
    assert list(Pace(7, 7, batch_size=1)) == []


def test_more_steps_than_the_run_has_cannot_have_been_made():
    with pytest.raises(UsageError, match="says that 8 steps were made, of a run of 7"):
        Pace(8, 7, batch_size=1)


def test_speed_is_images_per_second_since_the_last_measurement_and_without_rests(clock):
    pace = Pace(0, 100, batch_size=8)
    steps = iter(pace)

    def make(count, seconds):
        for _ in range(count):
            next(steps)
            clock[0] += seconds

    make(10, 0.5)
    terms = {"loss": torch.tensor(2.5)}
    measured = pace.measure(terms)
    assert measured == {"images_per_second": 16.0, "loss": 2.5}
    make(4, 2.0)
    assert pace.measure(terms)["images_per_second"] == 4.0
    make(3, 1.0)
    clock[0] += 1000  # a look
    pace.rest()
    make(2, 0.25)
    assert pace.measure(terms)["images_per_second"] == 32.0
    assert list(measured) == ["images_per_second", "loss"]


def test_minutes_are_counted_since_the_last_rest_not_the_last_measurement(clock):
    pace = Pace(0, 100, batch_size=8)
    clock[0] += 90
    pace.measure({"loss": torch.tensor(1.0)})
    assert pace.minutes_since_rest == 1.5
    pace.rest()
    assert pace.minutes_since_rest == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_ends_the_run_with_step_and_term(value):
    pace = Pace(10, 100, batch_size=8)
    steps = iter(pace)
    for _ in range(3):
        next(steps)
    with pytest.raises(UsageError, match=f"kl is {value} after step 13.*lower LEARNING_RATE"):
        pace.measure({"loss": torch.tensor(1.0), "kl": torch.tensor(value)})
