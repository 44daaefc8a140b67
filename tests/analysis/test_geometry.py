"""Geometry of codes against plain computations, on codes of which the answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leae.analysis.geometry import class_difference, deviation_along, nearest_others, separation, straight_lines


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_straight_lines_begin_and_end_at_their_codes_in_even_steps():
    starts, ends = gaussian(3, 6), gaussian(3, 6, seed=1)
    lines = straight_lines(starts, ends, 5)
    assert torch.equal(lines[:, 0], starts)
    assert torch.equal(lines[:, -1], ends)
    for step in range(5):
        torch.testing.assert_close(lines[:, step], starts + step / 4 * (ends - starts))


def test_the_difference_of_class_means_recovers_a_planted_direction():
    direction = 3 * torch.eye(10)[2] - torch.eye(10)[7]
    labels = torch.rand(40_000, generator=torch.Generator().manual_seed(1)) < 0.2
    codes = gaussian(40_000, 10) + 5 + labels[:, None] * direction
    # A mean over n codes of deviation 1 is off by 1/√n in each dimension.
    assert (class_difference(codes, labels) - direction).abs().max() < 5 / math.sqrt(0.2 * 0.8 * 40_000)
    assert deviation_along(codes[~labels], direction) == pytest.approx(1, abs=0.02)
    assert deviation_along(codes * 3, torch.eye(10)[0] * 7) == pytest.approx(3, abs=0.05)


def test_separation_ranks_codes_along_the_direction_of_others():
    labels = torch.arange(600) % 3 == 0
    codes = gaussian(600, 4) + labels[:, None] * torch.tensor([1.0, 0, 0, 0])
    fitted, judged = codes[::2].double().numpy(), codes[1::2].double().numpy()
    have, fitted_have = labels[1::2].numpy(), labels[::2].numpy()
    ranked = judged @ (fitted[fitted_have].mean(0) - fitted[~fitted_have].mean(0))
    pairs = ranked[have][:, None] - ranked[~have][None]  # the AUROC is the share of pairs in the right order
    assert separation(codes, labels) == pytest.approx((pairs > 0).mean(), abs=1e-4)


def test_noise_is_not_separated_though_it_has_as_many_dimensions_as_samples():
    labels = torch.arange(800) % 4 < 2
    assert separation(gaussian(800, 800), labels) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(separation(gaussian(800, 3), torch.arange(800) == 5))  # one half has none of it


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 100))
def test_neighbours_are_those_of_a_brute_force_search_without_the_query(count, dimensions, seed):
    codes = 1000 + gaussian(count, dimensions, seed=seed)  # far from the origin, near each other
    queries = torch.arange(0, count, 2)
    wanted = min(4, count - 1)
    distances, indices = nearest_others(codes, queries, wanted)
    exact = codes.double().numpy()
    for query, found, said in zip(queries.tolist(), indices, distances, strict=True):
        others = np.delete(np.arange(count), query)
        every = np.linalg.norm(exact[others] - exact[query], axis=1)
        assert query not in found
        assert len(set(found.tolist())) == wanted
        np.testing.assert_allclose(said.numpy(), np.sort(every)[:wanted], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(exact[found.tolist()] - exact[query], axis=1), said.numpy(), atol=1e-3
        )


def test_a_twin_is_a_neighbour_at_distance_0_and_the_query_is_not():
    codes = gaussian(6, 3)
    codes[4] = codes[1]
    distances, indices = nearest_others(codes, torch.tensor([1, 4]), 1)
    assert indices.flatten().tolist() == [4, 1]
    assert distances.flatten().tolist() == [0, 0]
