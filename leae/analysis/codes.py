"""Codes: their drift under masking, and their distance from a Gaussian.

Codes are finite, float [N, D], or [N, D, H, W] of a spatial latent, each position of which is one sample.
"""

import torch
from torch import Tensor

from leae.randomness import generator
from leae.sigreg import sigreg

GAUSSIAN_CODES = 1000  # that `gaussianity` takes, at most


def drift(codes: Tensor, others: Tensor) -> float:
    """The distance between the codes of two views of an image, as a share of that between two images' codes.

    Both distances are root mean squares, that between images over all pairs of different images in `codes`. 0 where the
    views do not differ to the encoder; NaN where no codes differ.
    """
    first, second = (part.detach().double().flatten(1) for part in (codes, others))
    between_views = (first - second).square().sum(dim=1).mean()
    between_images = 2 * first.var(dim=0).sum()  # the mean over pairs, as the unbiased variance has it
    return (between_views / between_images).sqrt().item()


def gaussianity(codes: Tensor, seed: int = 0) -> tuple[float, float, int]:
    """The SIGReg statistic of codes, that of as many true N(0, I) codes in the same directions, and of how many.

    Only the first GAUSSIAN_CODES are used: away from N(0, I) the statistic grows with their number, so that figures
    compare only where that is the same.
    """
    codes = codes[:GAUSSIAN_CODES].float()
    true = torch.randn(codes.shape, generator=generator(seed, "metrics", 1))
    return _sigreg(codes, seed), _sigreg(true, seed), len(codes)


def _sigreg(codes: Tensor, seed: int) -> float:
    """SIGReg, of a spatial latent one row of positions at a time: all at once would take gigabytes."""
    rows = [codes] if codes.dim() == 2 else codes.split(1, dim=2)
    return sum(sigreg(row, generator(seed, "metrics")).item() for row in rows) / len(rows)
