"""What codes know of attributes or classes: linear probes, nearest neighbours, and how certain their figures are.

Everything is fitted to training images alone, `codes` float [N, D] and `labels`, bool [N, A] of attributes or int [N]
of classes; `held_out`, float [M, D], are other images' codes, whose labels only enter the figures. `weights`, float
[B, M], say how often each of M images counts in each of B resamples.
"""

from warnings import catch_warnings, filterwarnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from leae.progress import progress_bar

STRENGTHS = (0.1, 1.0, 10.0)  # C, the inverse of the L2 penalty, of which each probe gets its best
CLASS_STRENGTHS = (0.01, *STRENGTHS)  # the same of classes
VALIDATION = 0.2  # share of the training codes on which it is chosen
PROBE_DIMS = 256  # codes of more dimensions are probed by their first principal components
VOTERS = 20  # nearest neighbours that vote
FEWEST_PER_CLASS = 10  # images with and without an attribute that each split needs for it to be probed
RESAMPLES = 500  # of the bootstrap


def probed_attributes(*labels: np.ndarray) -> np.ndarray:
    """Which attributes have FEWEST_PER_CLASS images with and without them in every split: bool [N, A] each → [A]."""
    counts = np.array([[part.sum(axis=0), (~part).sum(axis=0)] for part in labels])
    return (counts >= FEWEST_PER_CLASS).all(axis=(0, 1))


def reduced(codes: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as linear probes get them: codes of more than PROBE_DIMS dimensions by their principal components.

    These are fitted to all training images, labelled or not: as many components as labels, of equal variance, would
    tell nothing. They are half as many as images at most.
    """
    if codes.shape[1] <= PROBE_DIMS:
        return codes, held_out
    pca = PCA(min(PROBE_DIMS, max(1, len(codes) // 2)), svd_solver="randomized", random_state=0).fit(codes)
    return pca.transform(codes), pca.transform(held_out)


def standardised(codes: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the training codes' means and deviations: float [N, D] and [M, D]."""
    scaler = StandardScaler().fit(codes)
    return scaler.transform(codes), scaler.transform(held_out)


def linear_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Scores of held-out codes by one logistic regression per attribute: float [M, A], above 0 where it says yes.

    Both classes weigh the same; the penalty is the one with the best AUROC on a part of the training codes.
    """
    codes, held_out = standardised(codes, held_out)
    scores = np.empty((len(held_out), labels.shape[1]), np.float32)
    probe = LogisticRegression(class_weight="balanced", solver="newton-cholesky")
    part = StratifiedShuffleSplit(1, test_size=VALIDATION, random_state=0)
    search = GridSearchCV(probe, {"C": STRENGTHS}, scoring="roc_auc", cv=part)
    with catch_warnings():
        filterwarnings("ignore", "Line search of Newton solver")  # it takes lbfgs then, as where all codes are the same
        for attribute, truth in enumerate(progress_bar(labels.T, "probes")):
            scores[:, attribute] = search.fit(codes, truth).decision_function(held_out)
    return scores


def neighbour_scores(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """How much more often the VOTERS nearest standardised codes have an attribute than all codes do: float [M, A]."""
    codes, held_out = standardised(codes, held_out)
    search = NearestNeighbors(n_neighbors=min(VOTERS, len(codes)), algorithm="brute").fit(codes)
    nearest = search.kneighbors(held_out, return_distance=False)  # [M, K]
    return labels[nearest].mean(axis=1) - labels.mean(axis=0)


@threadpool_limits.wrap(limits=1)  # threads that wait for each other take a hundred times as long on a busy machine
def linear_classes(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """The classes of held-out codes, int [M], by multinomial logistic regression.

    The penalty is the one with the best accuracy on every fifth training image of each class. The solver, lbfgs, takes
    1 to 14 s for 45,000 codes of 128 dimensions and ten classes; newton-cholesky takes minutes.
    """
    present = np.unique(labels)
    if len(present) == 1:
        return np.full(len(held_out), present[0])
    codes, held_out = standardised(codes, held_out)
    judged, every = np.zeros(len(labels), bool), round(1 / VALIDATION)
    for label in present:
        judged[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    probe = LogisticRegression(max_iter=1000)  # with C 1 where no class has five images
    if judged.any():
        probe = GridSearchCV(probe, {"C": CLASS_STRENGTHS}, cv=PredefinedSplit(np.where(judged, 0, -1)))
    with catch_warnings():
        filterwarnings("ignore", "The number of unique classes is greater than 50%")  # few labels of many classes
        return probe.fit(codes, labels).predict(held_out)


def neighbour_classes(codes: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """The classes of held-out codes, int [M], by the majority of the VOTERS nearest standardised codes, by cosine."""
    codes, held_out = standardised(codes, held_out)
    return KNeighborsClassifier(min(VOTERS, len(codes)), metric="cosine").fit(codes, labels).predict(held_out)


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


def accuracy(guesses: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of guesses that are right: classes int [M], twice → float64 [B]."""
    weights = weights.astype(np.float64)
    return weights @ (guesses == labels) / weights.sum(axis=1)
