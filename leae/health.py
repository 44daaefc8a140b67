"""Whether codes have collapsed: how many directions they really use, and which numbers of theirs say nothing."""

import math

import torch
from torch import Tensor

DEAD_SHARE = 0.01  # a dimension that deviates by less than this share of the liveliest one is dead


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
    centred = samples - samples.mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    shares = eigenvalues / eigenvalues.sum()
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
