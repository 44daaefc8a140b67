"""Geometry of codes: straight lines, the direction of an attribute, nearest neighbours.

Codes are flat here, float [N, D]; the caller flattens those of a spatial latent.
"""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor


def straight_lines(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Evenly spaced points on straight lines, both ends included: two of [P, D] → [P, steps, D]."""
    shares = torch.linspace(0, 1, steps, dtype=starts.dtype)[:, None]
    return torch.lerp(starts[:, None], ends[:, None], shares)


def class_difference(codes: Tensor, labels: Tensor) -> Tensor:
    """An attribute's direction, the mean code with it less the mean code without it: [N, D] and bool [N] → [D]."""
    return codes[labels].mean(dim=0) - codes[~labels].mean(dim=0)


def separation(codes: Tensor, labels: Tensor) -> float:
    """How well an attribute's direction separates codes [N, D] with it from those without it (labels bool [N]).

    Returns:
        The AUROC of every second code along the direction of the others, chance being 0.5; NaN where either half
        lacks one of the classes.
    """
    fitted, judged = labels[::2], labels[1::2]
    if not all(half.any() and not half.all() for half in (fitted, judged)):
        return float("nan")
    return float(roc_auc_score(judged.numpy(), (codes[1::2] @ class_difference(codes[::2], fitted)).numpy()))


def deviation_along(codes: Tensor, direction: Tensor) -> float:
    """The standard deviation of codes [N, D] along a direction [D] of any length."""
    return (codes @ (direction / direction.norm())).std().item()


def nearest_others(codes: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest neighbours of some codes, given by their indices int64 [Q], among all the others.

    Returns:
        Euclidean distances, float [Q, count], ascending, and the neighbours' indices, int64 [Q, count].
    """
    # Differences, not products: these lose what is small beside the codes' own length.
    distances = torch.cdist(codes[queries], codes, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(queries)), queries] = torch.inf
    ascending, indices = distances.sort(dim=1, stable=True)
    return ascending[:, :count], indices[:, :count]
