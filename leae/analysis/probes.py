"""What codes know of attributes: linear probes and nearest neighbours, and how certain their figures are.

Everything is fitted to training images alone, `codes` float [N, D] and `labels` bool [N, A]; `held_out`, float [M, D],
are other images' codes, whose labels only enter the figures. `weights`, float [B, M], say how often each of M images
counts in each of B resamples.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

STRENGTHS = (0.1, 1.0, 10.0)  # C, the inverse of the L2 penalty, of which each probe gets its best
VALIDATION = 0.2  # share of the training codes on which it is chosen
PROBE_DIMS = 256  # codes of more dimensions are probed by their first principal components
VOTERS = 20  # nearest neighbours that vote
FEWEST_PER_CLASS = 10  # images with and without an attribute that each split needs for it to be probed
RESAMPLES = 500  # of the bootstrap


def probed_attributes(*labels: np.ndarray) -> np.ndarray:
    """Which attributes have FEWEST_PER_CLASS images with and without them in every split: bool [N, A] each → [A]."""
    counts = np.array([[part.sum(axis=0), (~part).sum(axis=0)] for part in labels])
    return (counts >= FEWEST_PER_CLASS).all(axis=(0, 1))


def linear_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Scores of held-out codes by one logistic regression per attribute: float [M, A], above 0 where it says yes.

    Both classes weigh the same; the penalty is the one with the best AUROC on a part of the training codes.
    """
    if codes.shape[1] > PROBE_DIMS:
        pca = PCA(min(PROBE_DIMS, len(codes)), svd_solver="randomized", random_state=0).fit(codes)
        codes, held_out = pca.transform(codes), pca.transform(held_out)
    scaler = StandardScaler().fit(codes)
    codes, held_out = scaler.transform(codes), scaler.transform(held_out)
    scores = np.empty((len(held_out), labels.shape[1]), np.float32)
    for attribute, truth in enumerate(tqdm(labels.T, desc="probes", leave=False, dynamic_ncols=True)):
        split = train_test_split(codes, truth, test_size=VALIDATION, stratify=truth, random_state=0)
        fitted, judged, fitted_truth, judged_truth = split
        # A weaker penalty's fit begins where the stronger one's ended: the fits are the same, after fewer iterations.
        probe = LogisticRegression(class_weight="balanced", solver="newton-cholesky", warm_start=True)
        areas = []
        for strength in STRENGTHS:
            guess = probe.set_params(C=strength).fit(fitted, fitted_truth).decision_function(judged)
            areas.append(auroc(guess[:, None], judged_truth[:, None], np.ones((1, len(judged)))).item())
        probe.set_params(C=STRENGTHS[np.argmax(areas)]).fit(codes, truth)
        scores[:, attribute] = probe.decision_function(held_out)
    return scores


def neighbour_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """How much more often the VOTERS nearest standardised codes have an attribute than all codes do: float [M, A]."""
    scaler = StandardScaler().fit(codes)
    search = NearestNeighbors(n_neighbors=min(VOTERS, len(codes)), algorithm="brute").fit(scaler.transform(codes))
    nearest = search.kneighbors(scaler.transform(held_out), return_distance=False)  # [M, K]
    return labels[nearest].mean(axis=1) - labels.mean(axis=0)


def resample_weights(count: int) -> np.ndarray:
    """How often the bootstrap draws each of `count` images: float32 [1 + RESAMPLES, count], the first row all ones."""
    drawn = np.random.default_rng((0, RESAMPLES)).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.concatenate([np.ones((1, count)), drawn]).astype(np.float32)


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Scores are float [M, A], labels bool [M, A], areas float64 [B, A], NaN where a resample has one class only.
    """
    areas = np.empty((len(weights), scores.shape[1]))
    for attribute in range(scores.shape[1]):
        order = np.argsort(scores[:, attribute], kind="stable")
        ascending, label = scores[order, attribute], labels[order, attribute, None]
        ties = np.flatnonzero(np.diff(ascending, prepend=-np.inf))  # where each group of equal scores begins
        weight = weights.T[order].astype(np.float64)  # [M, B]
        positive, negative = weight * label, weight * ~label
        if len(ties) < len(ascending):
            positive, negative = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
        below = np.cumsum(negative, axis=0) - negative / 2
        with np.errstate(invalid="ignore"):
            pairs = positive.sum(axis=0) * negative.sum(axis=0)
            areas[:, attribute] = np.einsum("mb,mb->b", positive, below) / pairs
    return areas


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of sensitivity and specificity where scores above 0 say yes: float64 [B, A], as for `auroc`."""
    decisions, weights = scores > 0, weights.astype(np.float64)
    with np.errstate(invalid="ignore"):
        sensitivity = (weights @ (decisions & labels)) / (weights @ labels)
        specificity = (weights @ (~decisions & ~labels)) / (weights @ ~labels)
    return (sensitivity + specificity) / 2
