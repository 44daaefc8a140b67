"""The evaluation's table and files, and that no held-out label or image reaches a fit."""

import csv
import json
from dataclasses import replace
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
from leae.analysis import curves, evaluate
from leae.analysis.measure import Measured, PixelPCA, Sample, probe, with_baselines
from leae.analysis.table import Column, columns_of
from leae.analysis.trained import TrainedRun, open_runs
from leae.data.batches import to_float
from leae.data.prepare import Dataset
from leae.errors import UsageError
from leae.training.evaluation import MaskedViews
from leae.training.run import Run
from tests.conftest import CPU, RUNS, run_leae


@pytest.fixture
def other_data(monkeypatch):
    """Lets `evaluate` open the data set that a function makes of the run's."""
    original = TrainedRun.open_data
    return lambda change: monkeypatch.setattr(TrainedRun, "open_data", lambda run: change(original(run)))


def with_few_attributes(dataset):
    """Every sixth of them, as each is probed many times."""
    attributes = {split: labels[:, ::6] for split, labels in dataset.attributes.items()}
    return replace(dataset, attributes=attributes, attribute_names=dataset.attribute_names[::6])


def test_figures_of_runs_are_printed_and_kept(trained, monkeypatch, capsys, other_data):
    other_data(with_few_attributes)
    monkeypatch.setattr(curves, "CHECKPOINTS", ["000", "100"])  # for time
    seen = []  # the table's columns, then those of the curves
    monkeypatch.setattr(evaluate, "columns_of", lambda models: seen.append(columns_of(models)) or seen[-1])
    options = ["--label-share", "0.3", "--csv", "table.csv", "--markdown", "table.md", "--output", "curves.csv"]
    run_leae(monkeypatch, "evaluate", *RUNS, *options, "--checkpoints", "all")
    lines = capsys.readouterr().out.splitlines()
    psnr, auroc, *_ = (line for line in lines if line.startswith(("PSNR of clean", "  AUROC, clean")))
    contents = [json.loads((Path(run) / "evaluation.json").read_text()) for run in RUNS]
    for run, content, cell, column in zip(RUNS, contents, auroc.split()[2:], seen[0], strict=False):
        assert f"{content['figures']['psnr_clean'][0]:.2f}±" in psnr
        with (Path(run) / "metrics.csv").open(newline="") as file:
            logged = [row for row in csv.DictReader(file) if row["split"] == "test"][-1]
        for measure in ("psnr_clean", "psnr_masked"):  # training took them of the same images and masks
            assert content["figures"][measure][0] == pytest.approx(float(logged[measure]), abs=1e-4)
        assert list(content["beside"]) == ["untrained", "PCA 8", "chance"]
        assert content["figures"]["dimensions"] == [8, None, None]
        mean, low, high = content["figures"]["linear_clean_auroc"]
        assert mean == pytest.approx(np.mean(list(content["attributes"]["linear_clean_auroc"].values())))
        assert low <= mean <= high
        mark = "°" * column.misses_pca("linear_clean_auroc")
        assert cell == f"{mean:.3f}±{(high - low) / 2:.3f}".replace("±0", "±") + mark
    assert "neighbours_clean_balanced_accuracy" in contents[0]["figures"]
    assert contents[0]["options"]["held_out"] == 72
    assert psnr.split()[-1] in Path("table.md").read_text(encoding="utf-8")
    texts = [Path(name).read_text(encoding="utf-8") for name in ("table.csv", "curves.csv")]
    table, last = ({row["figure"]: row for row in csv.DictReader(text.splitlines())} for text in texts)
    one, other = (content["figures"]["psnr_clean"][0] for content in contents)
    assert float(table["psnr_clean less column 1"]["2 masked, SIGREG_WEIGHT=0.0"]) == pytest.approx(
        other - one, rel=1e-3
    )
    assert (last["psnr_clean"]["column"], last["psnr_clean"]["checkpoint"]) == ("2 masked, SIGREG_WEIGHT=0.0", "100")
    assert float(last["psnr_clean"]["value"]) == pytest.approx(other, rel=1e-5)
    assert float(last["sigreg"]["value"]) == pytest.approx(contents[1]["figures"]["sigreg"][0], rel=1e-5)
    assert int(last["sigreg"]["images"]) == 9 * 16
    assert Image.open("curves-images.png").size == Image.open("curves-minutes.png").size == (1300, 640)


def test_the_time_of_training_is_that_of_its_steps_at_their_usual_rate():
    run = Run({"BATCH_SIZE": 30})
    rows = [{"step": "10", "psnr_clean": "20"}, *({"images_per_second": rate} for rate in ("5", "5.1", "0.1"))]
    run.read_metrics = lambda: rows
    assert [curves.training_minutes(run, step) for step in (0, 5, 20)] == pytest.approx([0, 0.5, 2])
    del rows[1:]
    with pytest.raises(UsageError, match=r"images_per_second in .*metrics.csv is \[\]; it must be that of some steps"):
        curves.training_minutes(run, 0)


