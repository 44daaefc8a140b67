"""Classes in every command: top-1 accuracy, recall, colours, walks, codes in files, against scikit-learn's."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leae.analysis import latents, probes
from leae.analysis.ablate import draw, table
from leae.analysis.measure import Measured
from leae.analysis.player import SLIDERS, Player
from leae.analysis.table import Column, summary_of
from leae.analysis.trained import open_runs
from tests.conftest import CPU, TINY, run_leae, run_script

RUN = "runs/plain-001"  # on scikit-learn's digits


def planted(count, seed, classes=4, dim=6):
    """Codes around a centre for each class."""
    draws, centres = np.random.default_rng(seed), np.random.default_rng(9).standard_normal((classes, dim)) * 2
    labels = draws.integers(0, classes, count)
    return (centres[labels] + draws.standard_normal((count, dim))).astype(np.float32), labels


def expected_classes(codes, labels, held_out):
    """The same classifier: its penalty is chosen on every fifth image of each class, in the images' order."""
    seen, judged = {}, []
    for label in labels.tolist():
        seen[label] = seen.get(label, 0) + 1
        judged.append(seen[label] % 5 == 0)
    judged = np.array(judged)
    scaler = StandardScaler().fit(codes)
    scaled, scores = scaler.transform(codes), {}
    for strength in (0.01, 0.1, 1.0, 10.0):
        probe = LogisticRegression(C=strength, max_iter=1000)
        scores[strength] = probe.fit(scaled[~judged], labels[~judged]).score(scaled[judged], labels[judged])
    probe.set_params(C=max(scores, key=scores.get))
    return probe.fit(scaled, labels).predict(scaler.transform(held_out))


def test_a_multinomial_probe_is_scikit_learns_and_nearly_the_best_classifier():
    (codes, labels), (held_out, truth) = planted(3000, 0), planted(2000, 1)
    guesses = probes.linear_classes(codes, labels, held_out)
    assert np.array_equal(guesses, expected_classes(codes, labels, held_out))
    centres = np.random.default_rng(9).standard_normal((4, 6)) * 2
    best = np.linalg.norm(held_out[:, None] - centres, axis=2).argmin(axis=1)
    assert (guesses == truth).mean() == pytest.approx((best == truth).mean(), abs=0.01)


@pytest.mark.parametrize("labels", [[3] * 6, [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 7], [0, 1] * 3])
def test_few_labels_of_any_kind_are_enough_for_a_guess_that_was_among_them(labels):
    codes, labels = np.random.default_rng(0).standard_normal((6, 300)), np.array(labels)
    for classes_by in (probes.linear_classes, probes.neighbour_classes):
        assert np.isin(classes_by(codes, labels, codes), labels).all()


def test_neighbours_of_standardised_codes_vote_by_cosine():
    (codes, labels), (held_out, _) = planted(200, 0), planted(50, 1)
    expected = probes.neighbour_classes(codes, labels, held_out).tolist()
    assert probes.neighbour_classes(5 * codes + 3, labels, 5 * held_out + 3).tolist() == expected
    held_out, codes = ((part - codes.mean(axis=0)) / codes.std(axis=0) for part in (held_out, codes))
    cosine = held_out @ codes.T / np.linalg.norm(codes, axis=1)  # the held-out code's own length changes no order
    nearest = labels[(-cosine).argsort(axis=1)[:, :20]]
    assert [np.bincount(row, minlength=4).argmax() for row in nearest] == expected


def test_accuracy_is_scikit_learns_under_the_bootstraps_weights():
    draws = np.random.default_rng(0)
    guesses, labels = draws.integers(0, 3, (2, 100))
    weights = probes.resample_weights(100)[:20]
    expected = [accuracy_score(labels, guesses, sample_weight=weight) for weight in weights]
    np.testing.assert_allclose(probes.accuracy(guesses, labels, weights), expected)


def embedded(monkeypatch, split, run=RUN):
    run_leae(monkeypatch, "embed", run, split, "--output", "codes.npz")
    return np.load("codes.npz", allow_pickle=False)


