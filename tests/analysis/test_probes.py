"""Probes on codes with a planted direction and on pure noise, and their figures against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from leae.analysis import probes
from leae.analysis.probes import auroc, balanced_accuracy, linear_scores, neighbour_scores, resample_weights


def planted(count=1500, dim=16, strength=4.0, rare=0.2, seed=0):
    """Codes whose first number tells the first attribute, and an attribute that nothing tells."""
    draws = np.random.default_rng(seed)
    labels = draws.random((count, 2)) < rare
    codes = draws.standard_normal((count, dim)) * np.linspace(1, 20, dim)
    codes[:, 0] += strength * labels[:, 0]
    return codes.astype(np.float32), labels


def test_a_linear_probe_approaches_the_best_possible_classifier_and_noise_is_chance_within_its_interval():
    (codes, labels), (held_out, truth) = (planted(count=4000, strength=2.0, seed=seed) for seed in (0, 1))
    best = roc_auc_score(truth[:, 0], held_out[:, 0])  # for these codes the planted number itself
    scores, weights = linear_scores(codes, labels, held_out), resample_weights(len(truth))
    assert roc_auc_score(truth[:, 0], scores[:, 0]) == pytest.approx(best, abs=0.01)
    for figure in (auroc(scores, truth, weights), balanced_accuracy(scores > 0, truth, weights)):
        low, high = np.quantile(figure[1:, 1], (0.025, 0.975))
        assert low < 0.5 < high


@pytest.mark.parametrize("few", [600, 200])
def test_codes_of_very_many_dimensions_are_probed_by_their_first_components_with_few_labels_too(few):
    dim = probes.PROBE_DIMS + 40
    (codes, labels), (held_out, truth) = (planted(count=600, dim=dim, strength=400.0, seed=seed) for seed in (0, 1))
    codes, held_out = probes.reduced(codes, held_out)
    assert codes.shape[1] == held_out.shape[1] == probes.PROBE_DIMS
    assert roc_auc_score(truth[:, 0], linear_scores(codes[:few], labels[:few, :1], held_out)[:, 0]) > 0.95


@pytest.mark.filterwarnings("error")
def test_of_codes_that_are_all_the_same_a_probe_knows_nothing_and_says_nothing():
    labels = planted(count=200)[1]
    assert np.abs(linear_scores(np.zeros((200, 4), np.float32), labels, np.zeros((9, 4), np.float32))).max() < 1e-4


def test_of_few_images_half_as_many_components_are_taken():
    codes, held_out = planted(count=200, dim=400)[0], planted(count=50, dim=400, seed=1)[0]
    assert [part.shape for part in probes.reduced(codes, held_out)] == [(200, 100), (50, 100)]


def test_neighbours_are_the_nearest_of_standardised_codes():
    codes, labels = planted(count=200, dim=5)
    held_out, _ = planted(count=30, dim=5, seed=1)
    mean, deviation = codes.mean(0), codes.std(0)
    distances = np.linalg.norm(((held_out - mean) / deviation)[:, None] - (codes - mean) / deviation, axis=2)
    nearest = distances.argsort(axis=1)[:, :20]
    expected = np.stack([labels[row].mean(0) for row in nearest]) - labels.mean(0)
    np.testing.assert_allclose(neighbour_scores(codes, labels, held_out), expected)


def test_figures_are_scikit_learns_also_with_ties_and_under_the_bootstraps_weights():
    draws = np.random.default_rng(0)
    labels, scores = draws.random((200, 2)) < 0.3, draws.standard_normal((200, 2))
    scores[:, 1] = scores[:, 1].round()
    weights = resample_weights(200)[:20]
    areas, accuracies = auroc(scores, labels, weights), balanced_accuracy(scores > 0, labels, weights)
    for row, column in np.ndindex(areas.shape):
        truth, guess, weight = labels[:, column], scores[:, column], weights[row]
        assert areas[row, column] == pytest.approx(roc_auc_score(truth, guess, sample_weight=weight))
        expected = balanced_accuracy_score(truth, guess > 0, sample_weight=weight)
        assert accuracies[row, column] == pytest.approx(expected)


def test_a_resample_has_as_many_images_and_the_first_row_is_all_of_them():
    weights = resample_weights(400)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 400).all()


def test_attributes_need_enough_of_both_classes_in_every_split():
    train = np.arange(100)[:, None] < [10, 9, 90, 91, 50]
    test = np.arange(40)[:, None] < [20, 20, 20, 20, 9]
    assert probes.probed_attributes(train, test).tolist() == [True, False, True, False, False]
