"""Maps of codes: where points are put, and what is drawn where."""

import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from leae.analysis.maps import draw_map, make_map, without_overlap
from tests.conftest import assert_one_line, gaussian


@pytest.mark.parametrize(("count", "dimensions"), [(300, 8), (40, 1200)])
def test_the_components_of_a_pca_map_are_those_of_the_training_codes(count, dimensions):
    spread = torch.linspace(3, 0.1, dimensions)
    training, held_out = gaussian(count, dimensions) * spread + 2, gaussian(20, dimensions, seed=1) * spread
    points, said = make_map("pca", training, held_out, 0)
    mean = training.double().mean(0)
    _, values, rows = np.linalg.svd((training - mean).double().numpy(), full_matrices=False)
    expected = (held_out - mean).double().numpy() @ rows[:2].T
    signs = np.sign((expected * points).sum(axis=0))  # a component and its opposite are one
    np.testing.assert_allclose(points, expected * signs, atol=2e-2 * np.abs(expected).max())
    share = (values[:2] ** 2).sum() / (values**2).sum()
    assert float(re.search(r"([\d.]+)%", said)[1]) == pytest.approx(100 * share, abs=0.11)


@pytest.mark.parametrize(("kind", "codes"), [("pca", gaussian(4, 1)), ("tsne", torch.ones(5, 6))])
def test_collapsed_codes_and_codes_of_one_dimension_have_places_too(kind, codes):
    points, _ = make_map(kind, codes.repeat(3, 1), codes, 0)
    assert points.shape == (len(codes), 2)
    assert np.isfinite(points).all()
    draw_map(points, torch.rand(len(codes), 1, 8, 8), np.zeros(len(codes), int), ["all"], "title")


@given(st.integers(0, 60), st.integers(0, 100), st.floats(0.01, 1))
def test_thumbnails_never_overlap_and_none_is_missing_that_has_room(count, seed, distance):
    points = np.random.default_rng(seed).random((count, 2))
    taken = without_overlap(points, distance)
    apart = np.abs(points[:, None] - points[None, taken]).max(axis=2)  # the larger of the two axes' distances
    for row, number in enumerate(taken):
        assert (np.delete(apart[number], row) >= distance).all()
    for number in set(range(count)) - set(taken):
        assert (apart[number] < distance).any()


def test_a_map_without_umap_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "umap", None)
    assert_one_line(monkeypatch, capsys, "latents", "none", "--map", "umap", says="--map umap .*--extra umap")


def test_a_map_shows_its_images_in_their_labels_colours_at_their_places():
    points = np.array([[-9.0, 0], [9, 0], [0, 9], [0, -9]])
    images = torch.zeros(4, 3, 16, 16)
    images[:, 1] = torch.tensor([0.1, 0.3, 0.5, 0.7])[:, None, None]  # every image its own green
    figure = draw_map(points, images, np.array([0, 1, 1, 0]), ["_none", "$one$"], "title")
    (canvas := FigureCanvasAgg(figure)).draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    places = figure.axes[0].transData.transform(points)
    for (x, y), green in zip(places, images[:, 1, 0, 0].tolist(), strict=True):
        assert abs(int(picture[picture.shape[0] - int(y), int(x), 1]) - 255 * green) <= 1
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["2 _none", "2 $one$"]
