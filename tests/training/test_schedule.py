"""The length of a run, and the learning rate over it."""

import itertools
import math

import pytest

from leae.training.loop import Schedule


def rates(steps=200, warmup=0.1, kind="cosine"):
    schedule = Schedule(1, 0, 0.01, warmup, kind)
    return [schedule.learning_rate_at(step, steps) / 0.01 for step in range(steps)]


def test_it_rises_linearly_and_falls_along_half_a_cosine():
    rate = rates()
    rises = [later - earlier for earlier, later in itertools.pairwise(rate[:20])]
    assert rises == pytest.approx([1 / 21] * 19)
    assert rate[20] == 1
    assert rate[110] == pytest.approx(0.5)  # half-way between step 20 and step 200
    assert rate[-1] == pytest.approx((math.pi / 180) ** 2 / 4, rel=1e-3)
    assert all(0 < value <= 1 for value in rate)
    assert rates(warmup=0.0)[0] == 1
    assert set(rates(kind="constant")[20:]) == {1.0}


def test_a_run_ends_with_its_epochs_or_its_limit_and_says_which(capsys):
    assert Schedule(5, 0, 0.01, 0, "cosine").total_steps(20) == 100
    assert Schedule(5, 100, 0.01, 0, "cosine").total_steps(20) == 100
    assert capsys.readouterr().out == ""
    assert Schedule(5, 64, 0.01, 0, "cosine").total_steps(2000) == 64
    assert "steps: 64, the MAX_STEPS; 5 epochs would be 10,000" in capsys.readouterr().out
