"""Whether codes have collapsed: how many directions they really use, and which numbers of theirs say nothing."""

import math

import torch
from torch import Tensor

from leae.randomness import generator
from leae.sigreg import sigreg

DEAD_SHARE = 0.01  # a dimension that deviates by less than this share of the liveliest one is dead
GAUSSIAN_CODES = 1000  # that `gaussianity` takes, at most


def samples_of(codes: Tensor) -> Tensor:
    """Codes [N, D], or those of a spatial latent [N, D, H, W], as float64 [samples, D]: each position is a sample."""
    return codes.detach().double().movedim(1, -1).flatten(0, -2)


def effective_rank(codes: Tensor) -> float:
    """How many directions codes use, were they used alike: exp of the entropy of their covariance's eigenvalues.

    The eigenvalues are taken as shares of their sum. After Roy and Vetterli (2007), "The effective rank".

    Args:
        codes: finite numbers [N, D] or [N, D, H, W].

    Returns:
        From 1, all codes on one line, to D, as much deviation in every direction; 0 if all codes are the same.
    """
    samples = samples_of(codes)
    if (samples == samples[0]).all():  # their mean may differ from them by a rounding
        return 0.0
    variances = spectrum(codes).square()
    shares = variances / variances.sum()
    return math.exp(-torch.special.xlogy(shares, shares).sum().item())


def dead_dimensions(codes: Tensor) -> int:
    """How many dimensions hardly deviate: by no more than 1 % of what the liveliest one does.

    Args:
        codes: finite numbers [N, D] or [N, D, H, W].

    Returns:
        From 0 to D − 1, or D if all codes are the same.
    """
    samples = samples_of(codes)
    if (samples == samples[0]).all():
        return samples.shape[1]
    deviations = samples.std(dim=0, correction=0)
    return int((deviations <= DEAD_SHARE * deviations.max()).sum())


def spectrum(codes: Tensor) -> Tensor:
    """Standard deviations along the codes' principal directions, the largest first: float64 [D].

    Args:
        codes: finite numbers [N, D] or [N, D, H, W].
    """
    samples = samples_of(codes)
    centred = samples - samples.mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(samples)).clamp(min=0)
    return eigenvalues.sqrt().flip(0)


def drift(codes: Tensor, others: Tensor) -> float:
    """How far the codes of two views of an image are from each other, were 1 the distance between two images' codes.

    Both distances are root mean squares; that between images is over all pairs of different ones of `codes`.

    Args:
        codes: float [N, D] or [N, D, H, W].
        others: the same shape, codes of other views of the same images, in the same order.

    Returns:
        0 if the views do not differ to the encoder; NaN if the codes do not differ at all.
    """
    first, second = (part.detach().double().flatten(1) for part in (codes, others))
    between_views = (first - second).square().sum(dim=1).mean()
    between_images = 2 * first.var(dim=0).sum()  # the mean over pairs, as the unbiased variance has it
    return (between_views / between_images).sqrt().item()


def gaussianity(codes: Tensor, seed: int = 0) -> tuple[float, float, int]:
    """How far codes are from N(0, I): their SIGReg statistic, and that of as many true N(0, I) codes.

    The first GAUSSIAN_CODES alone are taken: away from N(0, I) the statistic grows with their number, so that figures
    compare where that is the same.

    Args:
        codes: float [N, D] or [N, D, H, W].
        seed: of the directions, the same for both, and of the true codes.

    Returns:
        The statistic of the codes, that of the true ones, and how many codes they are taken of.
    """
    codes = codes[:GAUSSIAN_CODES].float()
    true = torch.randn(codes.shape, generator=generator(seed, "metrics", 1))
    return _sigreg(codes, seed), _sigreg(true, seed), len(codes)


def _sigreg(codes: Tensor, seed: int) -> float:
    """SIGReg, of a spatial latent a row of positions at a time: the statistic of all at once takes gigabytes."""
    rows = [codes] if codes.dim() == 2 else codes.split(1, dim=2)
    return sum(sigreg(row, generator(seed, "metrics")).item() for row in rows) / len(rows)
