"""What codes know of attributes: linear probes and nearest neighbours, and how sure their figures are.

Whatever is fitted takes training codes and training labels alone; held-out labels are met by the figures only.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

STRENGTHS = (0.1, 1.0, 10.0)  # C, the inverse of the L2 penalty, of which each probe gets its best
VALIDATION = 0.2  # share of the training codes on which it is chosen
PROBE_DIMS = 256  # codes of more numbers are probed by their first principal components
NEIGHBOURS = 20
LEAST = 10  # of either class that an attribute needs on each side to be probed
RESAMPLES = 500  # of the bootstrap


def probed_attributes(*labels: np.ndarray) -> np.ndarray:
    """Which attributes have at least LEAST images with and without them in every one of some splits.

    Args:
        *labels: bool [N, A] each.

    Returns:
        bool [A].
    """
    return np.logical_and.reduce([(part.sum(0) >= LEAST) & (part.sum(0) <= len(part) - LEAST) for part in labels])


def linear_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray, title: str = "probes") -> np.ndarray:
    """Scores of held-out codes by one linear probe per attribute: logistic regression on standardised codes.

    Args:
        codes: float [N, D], of training images.
        labels: bool [N, A], theirs.
        held_out: float [M, D], codes of other images.
        title: of the progress bar.

    Returns:
        float [M, A], above 0 where the probe says yes.
    """
    if codes.shape[1] > PROBE_DIMS:
        rotation = PCA(PROBE_DIMS, svd_solver="randomized", random_state=0).fit(codes)
        codes, held_out = rotation.transform(codes), rotation.transform(held_out)
    scaler = StandardScaler().fit(codes)
    codes, held_out = scaler.transform(codes), scaler.transform(held_out)
    scores = np.empty((len(held_out), labels.shape[1]), np.float32)
    for attribute in tqdm(range(labels.shape[1]), desc=title, leave=False, dynamic_ncols=True):
        scores[:, attribute] = _fit_probe(codes, labels[:, attribute]).decision_function(held_out)
    return scores


def _fit_probe(codes: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Both classes weigh the same; the penalty is the one with the best AUROC on a part of the training codes."""
    fitted, judged, fitted_labels, judged_labels = train_test_split(
        codes, labels, test_size=VALIDATION, stratify=labels, random_state=0
    )
    # A weaker penalty's fit begins where the stronger one's ended: the fits are the same, after fewer iterations.
    probe = LogisticRegression(class_weight="balanced", solver="newton-cholesky", warm_start=True)
    areas = []
    for strength in STRENGTHS:
        probe.set_params(C=strength).fit(fitted, fitted_labels)
        areas.append(auroc(probe.decision_function(judged), judged_labels, np.ones((1, len(judged)))).item())
    return probe.set_params(C=STRENGTHS[np.argmax(areas)]).fit(codes, labels)


def neighbour_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Scores of held-out codes by the NEIGHBOURS nearest training codes, standardised, in Euclidean distance.

    Args:
        codes: float [N, D], of training images.
        labels: bool [N, A], theirs.
        held_out: float [M, D], codes of other images.

    Returns:
        float [M, A]: how much more often the neighbours have an attribute than training images do.
    """
    scaler = StandardScaler().fit(codes)
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(codes)), algorithm="brute").fit(scaler.transform(codes))
    nearest = search.kneighbors(scaler.transform(held_out), return_distance=False)  # [M, K]
    return labels[nearest].mean(axis=1) - labels.mean(axis=0)


def resample_weights(count: int, seed: int = 0) -> np.ndarray:
    """How often the bootstrap draws each of `count` images: float32 [1 + RESAMPLES, count], the first row all ones."""
    drawn = np.random.default_rng((seed, RESAMPLES)).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.concatenate([np.ones((1, count)), drawn]).astype(np.float32)


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Args:
        scores: float [M].
        labels: bool [M].
        weights: float [B, M], how often each sample counts in each of B resamples.

    Returns:
        float64 [B]; NaN where a resample has one class only.
    """
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each group of equal scores begins
    weights, labels = weights.T[order].astype(np.float64), labels[order, None]  # [M, B], [M, 1]
    positive, negative = weights * labels, weights * ~labels
    if len(ties) < len(scores):
        positive, negative = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
    below = np.cumsum(negative, axis=0) - negative / 2
    with np.errstate(invalid="ignore"):
        return np.einsum("mb,mb->b", positive, below) / (positive.sum(axis=0) * negative.sum(axis=0))


def balanced_accuracy(decisions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the share of positives and of the share of negatives that are decided rightly.

    Args:
        decisions, labels: bool [M, A].
        weights: float [B, M], as for `auroc`.

    Returns:
        float64 [B, A]; NaN where a resample has one class only.
    """
    weights = weights.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = (weights @ (decisions & labels)) / (weights @ labels)
        spared = (weights @ (~decisions & ~labels)) / (weights @ ~labels)
    return (found + spared) / 2


@dataclass(frozen=True)
class Figures:
    """How well scores tell attributes, of all held-out images and of the bootstrap's resamples of them.

    Attributes:
        balanced_accuracy: float64 [1 + RESAMPLES, A]; the first row is of all images as they are.
        auroc: the same; None for scores whose order is too coarse for it.
    """

    balanced_accuracy: np.ndarray
    auroc: np.ndarray | None

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, ranked: bool = True) -> "Figures":
        """The figures of scores float [M, A] for labels bool [M, A], with `resample_weights(M)`; AUROC if `ranked`."""
        accuracy = balanced_accuracy(scores > 0, labels, weights)
        if not ranked:
            return cls(accuracy, None)
        columns = [auroc(scores[:, i], labels[:, i], weights) for i in range(labels.shape[1])]
        return cls(accuracy, np.stack(columns, axis=1))


def mean_over_attributes(figure: np.ndarray) -> np.ndarray:
    """[1 + RESAMPLES, A] → [1 + RESAMPLES]; what a resample has one class of only is left out of its mean."""
    return np.nanmean(figure, axis=1)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of what the resamples gave: of [1 + RESAMPLES], the first of which is no resample."""
    low, high = np.percentile(resampled[1:], [2.5, 97.5])
    return float(low), float(high)


def is_better(figure: np.ndarray, other: np.ndarray) -> bool:
    """Whether a figure beats another one of the same images in 97.5 % of the resamples: both [1 + RESAMPLES]."""
    return interval(figure - other)[0] > 0
