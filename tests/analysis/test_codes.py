"""Codes: their drift and their distance from a Gaussian, where both are known."""

import pytest
import torch

from leae.analysis.codes import drift, gaussianity
from leae.randomness import generator
from leae.sigreg import sigreg


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_drift_is_the_distance_between_views_over_that_between_images():
    codes, others = gaussian(30, 5), gaussian(30, 5, seed=1)
    pairs = [(codes[i] - codes[j]).square().sum() for i in range(30) for j in range(30) if i != j]
    plain = ((codes - others).square().sum(dim=1).mean() / torch.stack(pairs).mean()).sqrt()
    assert drift(codes, others) == pytest.approx(plain.item())
    assert drift(codes, codes) == 0
    # Other images' codes are as far as other images are.
    assert drift(gaussian(4000, 6), gaussian(4000, 6, seed=1)) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", [(3000, 12), (3000, 3, 2, 2)])
def test_gaussian_codes_are_as_far_from_gaussian_as_true_ones_and_others_farther(shape):
    codes = gaussian(*shape).float()
    found, true, used = gaussianity(codes)
    assert used == 1000
    assert true / 3 < found < 3 * true
    assert gaussianity(1.5 * codes)[0] > 10 * true
    assert found == pytest.approx(sigreg(codes[:1000], generator(0, "metrics")).item(), rel=1e-4)
