"""The evaluation's table and files, and that no held-out label or image reaches a fit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import leae
from leae.analysis import evaluate
from leae.analysis.evaluate import Column, beats, columns_for, table, untrained_like
from leae.analysis.pixel_pca import PixelPCA
from leae.analysis.probes import Figures
from leae.analysis.trained import open_runs
from leae.data.prepare import Dataset, to_float
from tests.conftest import assert_one_line, run_module

CPU = torch.device("cpu")
RUNS = ["runs/self-teaching-001", "runs/masked-001"]


def test_figures_of_finished_runs_are_printed_and_kept(finished, monkeypatch, capsys):
    run_module(monkeypatch, "leae.analysis.evaluate", *RUNS, "runs/variational-001", "--label-share", "0.3")
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("PSNR of clean")]
    contents = [json.loads((Path(run) / "evaluation.json").read_text()) for run in RUNS]
    for run, content in zip(RUNS, contents, strict=True):
        assert f"{content['reconstruction']['psnr_clean']:.2f}" in rows[0]
        with (Path(run) / "metrics.csv").open(newline="") as file:
            logged = [row for row in csv.DictReader(file) if row["split"] == "test"][-1]
        for measure in ("psnr_clean", "psnr_masked"):  # training took them of the same images and masks
            assert content["reconstruction"][measure] == pytest.approx(float(logged[measure]), abs=1e-4)
        assert list(content["beside"]) == ["untrained", "PCA 8", "chance"]
        assert content["latent"]["dimensions"] == 8
        probes = content["representation"]["linear"]["clean"]["auroc"]
        assert probes["mean"] == pytest.approx(np.mean(list(probes["attributes"].values())))
        assert probes["interval"][0] <= probes["mean"] <= probes["interval"][1]
        assert probes["beats PCA 8"] in (True, False)
        assert Image.open(Path(run) / "evaluation.png").size == (1300, 800)
    assert "neighbours" in contents[0]["representation"]
    assert contents[0]["options"]["held_out"] == 30


def test_without_attributes_the_section_is_left_out_and_says_why(finished, monkeypatch, capsys):
    few = ["--train-images", "100"]  # so few that no attribute has ten images of each kind among the held-out ones
    original = evaluate.open_data

    def unlabelled(run):
        dataset = original(run)
        none = {split: array[:, :0] for split, array in dataset.attributes.items()}
        return Dataset("pictures of nothing", dataset.images, none, ())

    monkeypatch.setattr(evaluate, "open_data", unlabelled)
    run_module(monkeypatch, "leae.analysis.evaluate", RUNS[0], *few)
    assert "representation: left out, pictures of nothing come without attributes" in capsys.readouterr().out
    assert json.loads((Path(RUNS[0]) / "evaluation.json").read_text())["representation"] == {}


def test_small_sets_classes_are_attributes(finished, monkeypatch, capsys):
    run_module(monkeypatch, "leae.analysis.evaluate", "runs/plain-001", "--train-images", "400")
    assert "mean over 10 attributes" in capsys.readouterr().out


def test_nothing_of_the_held_out_images_or_labels_reaches_a_fit(finished, monkeypatch, capsys):
    original, spoiled = evaluate.open_data, False

    def with_other_held_out_images(run):
        dataset = original(run)
        if not spoiled:
            return dataset
        draws = np.random.default_rng(1)
        noise = draws.integers(0, 256, dataset.images["test"].shape, dtype=np.uint8)
        labels = dataset.attributes["test"][draws.permutation(len(noise))]  # as many of each, on other images
        images, attributes = {**dataset.images, "test": noise}, {**dataset.attributes, "test": labels}
        return Dataset(dataset.title, images, attributes, dataset.attribute_names)

    monkeypatch.setattr(evaluate, "open_data", with_other_held_out_images)
    fitted = []
    for kind in (PCA, StandardScaler, LogisticRegression, NearestNeighbors):

        def spy(self, data, *rest, fit=kind.fit, **options):
            fitted.append((type(self).__name__, np.asarray(data).tobytes(), *(np.asarray(x).tobytes() for x in rest)))
            return fit(self, data, *rest, **options)

        monkeypatch.setattr(kind, "fit", spy)
    run_module(monkeypatch, "leae.analysis.evaluate", RUNS[0])
    honest, fitted[:] = list(fitted), []
    spoiled = True
    run_module(monkeypatch, "leae.analysis.evaluate", RUNS[0])
    assert {name for name, *_ in honest} == {"PCA", "StandardScaler", "LogisticRegression", "NearestNeighbors"}
    assert fitted == honest


def test_beside_the_runs_stand_one_untrained_encoder_and_one_pca_a_shape_and_chance(finished):
    runs = open_runs([*RUNS, "runs/variational-001"], "100", CPU)
    train = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    columns = columns_for(runs, train, CPU)
    names = ["self-teaching-001", "masked-001", "variational-001", "untrained", "PCA 8", "chance"]
    assert [column.name for column in columns] == names
    assert {column.rival for column in columns[:4]} == {"PCA 8"}
    untrained, initial = columns[3].model, leae.load(f"{RUNS[0]}/checkpoints/000.pt")
    assert [p.shape for p in untrained.parameters()] == [p.shape for p in initial.parameters()]
    assert untrained_like(runs[2].model).encode(to_float(train, CPU)).shape == (50, 8)


def test_pca_is_the_best_linear_reconstruction_of_its_training_images():
    draws = np.random.default_rng(0)
    scenes = (
        draws.standard_normal((40, 5)) @ draws.standard_normal((5, 8 * 8 * 3)) + draws.standard_normal((40, 192)) / 9
    )
    train = (128 + 15 * scenes).clip(0, 255).astype(np.uint8).reshape(40, 8, 8, 3)
    pca, images = PixelPCA(train, 5), to_float(train, CPU)
    pixels = images.flatten(1).double()
    left, singular, right = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    best = (left[:, :5] * singular[:5]) @ right[:5] + pixels.mean(0)
    torch.testing.assert_close(pca(images).double(), best.view(images.shape).clamp(0, 1), rtol=0, atol=1e-4)
    assert pca.encode(images).shape == (40, 5)


def test_a_result_that_does_not_beat_pca_is_marked():
    def column(name, aurocs, rival=None):
        figure = np.array([[np.mean(aurocs)], *[[a] for a in aurocs]])
        probes = {(m, v): Figures(figure, figure) for m in ("linear", "few", "neighbours") for v in ("clean", "masked")}
        return Column(name, torch.nn.Identity(), rival=rival, probes=probes)

    pca = column("PCA 8", [0.6, 0.7])
    better, same = column("better", [0.7, 0.8], "PCA 8"), column("same", [0.6, 0.7], "PCA 8")
    assert beats(better, pca, "linear", "clean", "auroc")
    assert not beats(same, pca, "linear", "clean", "auroc")
    labels = evaluate.Labels(["a"], *[np.zeros((2, 1), bool)] * 2, np.arange(2), np.array([True]), np.ones((3, 2)))
    lines = table([better, same, pca], labels, "").splitlines()
    row = next(line for line in lines if line.startswith("  AUROC, clean"))
    assert [cell.endswith("*") for cell in row.split()[2:]] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([RUNS[0], "--label-share", "0"], "--label-share is 0.0; it must be above 0 and at most 1"),
        ([RUNS[0], "--train-images", "5"], "--train-images is 5; it must be a whole number, at least 100"),
        ([RUNS[0], "runs/plain-001"], "only runs on the same images"),
    ],
)
def test_wrong_options_are_refused_in_one_line(finished, monkeypatch, capsys, options, says):
    assert_one_line(monkeypatch, capsys, "leae.analysis.evaluate", *options, says=says)
