"""Whether a run is well: codes that collapse, numbers that are not finite."""

import math
import sys

import torch
from torch import Tensor, nn
from tqdm import tqdm

from leae.data.batches import Images, to_float
from leae.distributed import rank
from leae.layers import float64_device
from leae.training.evaluation import Views, evaluation_mode, references

DEAD_SHARE = 0.01  # a standard deviation of at most this share of the largest one is dead
COLLAPSED_RANK = 1.5  # codes of a smaller effective rank lie almost on a line
ENOUGH, MOST = 16, 1024  # fewest and most held-out images that are measured


def samples_of(codes: Tensor) -> Tensor:
    """Codes [N, D], or those of a spatial latent [N, D, H, W], as float64 [samples, D]: each position is a sample."""
    codes = codes.detach().to(float64_device(codes.device), torch.float64)
    return codes.movedim(1, -1).flatten(0, -2)


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


class CodeMonitor:
    """Measures how many directions codes use, and warns of a collapse when it begins.

    It takes training and held-out images, uint8 [N, S, S, C]. Of the latter the first 1,024 are used: fewer than 16
    cannot tell.
    """

    def __init__(self, train: Images, held_out: Images, views: Views, device: torch.device):
        self.images = to_float(held_out[:MOST], device) if len(held_out) >= ENOUGH else None
        self.references = references(train, held_out, views, device)
        self.collapsed = set()

    def __call__(self, step: int, **encoders: nn.Module) -> dict[str, float]:
        """Measure modules with an `encode` by name: `monitor(400, encoder=model, judge=judge)`.

        The measures are "<name>_effective_rank" and "<name>_dead_dimensions" of each whose codes are finite, and those
        of `references`.
        """
        measures = dict(self.references)
        for name, module in encoders.items() if self.images is not None else ():
            with evaluation_mode(module):
                codes = module.encode(self.images)
            if not codes.isfinite().all():
                continue  # nothing of it will be saved
            directions, dead, size = effective_rank(codes), dead_dimensions(codes), codes.shape[1]
            measures |= {f"{name}_effective_rank": directions, f"{name}_dead_dimensions": dead}
            collapsed = dead > 0 or (size > 1 and directions < COLLAPSED_RANK)
            if collapsed and name not in self.collapsed and rank() == 0:
                text = f"{dead} of {size} dimensions are dead and their effective rank is {directions:.2f}"
                tqdm.write(f"warning: the {name}'s codes have collapsed: after step {step:,} {text}", file=sys.stderr)
            (self.collapsed.add if collapsed else self.collapsed.discard)(name)
        return measures


def first_non_finite(tensors: dict[str, Tensor]) -> tuple[str, float] | None:
    """The name of the first tensor with a number that is not finite, and that number; None if all are finite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            return name, tensor[~tensor.isfinite()][0].item()
    return None
