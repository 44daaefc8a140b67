"""Geometry of codes: straight lines, the direction of an attribute, nearest neighbours.

Codes are flat here, float [N, D]; those of a spatial latent are flattened by whoever has them.
"""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor


def straight_lines(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Evenly spaced points on straight lines, both ends included: two of [P, D] → [P, steps, D]."""
    shares = torch.linspace(0, 1, steps, dtype=starts.dtype)[:, None]
    return torch.lerp(starts[:, None], ends[:, None], shares)


def class_difference(codes: Tensor, labels: Tensor) -> Tensor:
    """An attribute's direction: the mean code of those that have it less the mean code of those that do not.

    Args:
        codes: float [N, D].
        labels: bool [N], both values among them.

    Returns:
        float [D].
    """
    return codes[labels].mean(dim=0) - codes[~labels].mean(dim=0)


def separation(codes: Tensor, labels: Tensor) -> float:
    """How well an attribute's direction tells those that have it from those that do not: an AUROC.

    The direction is that of every second code; the others are ranked along it.

    Args:
        codes: float [N, D].
        labels: bool [N].

    Returns:
        From 0 to 1, chance being 0.5; NaN where one half has all the attribute, or has none.
    """
    fitted, judged = labels[::2], labels[1::2]
    if not all(half.any() and not half.all() for half in (fitted, judged)):
        return float("nan")
    return float(roc_auc_score(judged.numpy(), (codes[1::2] @ class_difference(codes[::2], fitted)).numpy()))


def deviation_along(codes: Tensor, direction: Tensor) -> float:
    """The standard deviation of codes [N, D] along a direction [D] of any length."""
    return (codes @ (direction / direction.norm())).std().item()


def nearest_others(codes: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest neighbours of some codes among all the others.

    Args:
        codes: float [N, D].
        queries: int64 [Q], the numbers of those whose neighbours are wanted.
        count: how many of them, less than N.

    Returns:
        Euclidean distances, float [Q, count], ascending, and the neighbours' numbers, int64 [Q, count].
    """
    # Differences, not products: these lose what is small beside the codes' own length.
    distances = torch.cdist(codes[queries], codes, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(queries)), queries] = torch.inf
    ascending, numbers = distances.sort(dim=1, stable=True)
    return ascending[:, :count], numbers[:, :count]