def test_what_evaluate_prints_of_digits_is_what_scikit_learn_finds_in_the_codes_of_embed(trained, monkeypatch, capsys):
    run_leae(monkeypatch, "evaluate", RUN, "--label-share", "0.1")
    printed = capsys.readouterr().out
    train, test = (embedded(monkeypatch, split) for split in ("train", "test"))
    codes, held_out = (part["codes"].reshape(len(part["codes"]), -1) for part in (train, test))
    labels, truth = train["classes"], test["classes"]
    few = np.random.default_rng(0).permutation(len(codes))[: round(0.1 * len(codes))]
    guesses = {
        ("top-1, clean", "linear"): expected_classes(codes, labels, held_out),
        ("top-1 by few labels, clean", "few"): expected_classes(codes[few], labels[few], held_out),
        ("top-1 of neighbours, clean", "neighbours"): make_pipeline(
            StandardScaler(), KNeighborsClassifier(20, metric="cosine")
        )
        .fit(codes, labels)
        .predict(held_out),
    }
    content = json.loads((Path(RUN) / "evaluation.json").read_text())
    chance = np.bincount(truth).max() / len(truth)
    for (label, method), guess in guesses.items():
        cells = [cell.strip() for cell in re.search(rf"^\| {label} .*", printed, re.M)[0].strip("|").split("|")]
        assert cells[1].split("±")[0] == f"{accuracy_score(truth, guess):.3f}"
        assert cells[-1] == f"{chance:.3f}"
        value, low, high = content["figures"][f"{method}_clean_top1"]
        assert low < value < high
        recall = recall_score(truth, guess, average=None)
        assert content["recall"][f"{method}_clean"] == pytest.approx(dict(zip("0123456789", recall, strict=True)))
    assert set(content["recall"]) == {f"{m}_{v}" for m in ("linear", "few", "neighbours") for v in ("clean", "masked")}
    assert content["attributes"] == {}
    assert "AUROC" not in printed


def test_a_splits_codes_come_with_its_classes(trained, monkeypatch):
    [run] = open_runs([RUN], "100", CPU)
    found, dataset = embedded(monkeypatch, "test"), run.open_data()
    assert np.array_equal(found["classes"], dataset.classes["test"])
    assert found["class_names"].tolist() == list("0123456789")
    run_leae(monkeypatch, "embed", RUN, "test", "--output", "codes.csv")
    with Path("codes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [str(label) for label in dataset.classes["test"]]


def test_directions_are_those_from_all_other_classes_to_one_and_the_page_has_a_slider_for_the_best(
    trained, monkeypatch
):
    gr, page = (pytest.importorskip(name, reason="needs --extra play") for name in ("gradio", "leae.analysis.page"))
    [run] = open_runs([RUN], "100", CPU)
    player = Player(run, run.open_data(), 0, CPU)
    labels, names = player.dataset.classes["train"][player.drawn], ["7", "0"]
    for name, direction in zip(names, player.directions(names), strict=True):
        of = torch.from_numpy(labels == int(name))
        expected = player.training[of].mean(dim=0) - player.training[~of].mean(dim=0)
        torch.testing.assert_close(direction, expected)
    assert set(best := list(latents.separations(player))) == set("0123456789")
    blocks = page.build_page([player]).blocks.values()
    assert [block.label for block in blocks if isinstance(block, gr.Slider)][1:-1] == best[:SLIDERS]
    assert [block.label for block in blocks if isinstance(block, gr.Tab)] == ["Mask", "Morph", "Classes", "Samples"]
    run_leae(monkeypatch, "latents", RUN, "--attribute", "7", "--map", "pca", "--images", "4", "--device", "cpu")
    assert (Path(RUN) / "latents" / "attribute-walks.png").is_file()


def test_ablate_and_the_curves_show_the_classes_figures_where_there_are_classes():
    values = {name: np.array([0.5]) for name in ("linear_clean_top1", "neighbours_masked_top1")}
    columns = [Column("a", {seed: Measured("a", None, values=values) for seed in (0, 1)})]
    names = summary_of(columns)
    assert {"linear_clean_top1", "few_clean_top1", "neighbours_masked_top1"} < set(names)
    assert not [name for name in names if re.search("auroc|balanced", name)]
    assert "top-1, clean" in table(columns)
    assert "top-1, clean" in [axes.get_title() for axes in draw(columns, "").axes]
    assert "linear_clean_auroc" in summary_of([Column("b", {0: Measured("b", None)})])


def test_a_run_on_a_folder_with_classes_is_trained_and_evaluated(workplace, monkeypatch, capsys):
    draws = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 15)):
        for name, level in (("dark", 60), ("light", 190)):
            folder = workplace / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = draws.integers(-40, 40, (16, 16, 3)) + level
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    run_script(monkeypatch, "main.py", *TINY, "--max-steps", "2", "--dataset", "pictures")
    assert "2 classes, 60 images to train on, 30 held out" in capsys.readouterr().out
    run_leae(monkeypatch, "evaluate", "runs/self-teaching-001", "--device", "cpu")
    figures = json.loads(Path("runs/self-teaching-001/evaluation.json").read_text())["figures"]
    assert figures["linear_clean_top1"][0] == 1
