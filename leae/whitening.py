"""The whitened norm's space, in which all directions of the real views' codes weigh nearly the same.

The codes' spectrum falls steeply: the mean squared error of two codes looks at a dozen directions and hardly at the
rest.
"""

import torch
from torch import Tensor, nn

from leae.distributed import all_reduce_mean
from leae.errors import require_in
from leae.layers import float64_device

COVARIANCE_DECAY = 0.98  # of the moving average, a step
JITTER = 1e-12  # added to the variances, as codes that are all the same have none


class Whitening(nn.Module):
    """Codes times W, by a moving average of the covariance C [D, D] of the codes of one kind of real view.

        Wᵀ W = s² · (C / v̄ + ε)⁻¹      v̄ = trace(C) / D      s so that trace(W C Wᵀ) / D = 1

    ε, above 0 (else ValueError), is a share of the codes' mean variance v̄: a small one makes all directions count
    alike, a large one leaves codes as they are but for their scale. Whitened real codes have a variance of 1 on
    average. The moving average is bias-corrected as Adam's are. It is part of the module's state, so that a resumed run
    continues it, and is the identity before the first update. C and W are float64, which autocast and TF32 leave alone.

    All W with this product give the same distances. The triangular one needs no eigenvalues, and on a GPU the host
    need not wait.
    """

    def __init__(self, dim: int, epsilon: float, device: torch.device):
        super().__init__()
        require_in("(0, inf)", epsilon=epsilon)
        self.epsilon = epsilon
        float64 = {"dtype": torch.float64, "device": float64_device(device)}
        self.register_buffer("covariance", torch.eye(dim, **float64))
        self.register_buffer("weight", torch.zeros((), **float64))  # Σ COVARIANCE_DECAY^i over updates

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Fold in the covariance of a step's real codes, [N, D] or [N, D, H, W], over batch, positions, processes."""
        samples = codes.to(self.covariance).movedim(1, -1).flatten(0, -2)
        centred = samples - all_reduce_mean(samples.mean(dim=0))
        self.weight.mul_(COVARIANCE_DECAY).add_(1)
        self.covariance.lerp_(all_reduce_mean(centred.T @ centred / len(samples)), 1 / self.weight)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """W [D, D], float64, not finite where codes were not."""
        one = torch.eye(len(self.covariance), dtype=self.covariance.dtype, device=self.covariance.device)
        C = self.covariance + JITTER * one
        L = torch.linalg.cholesky_ex(C / C.diagonal().mean() + self.epsilon * one).L
        W = torch.linalg.solve_triangular(L, one, upper=False)
        return W / (W @ C * W).sum(dim=1).mean().sqrt()


def whiten(codes: Tensor, matrix: Tensor) -> Tensor:
    """Codes [N, D] or [N, D, H, W], float32 or float64, times W [D, D]: in their own dtype, also under autocast."""
    with torch.autocast(codes.device.type, enabled=False):
        return (codes.movedim(1, -1) @ matrix.T.to(codes)).movedim(-1, 1)
