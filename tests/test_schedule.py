"""The learning rate over a run."""

import itertools
import math

import pytest

from leae.schedule import learning_rate_factor


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
