"""Whether a run is well: codes that have collapsed, and numbers that are none any more."""

import math
import sys

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from leae.data.prepare import to_float
from leae.distributed import rank
from leae.randomness import generator
from leae.sigreg import sigreg
from leae.training.evaluation import BATCH, evaluating

DEAD_SHARE = 0.01  # a dimension that deviates by less than this share of the liveliest one is dead
GAUSSIAN_CODES = 1000  # that `gaussianity` takes, at most
NEAR_ONE = 1.5  # codes of a smaller effective rank lie almost on a line
WATCHED = 1024  # held-out images that are enough to tell


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


class CollapseWatch:
    """Warns of codes that collapse, once when it begins; again only if they recovered in between.

    Args:
        images: uint8 [N, S, S, C], held out, of which the first 1,024 are looked at.
        device: where the models are.
    """

    def __init__(self, images: np.ndarray, device: torch.device):
        self.images = images[:WATCHED]
        self.device = device
        self.collapsed = set()

    def look(self, step: int, **encoders: nn.Module) -> None:
        """Warn of those whose codes have collapsed since the last look: `watch.look(400, model=model, judge=judge)`.

        Args:
            step: how many optimizer steps they have had.
            **encoders: modules with an `encode`, by what they are called in the warning.
        """
        for name, module in encoders.items():
            with evaluating(module):
                batches = [self.images[first : first + BATCH] for first in range(0, len(self.images), BATCH)]
                codes = torch.cat([module.encode(to_float(batch, self.device)) for batch in batches])
            if not codes.isfinite().all():
                continue  # which is not for a warning: nothing of it will be saved
            size, directions, dead = codes.shape[1], effective_rank(codes), dead_dimensions(codes)
            signs = [f"{dead} of {size} dimensions are dead"] if dead else []
            if size > 1 and directions < NEAR_ONE:
                signs.append(f"their effective rank is {directions:.2f} of {size}")
            if signs and name not in self.collapsed and rank() == 0:
                text = f"warning: the {name}'s codes have collapsed: after step {step:,} {' and '.join(signs)}"
                tqdm.write(text, file=sys.stderr)
            (self.collapsed.add if signs else self.collapsed.discard)(name)


def first_non_finite(tensors: dict[str, Tensor]) -> tuple[str, float] | None:
    """The name of the first tensor with a number that is not finite, and that number; None if all are finite."""
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not tensors:
        return None
    # One answer for all of them, so that the host waits for the device once.
    device = next(iter(tensors.values())).device
    finite = torch.stack([tensor.detach().isfinite().all().to(device) for tensor in tensors.values()])
    for (name, tensor), fine in zip(tensors.items(), finite.tolist(), strict=True):
        if not fine:
            return name, tensor[~tensor.isfinite()][0].item()
    return None
