"""The whitened norm's space against its definition."""

import numpy as np
import pytest
import torch

from leae.whitening import Whitening, whiten
from tests.conftest import CPU

SPREAD = torch.tensor([3.0, 1.0, 0.3, 0.1])  # standard deviations that fall steeply


def draw(seed, count=500, shape=()):
    """Correlated codes with a mean: [count, 4, *shape]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    samples = torch.randn(count, *shape, 4, generator=generator) * SPREAD @ mixing + 5
    return samples.movedim(-1, 1)


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_the_average_is_bias_corrected_as_adams_and_the_matrix_its_definition(shape):
    whitening, moment = Whitening(4, 0.5, CPU), np.zeros((4, 4))
    assert torch.allclose(whitening.matrix(), torch.eye(4).double())
    for step in range(1, 5):
        codes = draw(step, 20, shape)
        whitening.update(codes)
        moment = 0.98 * moment + 0.02 * np.cov(codes.double().movedim(1, 0).flatten(1).numpy(), bias=True)
        C = moment / (1 - 0.98**step)
        np.testing.assert_allclose(whitening.covariance, C, rtol=1e-10)
    W, v = whitening.matrix().numpy(), np.linalg.eigvalsh(C)
    assert np.trace(W @ C @ W.T) / 4 == pytest.approx(1)
    unscaled = np.linalg.inv(C / v.mean() + 0.5 * np.eye(4))
    np.testing.assert_allclose(W.T @ W, unscaled * 4 / np.trace(unscaled @ C), rtol=1e-10)
    whitened = torch.einsum("ij,nj...->ni...", whitening.matrix(), codes.double())
    torch.testing.assert_close(whiten(codes, whitening.matrix()), whitened.float(), rtol=1e-5, atol=1e-5)


def test_with_a_small_epsilon_codes_become_white():
    whitening = Whitening(4, 1e-6, CPU)
    for step in range(200):
        whitening.update(draw(step))
    torch.testing.assert_close(whiten(draw(999, 100_000), whitening.matrix()).T.cov(), torch.eye(4), rtol=0, atol=0.03)


def test_codes_that_are_all_the_same_stay_finite_and_those_that_are_not_finite_show():
    whitening = Whitening(4, 1.0, CPU)
    whitening.update(torch.ones(6, 4))
    assert whitening.matrix().isfinite().all()
    whitening.update(torch.full((6, 4), float("nan")))
    assert not whitening.matrix().isfinite().any()
