"""SIGReg against an independent float64 computation, and by its statistics."""

import numpy as np
import pytest
import torch

from leae.sigreg import DIRECTIONS, draw_directions, sigreg


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def statistic_by_numpy(samples):
    """The Epps–Pulley statistic of one sample, over the whole symmetric interval, straight from its definition."""
    t = np.linspace(-3, 3, 33)
    empirical = np.exp(1j * np.outer(t, samples)).mean(axis=1)
    integrand = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    return len(samples) * np.trapezoid(integrand, t)


@pytest.mark.parametrize("count", [2, 17, 300])
def test_sigreg_is_the_mean_of_the_defined_statistic_over_random_unit_directions(count):
    codes = torch.randn(count, 6, dtype=torch.float64, generator=generator()) * 1.7 + 0.4
    directions = draw_directions(6, generator(1), torch.float64)
    expected = np.mean([statistic_by_numpy(codes.numpy() @ direction) for direction in directions.T.numpy()])
    assert sigreg(codes, generator(1)).item() == pytest.approx(expected, rel=1e-10)


def test_directions_are_unit_vectors_uniform_on_the_sphere_and_fresh_at_every_call():
    source = generator()
    first, second = draw_directions(3, source), draw_directions(3, source)
    assert first.shape == (3, DIRECTIONS)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(DIRECTIONS))
    assert not torch.equal(first, second)
    covariance = first @ first.T / DIRECTIONS  # I/3 on a sphere in three dimensions
    assert (covariance - torch.eye(3) / 3).abs().max() < 0.08


@pytest.mark.parametrize("count", [16, 128, 1024, 8192])
def test_gaussian_codes_score_about_one_at_any_count(count):
    t = np.linspace(-3, 3, 33)
    expected = np.trapezoid((1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), t)  # N · E|φ̂ − φ|² = 1 − |φ|²
    scores = [sigreg(torch.randn(count, 16, generator=generator(s)), generator(s + 1)).item() for s in range(8)]
    assert np.mean(scores) == pytest.approx(expected, rel=0.2)


OTHER = {
    "collapsed": lambda normal: normal * 0 + 0.3,
    "shifted": lambda normal: normal + 1,
    "scaled": lambda normal: normal * 3,
    "shrunken": lambda normal: normal / 3,
    "heavy-tailed": lambda normal: normal / normal.roll(1),  # Cauchy
}


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_other_codes_score_in_proportion_to_their_count(make):
    normal = torch.randn(8192, 8, generator=generator())
    few, many = (sigreg(make(normal[:count]), generator(1)).item() for count in (1024, 8192))
    assert few > 20
    assert many / few == pytest.approx(8, rel=0.1)


def test_spatial_codes_score_the_mean_over_positions():
    codes = torch.randn(20, 5, 2, 3, dtype=torch.float64, generator=generator()) * 2
    positions = [sigreg(codes[:, :, row, column], generator(4)) for row in range(2) for column in range(3)]
    torch.testing.assert_close(sigreg(codes, generator(4)), torch.stack(positions).mean())


@pytest.mark.parametrize("function", [lambda score: score, torch.square])  # with a constant cotangent, and without
def test_its_gradient_is_that_of_finite_differences_and_a_second_derivative_is_refused(function):
    codes = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: function(sigreg(c, generator(2))), codes)
    loss = function(sigreg(codes, generator(2))) + codes.square().sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, codes, create_graph=True)
