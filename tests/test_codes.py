"""Figures of codes against plain computations, and on codes of which the answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leae.codes import dead_dimensions, drift, effective_rank, sigreg_statistics
from leae.errors import UsageError
from leae.randomness import generator
from leae.sigreg import sigreg
from tests.conftest import gaussian


@given(st.integers(1, 12), st.integers(0, 100))
def test_effective_rank_is_the_exponential_of_the_spectrums_entropy(dimensions, seed):
    codes = gaussian(50, dimensions, seed=seed) @ gaussian(dimensions, dimensions, seed=seed + 1)
    # Independently: squared singular values of the centred codes are the covariance's eigenvalues but for a factor.
    values = np.linalg.svd((codes - codes.mean(0)).double().numpy(), compute_uv=False) ** 2
    shares = values / values.sum()
    assert effective_rank(codes) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert effective_rank(1e-3 * codes + 7) == pytest.approx(effective_rank(codes), rel=1e-3)  # place and scale
    spatial = codes.view(5, 2, 5, dimensions).permute(0, 3, 1, 2)  # [N, D, H, W], whose positions are samples
    assert effective_rank(spatial) == pytest.approx(effective_rank(codes), rel=1e-6)
    wide = torch.cat([codes[:10]] * 9, dim=1)  # more numbers than codes
    assert effective_rank(wide) == pytest.approx(effective_rank(codes[:10]), rel=1e-6)


def test_dimensions_below_one_percent_of_the_liveliest_are_dead():
    scales = torch.tensor([5.0, 1.0, 0.06, 0.04, 0.0])
    codes = torch.tensor([[1.0], [-1.0]]) * scales + 3  # deviations are the scales
    assert dead_dimensions(codes) == 2
    assert dead_dimensions(1e-3 * codes[:, :3] + 7) == 0
    equal = torch.full((999, 4), 0.1)  # of which the mean is no longer quite 0.1
    assert (dead_dimensions(equal), effective_rank(equal)) == (4, 0)


def test_drift_is_the_distance_between_views_over_that_between_images():
    codes, others = gaussian(30, 5).double(), gaussian(30, 5, seed=1).double()
    pairs = [(codes[i] - codes[j]).square().sum() for i in range(30) for j in range(30) if i != j]
    plain = ((codes - others).square().sum(dim=1).mean() / torch.stack(pairs).mean()).sqrt()
    assert drift(codes, others) == pytest.approx(plain.item())
    assert drift(codes, codes) == 0


@pytest.mark.parametrize("shape", [(3000, 12), (3000, 3, 2, 2)])
def test_gaussian_codes_are_as_far_from_gaussian_as_true_ones_and_others_farther(shape):
    codes = gaussian(*shape)
    found, true, used = sigreg_statistics(codes)
    assert used == 1000
    assert true / 3 < found < 3 * true
    assert sigreg_statistics(1.5 * codes)[0] > 10 * true
    assert found == pytest.approx(sigreg(codes[:1000], generator(0, "metrics")).item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_what_are_no_codes_is_refused(shape):
    for figure in (effective_rank, dead_dimensions, sigreg_statistics, lambda codes: drift(codes, codes)):
        with pytest.raises(UsageError, match=r"codes is \[.*\[N, D\]"):
            figure(torch.zeros(shape))
