"""What a set of codes is like: effective rank, dead dimensions, drift, distance from a Gaussian.

Codes, tensors or arrays, are finite: [N, D], or a spatial latent's [N, D, H, W], whose every position is a sample.
"""

import math

import numpy as np
import torch
from torch import Tensor

from leae.errors import require
from leae.layers import float64_device
from leae.randomness import generator
from leae.sigreg import sigreg

DEAD_SHARE = 0.01  # a standard deviation of at most this share of the largest one is dead
GAUSSIAN_CODES = 1000  # that `sigreg_statistics` takes, at most


def require_codes(codes: Tensor | np.ndarray) -> Tensor:
    """Codes without gradients; `UsageError` if they are not [N, D] or [N, D, H, W], or none."""
    codes = torch.as_tensor(codes).detach()
    require(codes.dim() in (2, 4) and codes.numel() > 0, "codes", [*codes.shape], "[N, D] or [N, D, H, W], N > 0")
    return codes


def samples_of(codes: Tensor) -> Tensor:
    """Codes [N, D], or those of a spatial latent [N, D, H, W], as float64 [samples, D]: each position is a sample."""
    samples = require_codes(codes).movedim(1, -1).flatten(0, -2)
    return samples.to(float64_device(samples.device), torch.float64)


def effective_rank(codes: Tensor) -> float:
    """The number of directions that codes use: exp of the entropy of their covariance's eigenvalues.

    The eigenvalues are taken as shares of their sum. From 1, all codes on one line, to D, as much deviation in every
    direction; 0 if all codes are the same. Codes are finite, [N, D] or [N, D, H, W]. After Roy and Vetterli (2007),
    "The effective rank".
    """
    samples = samples_of(codes)
    if (samples == samples[0]).all():  # their mean may differ from them by a rounding
        return 0.0
    centred = samples - samples.mean(dim=0)
    if len(centred) < centred.shape[1]:
        centred = centred.T  # whose products have the same eigenvalues, besides zeros, and there are fewer
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    shares = eigenvalues / eigenvalues.sum()
    return math.exp(-torch.special.xlogy(shares, shares).sum().item())


def dead_dimensions(codes: Tensor) -> int:
    """How many dimensions of codes, [N, D] or [N, D, H, W], deviate by at most 1 % of what the liveliest one does."""
    samples = samples_of(codes)
    if (samples == samples[0]).all():
        return samples.shape[1]
    deviations = samples.std(dim=0, correction=0)
    return int((deviations <= DEAD_SHARE * deviations.max()).sum())


def drift(codes: Tensor, others: Tensor) -> float:
    """The distance between the codes of two views of an image, as a share of that between two images' codes.

    Both distances are root mean squares, that between images over all pairs of different images in `codes`. 0 where the
    views do not differ to the encoder; NaN where no codes differ.
    """
    first, second = (require_codes(part).double().flatten(1) for part in (codes, others))
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
    codes = require_codes(codes)[:GAUSSIAN_CODES].cpu().float()
    statistics = []
    for some in (codes, torch.randn(codes.shape, generator=generator(seed, "metrics", 1))):
        # Of a spatial latent one row of positions at a time: all at once would take gigabytes.
        rows = [some] if some.dim() == 2 else some.split(1, dim=2)
        statistics.append(sum(sigreg(row, generator(seed, "metrics")).item() for row in rows) / len(rows))
    return *statistics, len(codes)
