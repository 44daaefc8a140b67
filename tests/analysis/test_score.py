"""Scores of a folder's images against plain computations, and what the command refuses."""

import contextlib
import csv
import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from leae.analysis.score import image_names, read_for, score_images, write_scores
from leae.autoencoder import Autoencoder
from leae.conv_autoencoder import VariationalConvAutoencoder
from leae.data.images import read_square
from leae.errors import UsageError
from tests.conftest import run_leae, write_image

CPU = torch.device("cpu")
ODD = ("a b.png", "a\nb.png", "a\r\nb, c.png", 'q"uote".png', "Катя.png", "日本語.png", "=1+1.png")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Autoencoder(16, 3, 4, "pooled", 8, 4)


def write_noise(path, seed, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def rows_of(errors, unusable, held_out=(0.1,)):
    file = io.StringIO(newline="")
    write_scores(errors, unusable, np.array(held_out), file)
    file.seek(0)
    return list(csv.DictReader(file))


def test_images_are_ranked_by_the_mean_squared_error_of_their_reconstruction(tmp_path, model):
    for number in range(7):
        write_noise(tmp_path / f"{number % 3}" / f"{number}.png", number)
    errors, unusable = score_images(tmp_path, image_names(tmp_path), model, CPU)
    expected = {}
    for path in tmp_path.rglob("*.png"):
        image = torch.from_numpy(read_square(path, 16).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            error = (model.eval()(image) - image).double().square().mean().item()
        expected[path.relative_to(tmp_path).as_posix()] = error
    assert list(errors) == sorted(expected, key=expected.get, reverse=True)
    assert errors == pytest.approx(expected, rel=1e-5)
    assert not unusable


def test_files_that_cannot_be_used_come_last_with_the_reason_and_odd_names_come_back_as_they_are(tmp_path, model):
    for number, name in enumerate(ODD):
        write_noise(tmp_path / "ä ö" / name, number)
    write_noise(tmp_path / "a small one.png", 1, (10, 30))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not asked for")
    bad = {"a small one.png": "30×10 pixels, smaller than 16×16", "broken.jpg": "unreadable"}
    with contextlib.suppress(OSError):  # a file system that takes no such name
        (tmp_path / os.fsdecode(b"bad\xff.png")).touch()
        bad[r"bad\xff.png"] = "unreadable"
    rows = rows_of(*score_images(tmp_path, image_names(tmp_path), model, CPU))
    assert list(rows[0]) == ["file", "score", "above_held_out", "reason"]
    assert sorted(row["file"] for row in rows[: len(ODD)]) == sorted(f"ä ö/{name}" for name in ODD)
    values = [float(row["score"]) for row in rows[: len(ODD)]]
    assert values == sorted(values, reverse=True)
    assert sorted(row["file"] for row in rows[len(ODD) :]) == sorted(bad)
    assert all(row["reason"].startswith(bad[row["file"]]) and not row["score"] for row in rows[len(ODD) :])
    "".join("".join(row.values()) for row in rows).encode()  # every text file takes it
    shutil.rmtree(tmp_path / "ä ö")
    with pytest.raises(UsageError, match=f"none of the {len(bad)} images can be scored; a small one"):
        score_images(tmp_path, image_names(tmp_path), model, CPU)


def test_the_share_above_is_that_of_held_out_images_with_a_lower_error():
    rows = rows_of({"a": 0.9, "b": 0.3, "c": 0.1}, {}, held_out=(0.4, 0.3, 0.2, 0.1))
    assert [float(row["above_held_out"]) for row in rows] == [1, 0.5, 0]


def test_a_model_of_grey_images_is_given_grey_ones(tmp_path):
    write_noise(tmp_path / "colour.png", 0, (40, 40))
    model = VariationalConvAutoencoder(latent_dim=4)
    [image] = read_for(model, tmp_path, ["colour.png"])
    rgb = read_square(tmp_path / "colour.png", 32).astype(float)
    np.testing.assert_allclose(image[..., 0], rgb @ (0.299, 0.587, 0.114), atol=1)
    assert len(score_images(tmp_path, ["colour.png"], model, CPU)[0]) == 1


RUN = "runs/self-teaching-001"


def test_scores_come_with_the_auroc_of_a_sub_folder_against_everything_else(trained, monkeypatch, capsys):
    for number in range(5):
        write_image(trained / "to score" / f"{number}.png", number)  # one colour: easy
        write_noise(trained / "to score" / "noisy" / f"a,\n{number}.png", number)
    run_leae(monkeypatch, "score", RUN, "to score", "--positive", "noisy")
    printed, folder = capsys.readouterr().out, trained / RUN / "latents"
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    noisy = np.array([row["file"].startswith("noisy/") for row in rows])
    scores = np.array([float(row["score"]) for row in rows])
    area = (scores[noisy][:, None] > scores[~noisy]).mean()
    assert f"AUROC {area:.4f} of 'noisy' against all others" in printed
    assert Image.open(folder / "roc.png").size == (1440, 624)


def test_a_folder_is_scored_without_a_curve_unless_one_is_asked_for(trained, tmp_path, monkeypatch, capsys):
    roc = trained / RUN / "latents" / "roc.png"
    roc.parent.mkdir(exist_ok=True)
    roc.touch()  # of a folder that was scored before
    write_image(tmp_path / "good" / "1.png", 1)
    run_leae(monkeypatch, "score", RUN, str(tmp_path))
    assert not roc.exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "2.jpg").write_bytes(b"no image")
    run_leae(monkeypatch, "score", RUN, str(tmp_path), "--positive", "bad")
    assert "no ROC curve: it takes images that can be used both" in capsys.readouterr().out
