"""Effective rank and dead dimensions, on codes of which both are known; the warning of a collapse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leae.codes import dead_dimensions, effective_rank
from leae.training.evaluation import CodeMonitor, MaskedViews
from tests.conftest import CPU, gaussian


@given(st.integers(2, 12), st.integers(0, 100))
def test_effective_rank_is_the_exponential_of_the_spectrums_entropy(dimensions, seed):
    codes = gaussian(50, dimensions, seed=seed) @ gaussian(dimensions, dimensions, seed=seed + 1)
    # Independently: squared singular values of the centred codes are the covariance's eigenvalues but for a factor.
    values = np.linalg.svd((codes - codes.mean(0)).double().numpy(), compute_uv=False) ** 2
    shares = values / values.sum()
    assert effective_rank(codes) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert effective_rank(1e-3 * codes + 7) == pytest.approx(effective_rank(codes), rel=1e-3)  # place and scale
    spatial = codes.view(5, 2, 5, dimensions).permute(0, 3, 1, 2)  # [N, D, H, W], whose positions are samples
    assert effective_rank(spatial) == pytest.approx(effective_rank(codes), rel=1e-6)


def test_dimensions_below_one_percent_of_the_liveliest_are_dead():
    scales = torch.tensor([5.0, 1.0, 0.06, 0.04, 0.0])
    codes = torch.tensor([[1.0], [-1.0]]) * scales + 3  # deviations are the scales
    assert dead_dimensions(codes) == 2
    assert dead_dimensions(1e-3 * codes[:, :3] + 7) == 0
    equal = torch.full((999, 4), 0.1)  # of which the mean is no longer quite 0.1
    assert (dead_dimensions(equal), effective_rank(equal)) == (4, 0)


class Codes(nn.Module):
    """An encoder that has the codes a test wants."""

    def __init__(self, codes):
        super().__init__()
        self.codes = codes

    def encode(self, images):
        return self.codes[: len(images)]


HEALTHY = gaussian(40, 4)
ON_A_LINE = gaussian(40, 1) * torch.ones(4) + 1e-3 * gaussian(40, 4)
WITH_A_DEAD_ONE = gaussian(40, 4) * torch.tensor([1, 1, 1, 0.0])
IMAGES = np.zeros((40, 8, 8, 3), np.uint8)
REFERENCES = {"psnr_masked_input", "psnr_mean_image"}


def watch(images):
    return CodeMonitor(IMAGES, images, MaskedViews(8, 0.35), CPU)


def test_a_collapse_is_told_once_when_it_begins_and_again_if_it_comes_back(capsys):
    monitor, judge = watch(IMAGES), Codes(HEALTHY)
    history = [HEALTHY, ON_A_LINE, ON_A_LINE, WITH_A_DEAD_ONE, HEALTHY, WITH_A_DEAD_ONE, WITH_A_DEAD_ONE]
    for number, codes in enumerate(history):
        judge.codes = codes
        measures = monitor(1000 * number, judge=judge, encoder=Codes(HEALTHY))
        assert measures["judge_effective_rank"] == effective_rank(codes)
        assert measures["encoder_dead_dimensions"] == 0
    first, second = capsys.readouterr().err.splitlines()
    assert "the judge's codes have collapsed: after step 1,000 0 of 4 dimensions are dead" in first
    assert "effective rank is 1.00" in first
    assert "the judge's codes have collapsed: after step 5,000 1 of 4 dimensions are dead" in second


def test_codes_that_are_not_finite_or_too_few_to_tell_are_not_measured(capsys):
    assert watch(IMAGES)(1, encoder=Codes(HEALTHY / 0)).keys() == REFERENCES
    assert watch(IMAGES[:15])(1, encoder=Codes(ON_A_LINE)).keys() == REFERENCES
    assert len(watch(IMAGES[:16])(1, encoder=Codes(HEALTHY)).keys() - REFERENCES) == 2
    assert capsys.readouterr().err == ""
