"""Scores of a folder's images against plain computations, and what the command refuses."""

import contextlib
import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import leae
from leae.analysis import latents
from leae.analysis.embed import Embedding, embed_folder
from leae.analysis.score import axes_of, distances, draw_roc, scores_of, write_scores
from leae.analysis.trained import TrainedRun, encode_all, open_runs
from leae.autoencoder import Autoencoder
from leae.checkpoints import read_checkpoint, write_checkpoint
from leae.data.prepare import open_dataset
from leae.data.sources import image_names
from leae.errors import UsageError
from tests.conftest import assert_one_line, gaussian, run_leae, write_image

RUN = "runs/self-teaching-001"
ODD = ("a b.png", "a\nb.png", "a\r\nb, c.png", 'q"uote".png', "Катя.png", "日本語.png", "=1+1.png")


def write_noise(path, seed, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def read_scores(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_distance_of_codes_is_that_of_mahalanobis_in_few_dimensions_and_in_many():
    stretch = torch.linspace(0.1, 3, 6)
    training, codes = 2 + gaussian(4000, 6) * stretch, gaussian(50, 6, seed=1)
    inverse = np.linalg.inv(np.cov(training.numpy().T))
    mean = training.mean(dim=0)
    centred = (codes - mean).numpy()
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    np.testing.assert_allclose(distances(codes, mean, axes_of(training)), expected, rtol=0.02)
    many = gaussian(400, 512)  # of which the principal components are taken
    found = distances(torch.cat([many[:20], 3 * many[:20]]), many.mean(dim=0), axes_of(many))
    assert found.shape == (40,)
    assert found[:20].max() < found[20:].min()
    assert (distances(codes, mean, axes_of(torch.ones(50, 6))) == 0).all()  # of codes that have collapsed
    flat = training * torch.tensor([1.0, 1, 1, 1, 1, 0])  # of which one dimension has
    inverse = np.linalg.pinv(np.cov(flat.numpy().T))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    np.testing.assert_allclose(distances(codes, mean, axes_of(flat)), expected, rtol=0.02)


def test_a_score_is_the_larger_of_two_deviations_from_held_out_images():
    held_out = {"error": np.exp([0.0, 1, 2, 3]), "distance": np.exp([1.0, 1, 3, 3])}
    scores = scores_of({"error": np.exp([1.5, 6, -9]), "distance": np.exp([4.0, 2, -9])}, held_out)
    deviation = np.std([0, 1, 2, 3])
    np.testing.assert_allclose(scores["score"], [2, 4.5 / deviation, max(-10.5 / deviation, -11)])
    same = {"error": np.zeros(3), "distance": np.ones(3)}  # codes that have collapsed
    assert (scores_of(same, same)["score"] == 0).all()


def test_shares_are_those_of_held_out_images_below_and_the_highest_score_comes_first(tmp_path):
    scores = {"score": np.array([0.1, 0.9, 0.3]), "error": np.array([5.0, 6, 7])}
    held_out = {"score": np.array([0.4, 0.3, 0.2, 0.1]), "error": np.array([5.5, 6, 7, 8])}
    found = Embedding(tmp_path, ["c", "a", "b"], np.zeros((3, 2)), scores["error"], [1, 2, 3], {"d": "unreadable"})
    write_scores(tmp_path / "scores.csv", found, scores, held_out, np.array([True, False, False]))
    rows = read_scores(tmp_path / "scores.csv")
    columns = ["file", "score", "score_above_held_out", "error", "error_above_held_out", "trained_on", "reason"]
    assert list(rows[0]) == columns
    assert [row["file"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["score_above_held_out"] for row in rows] == ["1.0000", "0.5000", "0.0000", ""]
    assert [row["error_above_held_out"] for row in rows] == ["0.2500", "0.5000", "0.0000", ""]
    assert [row["trained_on"] for row in rows] == ["no", "no", "yes", ""]


def test_files_that_cannot_be_used_come_last_with_the_reason(trained, tmp_path, monkeypatch):
    for number, name in enumerate(ODD):
        write_noise(tmp_path / "ä ö" / name, number)
    write_noise(tmp_path / "a small one.png", 1, (10, 30))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not asked for")
    bad = {"a small one.png": "30×10 pixels", "broken.jpg": "unreadable"}
    with contextlib.suppress(OSError):  # a file system that takes no such name
        (tmp_path / os.fsdecode(b"bad\xff.png")).touch()
        bad[r"bad\udcff.png"] = "unreadable"
    run_leae(monkeypatch, "score", RUN, str(tmp_path), "--output", "odd")
    rows = read_scores(trained / "odd" / "scores.csv")
    assert sorted(row["file"] for row in rows[: len(ODD)]) == sorted(f"ä ö/{name}" for name in ODD)
    values = [float(row["score"]) for row in rows[: len(ODD)]]
    assert values == sorted(values, reverse=True)
    assert sorted(row["file"] for row in rows[len(ODD) :]) == sorted(bad)
    assert all(row["reason"].startswith(bad[row["file"]]) and not row["score"] for row in rows[len(ODD) :])
    "".join("".join(row.values()) for row in rows).encode()  # every text file takes it


def test_a_folder_of_which_nothing_can_be_used_is_refused(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    write_noise(tmp_path / "a small one.png", 1, (10, 30))
    with pytest.raises(UsageError, match=r"2 images .*a small one"):
        embed_folder(Autoencoder(16, 3, 4, "pooled", 8, 4), tmp_path, image_names(tmp_path))


def test_scores_come_with_the_auroc_of_each_for_a_sub_folder_against_everything_else(trained, monkeypatch, capsys):
    for number in range(5):
        write_image(trained / "to score" / f"{number}.png", number)  # one colour: easy
        write_noise(trained / "to score" / "noisy" / f"a,\n{number}.png", number)
    run_leae(monkeypatch, "score", RUN, "to score", "--positive", "noisy/")
    printed, folder = capsys.readouterr().out, trained / RUN / "latents" / "scores-to score"
    rows = read_scores(folder / "scores.csv")
    assert len(rows) == 10
    noisy = np.array([row["file"].startswith("noisy/") for row in rows])
    for name in ("score", "error", "distance"):
        scores = np.array([float(row[name]) for row in rows])
        area = (scores[noisy][:, None] > scores[~noisy]).mean()
        assert f"{name} {area:.4f}" in printed
    assert "'noisy/'" in printed
    assert (folder / "roc.png").exists()


def test_scores_that_hardly_differ_are_drawn_and_too_few_held_out_images_refused(trained, monkeypatch, capsys):
    equal = np.array([1e4, np.nextafter(1e4, 2e4), 1e4, 1e4])  # but for a rounding
    scores = {"score": equal, "error": equal, "distance": equal}
    draw_roc(scores, np.arange(4) < 2, "bad", 1.0, "title").savefig("roc.png")
    usual = {"error": np.full(5, 0.5)}
    assert scores_of(usual | {"error": np.array([0.51])}, usual)["score"] == pytest.approx(1000 * np.log(1.02))
    for number in range(9):
        write_image(Path("few") / ("test" if number == 0 else "train") / f"{number}.png", number)
    run_leae(monkeypatch, "prepare", "few", "--image-size", "16")
    capsys.readouterr()
    monkeypatch.setattr(TrainedRun, "open_data", lambda run: open_dataset("few", 16))
    assert_one_line(monkeypatch, capsys, "score", RUN, "few", says="the number of held-out images is 1.*at least 4")


def test_a_second_folder_leaves_the_first_ones_scores(trained, tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "first" / "good" / "1.png", 1)
    write_image(tmp_path / "elsewhere" / "first" / "2.png", 2)
    folder = trained / RUN / "latents"
    run_leae(monkeypatch, "score", RUN, str(tmp_path / "first"))
    before = (folder / "scores-first" / "scores.csv").read_bytes()
    run_leae(monkeypatch, "score", RUN, str(tmp_path / "elsewhere" / "first"))
    capsys.readouterr()
    assert (folder / "scores-first" / "scores.csv").read_bytes() == before
    assert sorted(path.name for path in (folder / "scores-first-2").iterdir()) == ["scores.csv", "scores.png"]
    everything = ("score", RUN, str(tmp_path / "elsewhere"), "--positive", "first")
    assert_one_line(monkeypatch, capsys, *everything, says="--positive is 'first'")  # nothing to tell it from
    (tmp_path / "first" / "bad").mkdir()
    (tmp_path / "first" / "bad" / "2.jpg").write_bytes(b"no image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "roc.png").touch()  # of an earlier time
    run_leae(monkeypatch, "score", RUN, str(tmp_path / "first"), "--positive", "bad", "--output", str(tmp_path / "out"))
    assert "no ROC curve" in capsys.readouterr().out  # as no usable image is in it
    assert not (tmp_path / "out" / "roc.png").exists()


def fail(*arguments, **options):
    raise PermissionError(13, "Permission denied")


def test_training_images_are_encoded_once_for_a_model(trained, tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "mine" / "1.png", 1)
    write_noise(tmp_path / "mine" / "2.png", 2)
    run = shutil.copytree(RUN, tmp_path / "copy", ignore=shutil.ignore_patterns("latents"))
    counted = []
    monkeypatch.setattr(latents, "encode_all", lambda *of: counted.append(len(of[1])) or encode_all(*of))

    def scored(*options):
        run_leae(monkeypatch, "score", str(run), str(tmp_path / "mine"), "--output", str(tmp_path / "out"), *options)
        return (tmp_path / "out" / "scores.csv").read_text()

    first, kept = scored(), run / "latents" / "usual.safetensors"
    assert counted == [144]
    assert scored() == first
    assert counted == [144]
    assert scored("--checkpoint", "000") != first  # another model
    assert scored() == first
    assert counted == [144] * 3
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert scored() == first
    assert counted == [144] * 4
    header, tensors = read_checkpoint(kept)
    tensors.pop("error")
    write_checkpoint(kept, leae.load(run), 0, tensors, made_from=header["made_from"])
    assert scored() == first
    assert counted == [144] * 5
    for name, forged in (("mean", torch.zeros(3)), ("error", torch.zeros(5).double()), ("axes", torch.tensor(1.0))):
        tensors = read_checkpoint(kept)[1] | {name: forged}
        write_checkpoint(kept, leae.load(run), 0, tensors, made_from=header["made_from"])
        assert scored() == first
    kept.unlink()
    monkeypatch.setattr("leae.analysis.score.write_checkpoint", fail)  # where nothing can be written
    assert scored() == first


def test_equal_roc_curves_are_both_seen():
    scores = {name: np.arange(6.0) for name in ("score", "error", "distance")}
    figure = draw_roc(scores, np.arange(6) > 2, "bad", 1.0, "")
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert widths == sorted(set(widths), reverse=True)  # a later one lies above, and is narrower


def test_images_that_the_run_was_trained_on_are_marked_wherever_they_lie(trained, tmp_path, monkeypatch, capsys):
    dataset = open_runs([RUN], "100", torch.device("cpu"))[0].open_data()
    for split in ("train", "test"):
        for number in range(3):
            Image.fromarray(dataset.images[split][number]).save(tmp_path / f"{split}-{number}.png")
    run_leae(monkeypatch, "score", RUN, str(tmp_path), "--output", str(tmp_path / "scores"))
    marked = {row["file"]: row["trained_on"] for row in read_scores(tmp_path / "scores" / "scores.csv")}
    assert marked == {
        f"{split}-{n}.png": "yes" if split == "train" else "no" for split in ("train", "test") for n in range(3)
    }
    assert "3 are exact copies" in capsys.readouterr().out
