"""Columns of codes from files: those of a run's saved codes are the run's own, and what does not fit is one line."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import leae
from leae.analysis.measure import CODES
from leae.analysis.trained import TrainedRun, open_runs
from leae.codes import effective_rank
from tests.conftest import CPU, RUNS, assert_one_line, run_leae

DIGITS = "runs/plain-001"
SAVED = "evaluation-codes.npz"
RECONSTRUCTION = ("psnr", "ssim", "sharpness")


def table_of(name="table.csv"):
    """By column, the figures of a table as they are written."""
    columns = {}
    with open(name, newline="") as file:
        for row in csv.DictReader(file):
            columns.setdefault(row["column"], {})[row["figure"]] = [row[end] for end in ("value", "low", "high")]
    return columns


def evaluate(monkeypatch, *options):
    run_leae(monkeypatch, "evaluate", *options, "--csv", "table.csv")
    return table_of()


@pytest.fixture
def few_attributes(monkeypatch):
    """Every sixth of them, as each is probed many times."""

    def few(run, original=TrainedRun.open_data):
        dataset = original(run)
        attributes = {split: labels[:, ::6] for split, labels in dataset.attributes.items()}
        return replace(dataset, attributes=attributes, attribute_names=dataset.attribute_names[::6])

    monkeypatch.setattr(TrainedRun, "open_data", few)


@pytest.mark.parametrize("run", [RUNS[0], DIGITS])  # attributes, classes
def test_a_column_of_saved_codes_has_the_runs_own_figures_to_the_digit(trained, monkeypatch, few_attributes, run):
    options = ["--label-share", "0.3"]
    evaluate(monkeypatch, run, *options, "--save-codes")
    saved = np.load(f"{run}/{SAVED}", allow_pickle=False)
    [opened] = open_runs([run], "100", CPU)
    for split, images in opened.open_data().images.items():
        np.testing.assert_allclose(saved[split], leae.embed(opened.model, images), atol=1e-5)
    columns = evaluate(monkeypatch, run, *options, "--codes", f"ours={run}/{SAVED}", f"again={run}/{SAVED}")
    own, *_ = columns.values()
    for name, figure in own.items():
        expected = [""] * 3 if name.startswith(RECONSTRUCTION) else figure
        assert columns["ours"][name] == columns["again"][name] == expected, name
    beside = json.loads((Path(run) / "evaluation.json").read_text())["beside"]
    assert beside["ours"]["figures"].keys() == {name for name in own if not name.startswith(RECONSTRUCTION)}


def test_clean_codes_alone_of_any_size_and_precision_are_enough(trained, monkeypatch, capsys):
    draws = np.random.default_rng(0)
    dataset = open_runs([DIGITS], "100", CPU)[0].open_data()
    codes = {split: draws.standard_normal((len(dataset.images[split]), 5)) for split in ("train", "test")}
    np.savez("mine.npz", **codes)
    np.savez("half.npz", **{split: part.astype(np.float16) for split, part in codes.items()})
    options = ["--train-images", "200", "--held-out", "100", "--codes", "mine=mine.npz", "half=half.npz"]
    columns = evaluate(monkeypatch, DIGITS, *options)
    train, test = codes["train"][:200], codes["test"][:100]
    train, test = ((part - train.mean(axis=0)) / train.std(axis=0) for part in (train, test))
    vote = KNeighborsClassifier(20, metric="cosine").fit(train, dataset.classes["train"][:200])
    expected = (vote.predict(test) == dataset.classes["test"][:100]).mean()
    assert float(columns["mine"]["neighbours_clean_top1"][0]) == pytest.approx(expected, rel=1e-5)
    rank = effective_rank(torch.from_numpy(codes["test"][:100]))
    for name, exactness in (("mine", 1e-5), ("half", 1e-2)):
        assert float(columns[name]["effective_rank"][0]) == pytest.approx(rank, rel=exactness)
        assert columns[name]["dimensions"][0] == "5"
        assert {figure for figure, (value, *_) in columns[name].items() if value} == {
            *("linear_clean_top1", "few_clean_top1", "neighbours_clean_top1", "effective_rank", "dimensions"),
            *("dead_dimensions", "sigreg_statistic", "sigreg_statistic_gaussian"),
        }
    [heads] = [line for line in capsys.readouterr().out.splitlines() if "untrained" in line and "±" not in line][:1]
    assert "mine" in heads


def test_spatial_codes_are_positions_that_are_samples(trained, monkeypatch):
    counts = {split: len(images) for split, images in open_runs([DIGITS], "100", CPU)[0].open_data().images.items()}
    codes = {split: np.random.default_rng(1).standard_normal((n, 3, 2, 2), np.float32) for split, n in counts.items()}
    np.savez("spatial.npz", **codes)
    columns = evaluate(monkeypatch, DIGITS, "--codes", "spatial=spatial.npz")
    assert columns["spatial"]["dimensions"][0] == "3"
    assert float(columns["spatial"]["effective_rank"][0]) == pytest.approx(
        effective_rank(torch.from_numpy(codes["test"])), rel=1e-5
    )


FINE = {"train": np.zeros((1618, 4), np.float32), "test": np.zeros((179, 4), np.float32)}
FAULTS = {
    "no training codes": ({"test": FINE["test"]}, r"`train` of x\.npz.*\[0\]"),
    "no codes of held-out images": ({"train": FINE["train"]}, r"`test` of x\.npz.*\[0\]"),
    "too few": ({**FINE, "test": FINE["test"][1:]}, r"`test` of x\.npz.*\[178, 4\].*179"),
    "too many": ({**FINE, "train": np.zeros((1619, 4))}, r"`train` of x\.npz.*\[1619, 4\].*1618"),
    "other sizes": ({**FINE, "test": FINE["test"][:, 1:]}, r"`test` of x\.npz.*\[179, 3\]"),
    "whole numbers": ({**FINE, "train": np.zeros((1618, 4), int)}, r"`train` of x\.npz.*int64"),
    "not finite": ({**FINE, "test": FINE["test"] * np.nan}, r"`test` of x\.npz.*nan"),
    "too large for float32": ({**FINE, "test": np.full((179, 4), 1e300)}, r"`test` of x\.npz.*1e\+300"),
    "infinite in half precision": ({**FINE, "test": FINE["test"].astype(np.float16) + np.float16(np.inf)}, "inf"),
    "too large for a sum of squares": ({**FINE, "test": FINE["test"] + np.float32(1e30)}, r"`test` of x\.npz.*1e9"),
    "no numbers": ({**FINE, "train": FINE["train"][:, :0]}, r"`train` of x\.npz.*\[1618, 0\]"),
    "one number each": ({**FINE, "train": np.zeros(1618)}, r"`train` of x\.npz.*\[1618\]"),
    "one of the masked": ({**FINE, "test_masked": FINE["test"]}, r"`train_masked` of x\.npz.*\[0\]"),
    "the other": ({**FINE, "train_masked": FINE["train"]}, r"`test_masked` of x\.npz.*\[0\]"),
    "objects": ({"train": np.array([None])}, r"x\.npz is no .npy or"),
    "of other images": ({**FINE, "about": np.array("0123, mask ratio 0.35")}, "of this data set and this mask ratio"),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("arrays", "says"), FAULTS.values(), ids=FAULTS)
def test_codes_that_do_not_fit_are_one_line(trained, monkeypatch, capsys, arrays, says):
    np.savez("x.npz", **arrays)
    assert_one_line(monkeypatch, capsys, "evaluate", DIGITS, "--codes", "mine=x.npz", says=says)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["x.npz"], "--codes is 'x.npz'.*NAME=FILE"),
        (["=x.npz"], "--codes is '=x.npz'"),
        (["a b=x.npz"], "--codes is 'a b=x.npz'"),
        (["chance=x.npz"], "--codes is 'chance=x.npz'.*chance"),
        (["plain-001=x.npz"], "--codes is 'plain-001=x.npz'"),
        (["a=x.npz", "a=x.npz"], "--codes is 'a=x.npz'"),
        (["a=nothing.npz"], "nothing.npz is no .npy or"),
        (["a=runs"], "runs is not a regular file"),
    ],
)
def test_a_name_or_file_that_cannot_be_is_one_line(trained, monkeypatch, capsys, texts, says):
    np.savez("x.npz", **FINE)
    assert_one_line(monkeypatch, capsys, "evaluate", DIGITS, "--codes", *texts, says=says)


def test_codes_are_saved_over_no_other_file(trained, monkeypatch, capsys):
    path = Path(DIGITS) / SAVED
    path.write_bytes(b"somebody's")
    assert_one_line(monkeypatch, capsys, "evaluate", DIGITS, "--save-codes", says=SAVED)
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    for _ in range(2):  # but over its own
        run_leae(monkeypatch, "evaluate", DIGITS, "--save-codes")
    assert set(np.load(path)) == {"leae", "about", *CODES}
    path.unlink()
