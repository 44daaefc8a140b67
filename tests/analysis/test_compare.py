"""The comparison picture shows the models' reconstructions of the same images and masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leae.analysis.compare import comparison_rows
from leae.analysis.trained import open_runs
from leae.data.batches import to_float
from leae.training.pictures import GAP, TILE
from tests.conftest import RUNS, run_leae


def test_rows_are_the_runs_reconstructions_of_the_same_views(trained):
    runs = open_runs(RUNS, "100", torch.device("cpu"))
    images = to_float(runs[0].open_data().images["test"][:3], "cpu")
    views = runs[0].views(None, seed=5)
    rows = comparison_rows(runs, images, views)
    original, masked, *reconstructions = rows.values()
    assert torch.equal(original, images)
    assert torch.equal(masked, views(images))
    with torch.no_grad():
        for run, of_masked, of_clean in zip(runs, reconstructions[::2], reconstructions[1::2], strict=True):
            torch.testing.assert_close(of_masked, run.model(masked))
            torch.testing.assert_close(of_clean, run.model(images))
            labels = (
                f"{run.name}\n{run.method}\n{run.size}, step 9\nfrom the masked view",
                f"{run.name}\nfrom the clean view",
            )
            for label, row in zip(labels, (of_masked, of_clean), strict=True):
                errors = (row - images).square().double().mean(dim=(1, 2, 3))
                assert f"{label}, {-10 * errors.log10().mean():.2f} dB" in rows


def test_runs_of_one_name_are_told_apart_by_their_folders(trained):
    [run] = open_runs(RUNS[:1], "100", torch.device("cpu"))
    other = replace(run, folder=Path("elsewhere") / run.name)
    images = to_float(run.open_data().images["test"][:1])
    labels = [*comparison_rows([run, other], images, run.views(None))]
    assert [label.split("\n")[0] for label in labels[2:]] == [str(run.folder)] * 2 + [str(other.folder)] * 2


def test_the_picture_has_every_row_and_depends_on_the_seed_alone(trained, monkeypatch):
    pictures = []
    for seed in ("0", "0", "1"):
        run_leae(monkeypatch, "compare", *RUNS, "--images", "4", "--seed", seed, "--output", "compared.png")
        pictures.append(np.asarray(Image.open("compared.png")))
    assert pictures[0].shape[0] == 32 + 6 * (TILE + GAP)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