def test_what_is_undefined_is_an_empty_cell_and_null(trained, monkeypatch, capsys, other_data):
    def flattened(dataset):  # no gradient to compare with, no distance between codes
        images = {split: np.full_like(array, 90) for split, array in dataset.images.items()}
        return replace(dataset, images=images, attributes={}, attribute_names=())

    other_data(flattened)
    run_leae(monkeypatch, "evaluate", RUNS[0], "--train-images", "100")
    rows = capsys.readouterr().out.splitlines()
    assert any("representation: left out, as no attribute has 10 images" in row for row in rows)
    assert "sharpness in the square, clean" in rows
    assert "drift under masking" in rows
    content = json.loads((Path(RUNS[0]) / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert content["figures"]["sharpness_square_masked"][0] is None
    assert content["figures"]["psnr_clean"][0] > 0
    assert content["figures"]["drift"][0] is None
    assert content["attributes"] == {}


def test_nothing_of_the_held_out_images_or_labels_reaches_a_fit(trained, monkeypatch, capsys, other_data):
    def with_other_held_out_images(dataset):
        dataset = with_few_attributes(dataset)
        draws = np.random.default_rng(1)
        noise = draws.integers(0, 256, dataset.images["test"].shape, dtype=np.uint8)
        labels = dataset.attributes["test"][draws.permutation(len(noise))]  # as many of each, on other images
        images, attributes = {**dataset.images, "test": noise}, {**dataset.attributes, "test": labels}
        return replace(dataset, images=images, attributes=attributes)

    fitted = []
    for kind in (PCA, StandardScaler, LogisticRegression, NearestNeighbors):

        def spy(self, data, *labels, fit=kind.fit, **options):
            fitted.append((type(self).__name__, np.asarray(data).tobytes(), *(np.asarray(x).tobytes() for x in labels)))
            return fit(self, data, *labels, **options)

        monkeypatch.setattr(kind, "fit", spy)
    other_data(with_few_attributes)
    run_leae(monkeypatch, "evaluate", RUNS[0])
    honest, fitted[:] = list(fitted), []
    other_data(with_other_held_out_images)
    run_leae(monkeypatch, "evaluate", RUNS[0])
    assert {name for name, *_ in honest} == {"PCA", "StandardScaler", "LogisticRegression", "NearestNeighbors"}
    assert fitted == honest


def test_beside_the_runs_stand_one_untrained_encoder_and_one_pca_a_shape_and_chance(trained):
    runs = open_runs([*RUNS, "runs/variational-001"], "100", CPU)
    train = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    columns = with_baselines(runs, train, CPU)
    assert [column.name for column in columns] == [*(run.name for run in runs), "untrained", "PCA 8", "chance"]
    assert {column.pca.name for column in columns[:4]} == {"PCA 8"}
    untrained, initial = columns[3].model, leae.load(f"{RUNS[0]}/checkpoints/000.safetensors")
    assert [p.shape for p in untrained.parameters()] == [p.shape for p in initial.parameters()]


def test_pca_is_the_best_linear_reconstruction_of_its_training_images():
    draws = np.random.default_rng(0)
    scenes = draws.standard_normal((40, 5)) @ draws.standard_normal((5, 192)) + draws.standard_normal((40, 192)) / 9
    train = (128 + 15 * scenes).clip(0, 255).astype(np.uint8).reshape(40, 8, 8, 3)
    pca, images = PixelPCA(train, 5), to_float(train)
    pixels = images.flatten(1).double()
    left, singular, right = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    best = (left[:, :5] * singular[:5]) @ right[:5] + pixels.mean(0)
    torch.testing.assert_close(pca(images).double(), best.view(images.shape).clamp(0, 1), rtol=0, atol=1e-4)
    assert pca.encode(images).shape == (40, 5)


def test_codes_that_tell_an_attribute_beat_a_pca_that_does_not():
    draws = np.random.default_rng(0)
    labels = {split: draws.random((300, 1)) < 0.5 for split in ("train", "test")}
    images = {split: np.zeros((300, 8, 8, 3), np.uint8) for split in labels}
    sample = Sample(Dataset("noise", "noise", "", images, labels, ("Planted",)), 300, 300, 0.5, MaskedViews(8, 0.35))
    noise = {split: draws.standard_normal((300, 4)) for split in labels}
    pca = Measured("PCA 4", None)
    for column, planted in ((pca, 0), (Measured("", None, pca=pca), 1), (Measured("", None, pca=pca), 0)):
        probe(column, "clean", *(noise[split] + planted * labels[split] for split in labels), sample)
        for method in ("linear", "few", "neighbours"):
            name = f"{method}_clean_balanced_accuracy"
            assert column is pca or Column(("",), {None: column}).misses_pca(name) == (planted == 0)
            assert list(column.attributes[name]) == ["Planted"]
