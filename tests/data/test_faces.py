"""Rendered faces: repeatable, smooth at any size, and truthful about what they show."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leae.data.faces import ATTRIBUTES, VERSION, render_face


@pytest.fixture(scope="module")
def faces():
    images, attributes = zip(*(render_face(0, index, 32) for index in range(1500)), strict=True)
    return np.stack(images), np.stack(attributes)


def coarse(images):
    """uint8 [N, 32, 32, 3] as 8×8 pixels, which hardly depend on how exactly edges are drawn."""
    return images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).round().astype(np.uint8)


def test_the_drawing_is_that_of_its_version_whatever_else_is_rendered(faces):
    """Who changes the drawing also changes VERSION, so that faces are rendered again, and then faces.npz."""
    with np.load(Path(__file__).with_name("faces.npz")) as stored:  # the first 24, as above
        assert stored["version"] == VERSION
        difference = np.abs(coarse(faces[0][:24]).astype(int) - stored["images"])
        assert difference.max() <= 6
        assert np.array_equal(faces[1][:24], stored["attributes"])
    for alone, among in zip(render_face(0, 8, 32), faces, strict=True):
        assert np.array_equal(alone, among[8])
    assert np.abs(render_face(1, 8, 32)[0].astype(int) - faces[0][8]).mean() > 5  # another seed, another face


@pytest.mark.parametrize("size", [32, 100])
def test_a_face_looks_the_same_at_every_size(size):
    large = Image.fromarray(render_face(0, 7, 4 * size)[0])
    image, attributes = render_face(0, 7, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(attributes, render_face(0, 7, 128)[1])
    difference = np.asarray(large.reduce(4), dtype=float) - image
    assert 10 * np.log10(255**2 / np.mean(difference**2)) > 25  # decibels


def test_there_are_enough_attributes_and_none_is_rare(faces):
    assert faces[1].shape == (1500, len(ATTRIBUTES))
    assert list(ATTRIBUTES) == sorted(set(ATTRIBUTES))
    shares = faces[1].mean(axis=0)
    assert shares.min() > 0.05
    assert shares.max() < 0.95


def test_attributes_are_independent_where_anatomy_allows(faces):
    tied = [{"Eyeglasses", "Sunglasses"}, {"Goatee", "No_Beard"}]
    hair = {"Bald", "Bangs", "Long_Hair", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
    correlation = dict(zip(ATTRIBUTES, np.corrcoef(faces[1].T.astype(float)), strict=True))
    for first, second in combinations(ATTRIBUTES, 2):
        if {first, second} not in tied and not {first, second} <= hair:
            assert abs(correlation[first][ATTRIBUTES.index(second)]) < 0.12  # over four standard errors


def test_attributes_are_what_the_picture_shows(faces):
    shows = dict(zip(ATTRIBUTES, faces[1].T, strict=True))

    def brightness(which, rows, columns):
        return faces[0][which][:, rows, columns].astype(float).mean()

    left, right, eyes = (slice(10, 22), slice(4, 14)), (slice(10, 22), slice(18, 28)), (slice(13, 17), slice(11, 21))
    centre, crown = (slice(13, 22), slice(11, 21)), (slice(5, 9), slice(13, 19))
    lit, pale, shades, hats = map(shows.get, ("Light_From_Left", "Pale_Skin", "Sunglasses", "Wearing_Hat"))
    difference = brightness(lit, *left) - brightness(lit, *right)
    assert difference > brightness(~lit, *left) - brightness(~lit, *right) + 15
    assert brightness(pale, *centre) > brightness(~pale, *centre) + 30
    blond, black = shows["Blond_Hair"] & ~hats, shows["Black_Hair"] & ~hats
    assert brightness(blond, *crown) > brightness(black, *crown) + 50
    assert brightness(shades, *eyes) < brightness(~shades, *eyes) - 20
