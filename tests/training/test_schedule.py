"""The length of a run, and the learning rate over it."""

import itertools
import math

import pytest

from leae.training.schedule import count_steps, learning_rate_factor


def factors(steps=200, warmup=0.1, schedule="cosine"):
    return [learning_rate_factor(step, steps, warmup, schedule) for step in range(steps)]


def test_it_rises_linearly_and_falls_along_half_a_cosine():
    rate = factors()
    rises = [later - earlier for earlier, later in itertools.pairwise(rate[:20])]
    assert rises == pytest.approx([1 / 21] * 19)
    assert rate[20] == 1
    assert rate[110] == pytest.approx(0.5)  # half-way between step 20 and step 200
    assert rate[-1] == pytest.approx((math.pi / 180) ** 2 / 4, rel=1e-3)
    assert all(0 < value <= 1 for value in rate)


def test_without_warmup_it_begins_at_the_peak():
    assert factors(warmup=0.0)[0] == 1


def test_constant_stays_at_the_peak():
    assert set(factors(schedule="constant")[20:]) == {1.0}


def test_a_run_ends_with_its_epochs_or_its_limit_and_says_which(capsys):
    assert count_steps(epochs=5, steps_per_epoch=20, max_steps=0) == 100
    assert count_steps(5, 20, max_steps=100) == 100
    assert capsys.readouterr().out == ""
    assert count_steps(5, 2000, max_steps=64) == 64
    assert "steps: 64, by MAX_STEPS; 5 epochs would be 10,000" in capsys.readouterr().out
