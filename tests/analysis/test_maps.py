"""Maps of codes: where points are put, and what is drawn where."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from leae.analysis.maps import draw_map, legend_text, make_map, require_umap, without_overlap
from leae.errors import UsageError
from tests.conftest import gaussian


@pytest.mark.parametrize(("count", "dimensions"), [(300, 8), (40, 1200)])
def test_the_components_of_a_pca_map_are_those_of_the_training_codes(count, dimensions):
    spread = torch.linspace(3, 0.1, dimensions)
    training, held_out = gaussian(count, dimensions) * spread + 2, gaussian(20, dimensions, seed=1) * spread
    points, axes, _ = make_map("pca", training, held_out, 0)
    mean = training.double().mean(0)
    _, values, rows = np.linalg.svd((training - mean).double().numpy(), full_matrices=False)
    expected = (held_out - mean).double().numpy() @ rows[:2].T
    signs = np.sign((expected * points).sum(axis=0))  # a component and its opposite are one
    np.testing.assert_allclose(points, expected * signs, atol=2e-2 * np.abs(expected).max())
    shares = values[:2] ** 2 / (values**2).sum()
    for axis, share in zip(axes, shares, strict=True):
        said = float(axis.split(": ")[1].split("%")[0])
        assert said == pytest.approx(100 * share, abs=0.11)


def test_t_sne_keeps_groups_apart_and_is_the_same_for_the_same_seed():
    label = np.arange(60) % 2
    codes = gaussian(60, 70) * 0.1 + 5 * torch.from_numpy(label)[:, None]
    first, second = (make_map("tsne", gaussian(80, 70), codes, 2**40)[0] for _ in range(2))
    assert np.array_equal(first, second)
    distances = np.linalg.norm(first[:, None] - first, axis=2) + np.diag(np.full(60, np.inf))
    assert (label[distances.argmin(axis=1)] == label).all()


@pytest.mark.parametrize(("kind", "codes"), [("pca", gaussian(4, 1)), ("tsne", torch.ones(5, 6))])
def test_collapsed_codes_and_codes_of_one_dimension_have_places_too(kind, codes):
    points, axes, _ = make_map(kind, codes.repeat(3, 1), codes, 0)
    assert points.shape == (len(codes), 2)
    assert np.isfinite(points).all()
    draw_map(points, axes, torch.rand(len(codes), 1, 8, 8), np.zeros(len(codes), int), [], "title")


@given(st.integers(0, 60), st.integers(0, 100), st.floats(0.01, 1))
def test_thumbnails_never_overlap_and_none_is_missing_that_has_room(count, seed, distance):
    points = np.random.default_rng(seed).random((count, 2))
    taken = without_overlap(points, distance)
    apart = np.abs(points[:, None] - points[None, taken]).max(axis=2)  # the larger of the two axes' distances
    for row, number in enumerate(taken):
        assert (np.delete(apart[number], row) >= distance).all()
    for number in set(range(count)) - set(taken):
        assert (apart[number] < distance).any()


def test_a_map_without_umap_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match="--map umap needs umap-learn"):
        require_umap()


def test_a_map_shows_its_images_in_their_labels_colours_at_their_places():
    points, axes, _ = make_map("pca", gaussian(50, 2), torch.tensor([[-9.0, 0], [9, 0], [0, 9], [0, -9]]), 0)
    images = torch.zeros(4, 3, 16, 16)
    images[:, 1] = torch.tensor([0.1, 0.3, 0.5, 0.7])[:, None, None]  # every image its own green
    figure = draw_map(points, axes, images, np.array([0, 1, 1, 0]), ["_none", "$one$"], "title")
    (canvas := FigureCanvasAgg(figure)).draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    places = figure.axes[0].transData.transform(points)
    for (x, y), green in zip(places, images[:, 1, 0, 0].tolist(), strict=True):
        assert abs(int(picture[picture.shape[0] - int(y), int(x), 1]) - 255 * green) <= 1
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert shown == [" _none (2)", r" \$one\$ (2)"]
    assert legend_text("a\nlong  name", 6) == " a lon…"
