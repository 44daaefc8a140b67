"""Whether a run is well: codes that have collapsed, and numbers that are none any more."""

import math
import sys

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from leae.held_out import BATCH, evaluating
from leae.parallel import rank
from leae.prep_data import to_float

DEAD_SHARE = 0.01  # a dimension that deviates by less than this share of the liveliest one is dead
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


def first_not_finite(tensors: dict[str, Tensor]) -> tuple[str, float] | None:
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
