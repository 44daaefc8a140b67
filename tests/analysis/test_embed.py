"""Codes in files and from Python, against what the model says of the same images."""

import copy
import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

import leae
from leae.analysis.trained import open_runs
from leae.autoencoder import Autoencoder
from leae.conv_autoencoder import VariationalConvAutoencoder
from leae.data.batches import to_float
from leae.data.images import read_square
from leae.errors import UsageError
from leae.files import write_csv
from tests.conftest import run_leae, write_image

RUN = "runs/self-teaching-001"


def folder_of_images(place):
    """Five images, two of them in a sub-folder, and two files that cannot be used."""
    for name in ("a.png", "c é.jpg", "d.bmp", "sub/b.png", "sub/e.png"):
        write_image(place / name, len(name))
    write_image(place / "small.png", 1, (10, 30))
    (place / "broken.jpg").write_bytes(b"no image")
    return ["a.png", "c é.jpg", "d.bmp", "sub/b.png", "sub/e.png"]


def test_a_folders_codes_are_to_the_bit_those_of_its_images(trained, tmp_path, monkeypatch, capsys):
    names = folder_of_images(tmp_path / "mine")
    run_leae(monkeypatch, "embed", RUN, str(tmp_path / "mine"), "--output", "codes.npz")
    said = capsys.readouterr()
    assert re.search(r"5 images, \[8\] .*codes.npz", said.out)
    [warning] = [line for line in said.err.splitlines() if "warning" in line]
    assert re.search(r"2 of 7 .*'broken.jpg'.*'small.png'.*10×30 .*16×16", warning)
    model, found = leae.load(RUN), np.load("codes.npz", allow_pickle=False)
    images = to_float(np.stack([read_square((tmp_path / "mine" / name).read_bytes(), 16) for name in names]))
    with torch.no_grad():
        codes, reconstructions = model.encode(images), model(images)
    assert found["files"].tolist() == names
    assert found["codes"].dtype == np.float32
    assert np.array_equal(found["codes"], codes.numpy())
    assert np.array_equal(found["errors"], (reconstructions - images).double().square().mean(dim=(1, 2, 3)).numpy())
    assert np.array_equal(leae.embed(model, tmp_path / "mine"), found["codes"])
    assert np.array_equal(leae.embed(model.train(), str(tmp_path / "mine")), found["codes"])  # in evaluation mode
    assert model.training


def test_names_that_a_spreadsheet_would_run_are_texts_and_can_be_told(trained, tmp_path, monkeypatch):
    names = ["+1.png", "-2.png", "=1+1.png", "@a.png", "'b.png", "a=1.png", "＝2.png", "-3/c.png", "\t4.png"]
    for name in names:
        write_image(tmp_path / "mine" / name, 1)
    run_leae(monkeypatch, "embed", RUN, str(tmp_path / "mine"), "--output", "odd.csv")
    with open("odd.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not [row["file"] for row in rows if row["file"][0] in "=+-@＝\t"]
    assert sorted(row["file"].removeprefix("'") for row in rows) == sorted(names)
    assert min(float(row["code_0"]) for row in rows) < 0 or max(float(row["code_0"]) for row in rows) > 0  # numbers
    numbers = ["-1.5", "-1e-05", "-1.2E-05", "-1e308", "-inf"]  # as spreadsheets, too, write them
    write_csv(tmp_path / "numbers.csv", numbers, [])
    assert (tmp_path / "numbers.csv").read_text().strip() == ",".join(numbers)


def test_a_splits_codes_come_with_its_attributes_and_the_table_says_the_same_to_the_bit(trained, monkeypatch):
    for name in ("codes.npz", "codes.csv"):
        run_leae(monkeypatch, "embed", RUN, "test", "--output", name)
    found = np.load("codes.npz", allow_pickle=False)
    dataset = open_runs([RUN], "100", torch.device("cpu"))[0].open_data()
    assert found["attribute_names"].tolist() == list(dataset.attribute_names)
    assert np.array_equal(found["attributes"], dataset.attributes["test"])
    assert np.array_equal(found["codes"], leae.embed(leae.load(RUN), dataset.images["test"]))
    with open("codes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "error", *dataset.attribute_names, *(f"code_{n}" for n in range(8))]
    codes = np.array([[row[f"code_{n}"] for n in range(8)] for row in rows], np.float32)
    assert np.array_equal(codes, found["codes"])
    assert np.array_equal(np.array([row["error"] for row in rows], float), found["errors"])
    smiling = found["attributes"][:, dataset.attribute_names.index("Smiling")]
    assert [row["Smiling"] == "1" for row in rows] == smiling.tolist()


def test_arrays_of_bytes_and_of_floats_have_the_same_codes_without_gradients():
    torch.manual_seed(0)
    model = Autoencoder(16, 3, 4, "spatial", 4)
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)  # more than one batch
    codes = leae.embed(model, images)
    assert codes.shape == (300, 4, 2, 2)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    flipped = np.ascontiguousarray(floats.numpy()[..., ::-1])[..., ::-1]
    for others in (floats, floats.numpy(), floats.double(), flipped, floats.numpy().astype(">f4")):
        np.testing.assert_allclose(leae.embed(model, others), codes, atol=1e-6)
    np.testing.assert_allclose(leae.embed(copy.deepcopy(model).double(), images), codes, atol=1e-4)
    for wrong in (images[:0], images[0], images.astype(int), images > 100, list(images), None):
        with pytest.raises(UsageError, match=r"uint8 \[N, S, S, C\]"):
            leae.embed(model, wrong)
    with pytest.raises(UsageError, match="255"):
        leae.embed(model, floats.round() * 255)
    with pytest.raises(UsageError, match=r"8, 16"):
        leae.embed(model, images[:, :8])


class Mean(torch.nn.Module):
    """A model of one's own, with what the method's README asks of one: the code is an image's mean colour."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, images):
        return self.scale * images.mean(dim=(2, 3))

    def decode(self, codes):
        return codes[:, :, None, None].expand(-1, -1, 16, 16)


def test_a_model_of_ones_own_embeds_arrays_and_with_its_image_shape_folders(tmp_path):
    names, model = folder_of_images(tmp_path), Mean()
    images = np.stack([read_square((tmp_path / name).read_bytes(), 16) for name in names])
    expected = images.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(leae.embed(model, images), expected, atol=1e-6)
    with pytest.raises(UsageError, match="image_shape"):
        leae.embed(model, tmp_path)
    with pytest.raises(UsageError, match="255"):
        leae.embed(model, np.full((1, 3, 16, 16), 255.0))
    model.image_shape = (3, 16, 16)
    np.testing.assert_allclose(leae.embed(model, tmp_path), expected, atol=1e-6)


def test_a_model_of_grey_images_is_given_grey_ones_of_a_folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    torch.manual_seed(0)
    model = VariationalConvAutoencoder(latent_dim=4)
    grey = read_square((tmp_path / "colour.png").read_bytes(), 32).astype(float) @ (0.299, 0.587, 0.114)
    expected = leae.embed(model, torch.from_numpy(grey[None, None] / 255))
    np.testing.assert_allclose(leae.embed(model, tmp_path), expected, atol=1e-2)
