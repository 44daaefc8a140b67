"""Batch normalisation over the global batch, of whatever batch is wanted, always in float32 or better.

Within one process this is PyTorch's own batch norm; where several processes share a batch, its mean and variance are
taken over all of them, with gradients through the sums.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.distributed import all_reduce_sum, world_size


def at_least_float32(codes: Tensor) -> Tensor:
    """bfloat16 or float16, as autocast makes them, to float32; others as they are."""
    return codes if codes.dtype in (torch.float32, torch.float64) else codes.float()


def batch_statistics(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the global batch and over positions: [N, D] or [N, D, H, W] → [D] each."""
    over = [0, *range(2, codes.dim())]
    if world_size() == 1:
        variance, mean = torch.var_mean(codes, dim=over, correction=0)
        return mean, variance
    count = world_size() * codes.numel() // codes.shape[1]
    mean = all_reduce_sum(codes.sum(over)) / count
    centred = codes - _along(mean, codes)
    return mean, all_reduce_sum(centred.square().sum(over)) / count


def normalise(codes: Tensor, ruler: Tensor, norm: nn.Module) -> Tensor:
    """A batch norm's formula, applied to codes with the batch statistics of the ruler, a batch of the same shape."""
    own, codes = ruler is codes, at_least_float32(codes)
    if own and world_size() == 1:
        return F.batch_norm(codes, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return _formula(codes, *batch_statistics(codes if own else at_least_float32(ruler)), norm)


def _formula(codes: Tensor, mean: Tensor, variance: Tensor, norm: nn.Module) -> Tensor:
    """Codes normalised with a mean and a variance [D], through which gradients flow where there are any."""
    if not mean.requires_grad:  # F.batch_norm is faster, and takes them for constants
        return F.batch_norm(codes, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)
    scaled = (codes - _along(mean, codes)) * _along((variance + norm.eps).rsqrt(), codes)
    return scaled if norm.weight is None else scaled * _along(norm.weight, codes) + _along(norm.bias, codes)


class _OverTheGlobalBatch:
    """What makes one of PyTorch's batch norms take its statistics over all processes' rows."""

    def forward(self, codes: Tensor) -> Tensor:
        codes = at_least_float32(codes)
        if not self.training or world_size() == 1:
            return super().forward(codes)
        mean, variance = batch_statistics(codes)
        count = world_size() * codes.numel() // codes.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # the unbiased one, as PyTorch does
        return _formula(codes, mean, variance, self)


class BatchNorm1d(_OverTheGlobalBatch, nn.BatchNorm1d):
    """Over the batch: [N, D]."""


class BatchNorm2d(_OverTheGlobalBatch, nn.BatchNorm2d):
    """Over the batch and positions: [N, D, H, W]."""


def _along(values: Tensor, codes: Tensor) -> Tensor:
    """One value per channel, shaped to broadcast against codes."""
    return values.view(1, -1, *[1] * (codes.dim() - 2))
