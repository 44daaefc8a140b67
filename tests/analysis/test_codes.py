"""Codes against plain computations, on codes of which the answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leae.analysis.latents import nearest_others
from leae.analysis.probes import separation
from leae.codes import drift, sigreg_statistics
from leae.randomness import generator
from leae.sigreg import sigreg
from tests.conftest import gaussian


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


def test_separation_ranks_codes_along_the_direction_of_others():
    labels = torch.arange(600) % 3 == 0
    codes = gaussian(600, 4) + labels[:, None] * torch.tensor([1.0, 0, 0, 0])
    fitted, judged = codes[::2].double().numpy(), codes[1::2].double().numpy()
    have, fitted_have = labels[1::2].numpy(), labels[::2].numpy()
    ranked = judged @ (fitted[fitted_have].mean(0) - fitted[~fitted_have].mean(0))
    pairs = ranked[have][:, None] - ranked[~have][None]  # the AUROC is the share of pairs in the right order
    assert separation(codes, labels) == pytest.approx((pairs > 0).mean(), abs=1e-4)


def test_noise_is_not_separated_though_it_has_as_many_dimensions_as_samples():
    assert separation(gaussian(800, 800), torch.arange(800) % 4 < 2) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(separation(gaussian(800, 3), torch.arange(800) == 5))  # one half has none of it


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 100))
def test_neighbours_are_those_of_a_brute_force_search_without_the_query(count, dimensions, seed):
    codes = 1000 + gaussian(count, dimensions, seed=seed)  # far from the origin, near each other
    codes[-1] = codes[0]  # a twin, at distance 0
    queries, wanted = torch.arange(0, count, 2), min(4, count - 1)
    distances, indices = nearest_others(codes, queries, wanted)
    exact = codes.double().numpy()
    for query, found, said in zip(queries.tolist(), indices.tolist(), distances.numpy(), strict=True):
        every = np.linalg.norm(exact - exact[query], axis=1)
        assert query not in found
        assert len(set(found)) == wanted
        np.testing.assert_allclose(said, np.sort(np.delete(every, query))[:wanted], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(every[found], said, atol=1e-3)
