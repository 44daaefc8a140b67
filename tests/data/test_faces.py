"""Rendered faces: repeatable, smooth at any size, and truthful about what they show."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from leae.data.faces import ATTRIBUTES, VERSION, render_face

CELEBA = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""


def render_faces(seed, indices, size):
    images, attributes = zip(*(render_face(seed, index, size) for index in indices), strict=True)
    return np.stack(images), np.stack(attributes)


@pytest.fixture(scope="module")
def faces():
    return render_faces(0, range(1500), 32)


def column(faces, name):
    return faces[1][:, ATTRIBUTES.index(name)]


def test_a_face_is_the_same_whatever_else_is_rendered(faces):
    image, attributes = render_face(0, 8, 32)
    assert np.array_equal(image, faces[0][8])
    assert np.array_equal(attributes, faces[1][8])


def test_the_drawing_is_that_of_its_version(faces):
    """Who changes the drawing also changes VERSION, so that faces are rendered again, and then this checksum."""
    checksum = hashlib.sha256(b"".join(array[:300].tobytes() for array in faces)).hexdigest()
    assert (VERSION, checksum) == (1, "75544d0290dca996db3d8f06bc80fb1245d64cbb93f5a88036cce7ac544f86bf")


def test_other_numbers_and_other_seeds_are_other_faces():
    images = [render_face(seed, index, 32)[0] for seed in (0, 1) for index in (0, 1)]
    for first in range(4):
        for second in range(first):
            assert np.abs(images[first].astype(int) - images[second]).mean() > 5


@pytest.mark.parametrize("size", [32, 64, 96, 100])
def test_a_face_looks_the_same_at_every_size(size):
    large = Image.fromarray(render_face(0, 7, 4 * size)[0])
    image, attributes = render_face(0, 7, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(attributes, render_face(0, 7, 128)[1])
    difference = np.asarray(large.reduce(4), dtype=float) - image
    assert 10 * np.log10(255**2 / np.mean(difference**2)) > 25  # decibels


def test_there_are_enough_attributes_with_celebas_names_and_none_is_rare(faces):
    assert faces[1].shape == (1500, len(ATTRIBUTES))
    assert list(ATTRIBUTES) == sorted(set(ATTRIBUTES))
    assert len(ATTRIBUTES) >= 16
    assert len(set(ATTRIBUTES) & set(CELEBA.split())) >= 16
    shares = faces[1].mean(axis=0)
    assert shares.min() > 0.05
    assert shares.max() < 0.95


def test_attributes_are_independent_where_anatomy_allows(faces):
    tied = [{"Eyeglasses", "Sunglasses"}, {"Goatee", "No_Beard"}]
    hair = {"Bald", "Bangs", "Long_Hair", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
    correlation = np.corrcoef(faces[1].T.astype(float))
    for i, first in enumerate(ATTRIBUTES):
        for j, second in enumerate(ATTRIBUTES[:i]):
            if {first, second} in tied or {first, second} <= hair:
                continue
            assert abs(correlation[i, j]) < 0.12, (first, second)  # over four standard errors


def brightness(faces, rows, columns):
    return faces[0][:, rows, columns].astype(float).mean(axis=(1, 2, 3))


def test_attributes_are_what_the_picture_shows(faces):
    centre, crown = (slice(13, 22), slice(11, 21)), (slice(5, 9), slice(13, 19))
    difference = brightness(faces, slice(10, 22), slice(4, 14)) - brightness(faces, slice(10, 22), slice(18, 28))
    from_left = column(faces, "Light_From_Left")
    assert difference[from_left].mean() > difference[~from_left].mean() + 15
    pale = column(faces, "Pale_Skin")
    assert brightness(faces, *centre)[pale].mean() > brightness(faces, *centre)[~pale].mean() + 30
    black, blond = column(faces, "Black_Hair"), column(faces, "Blond_Hair")
    bare = ~column(faces, "Wearing_Hat")
    assert brightness(faces, *crown)[blond & bare].mean() > brightness(faces, *crown)[black & bare].mean() + 50
    shades, eyes = column(faces, "Sunglasses"), (slice(13, 17), slice(11, 21))
    assert brightness(faces, *eyes)[shades].mean() < brightness(faces, *eyes)[~shades].mean() - 20


def test_edges_are_smoothed():
    """A picture of hard-edged shapes would have few colours along its sharpest edges; a smoothed one has many."""
    image = render_face(0, 3, 64)[0].astype(float).mean(axis=2)
    hard = np.asarray(Image.fromarray(render_face(0, 3, 512)[0]).resize((64, 64), Image.Resampling.NEAREST), float)
    steepest = lambda picture: np.sort(np.abs(np.diff(picture, axis=1)).ravel())[-100:].mean()  # noqa: E731
    assert steepest(image) < 0.9 * steepest(hard.mean(axis=2))
