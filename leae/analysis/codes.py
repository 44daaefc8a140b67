"""What is computed of codes: drift, distance from a Gaussian, an attribute's direction, nearest neighbours.

Codes are finite, float [N, D]; `drift` and `sigreg_statistics` also take those of a spatial latent, [N, D, H, W].
"""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leae.randomness import generator
from leae.sigreg import sigreg

GAUSSIAN_CODES = 1000  # that `sigreg_statistics` takes, at most


def drift(codes: Tensor, others: Tensor) -> float:
    """The distance between the codes of two views of an image, as a share of that between two images' codes.

    Both distances are root mean squares, that between images over all pairs of different images in `codes`. 0 where the
    views do not differ to the encoder; NaN where no codes differ.
    """
    first, second = (part.detach().double().flatten(1) for part in (codes, others))
    between_views = (first - second).square().sum(dim=1).mean()
    return (between_views / mean_square_distance(first)).sqrt().item()


def mean_square_distance(codes: Tensor) -> Tensor:
    """The mean, over all pairs of different codes [N, D], of their squared distance: a scalar."""
    return 2 * codes.var(dim=0).sum()  # as the unbiased variance has it


def sigreg_statistics(codes: Tensor, seed: int = 0) -> tuple[float, float, int]:
    """The SIGReg statistic of codes, that of as many true N(0, I) codes in the same directions, and of how many.

    Each position of a spatial latent is one sample. Only the first GAUSSIAN_CODES are used: away from N(0, I) the
    statistic grows with their number, so that figures compare only where that is the same.
    """
    codes = codes[:GAUSSIAN_CODES].float()
    statistics = []
    for some in (codes, torch.randn(codes.shape, generator=generator(seed, "metrics", 1))):
        # Of a spatial latent one row of positions at a time: all at once would take gigabytes.
        rows = [some] if some.dim() == 2 else some.split(1, dim=2)
        statistics.append(sum(sigreg(row, generator(seed, "metrics")).item() for row in rows) / len(rows))
    return *statistics, len(codes)


def class_difference(codes: Tensor, labels: Tensor) -> Tensor:
    """An attribute's direction, the mean code with it less the mean code without it: [N, D] and bool [N] → [D]."""
    return codes[labels].mean(dim=0) - codes[~labels].mean(dim=0)


def separation(codes: Tensor, labels: Tensor) -> float:
    """How well an attribute's direction separates codes [N, D] with it from those without it (labels bool [N]).

    This is the AUROC of every second code along the direction of the others, chance being 0.5; NaN where either half
    lacks one of the classes.
    """
    fitted, judged = labels[::2], labels[1::2]
    if not all(half.any() and not half.all() for half in (fitted, judged)):
        return float("nan")
    return float(roc_auc_score(judged.numpy(), (codes[1::2] @ class_difference(codes[::2], fitted)).numpy()))


def nearest_others(codes: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances [Q, count], ascending, and indices of the nearest other codes; `queries` are int64 [Q]."""
    # Differences, not products: these lose what is small beside the codes' own length.
    distances = torch.cdist(codes[queries], codes, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(queries)), queries] = torch.inf
    ascending, indices = distances.sort(dim=1, stable=True)
    return ascending[:, :count], indices[:, :count]
