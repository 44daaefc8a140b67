"""The whitened ruler's space, in which all directions of the real views' codes weigh nearly the same.

The codes' spectrum falls steeply: the mean squared error of two codes looks at a dozen directions and hardly at the
rest.
"""

import torch
from torch import Tensor, nn

from leae.distributed import all_reduce_mean
from leae.errors import UsageError, require_in
from leae.layers import float64_device

DECAY = 0.98  # of the moving average, a step
LEAST = 1e-12  # of an eigenvalue: rounding makes some negative, and codes that are all the same have none


class Whitening(nn.Module):
    """Codes times W, by a moving average of the covariance C [D, D] of the codes of one kind of real view.

        C = Q · diag(v) · Qᵀ      W = s · Q · diag((v / v̄ + ε)^−½) · Qᵀ      s so that trace(W C Wᵀ) / D = 1

    v̄ is the mean of the eigenvalues v, and ε above 0 (UsageError) a share of it: a small one makes all directions
    count alike, a large one leaves codes as they are but for their scale. Whitened real codes have a variance of 1 on
    average. The average is bias-corrected as Adam's are. It is part of the module's state, so that a resumed run goes
    on with it, and is the identity before the first update. C and W are float64, which autocast and TF32 leave alone.
    """

    def __init__(self, dim: int, epsilon: float, device: torch.device):
        super().__init__()
        require_in("(0, inf)", RULER_EPSILON=epsilon)
        self.epsilon = epsilon
        float64 = {"dtype": torch.float64, "device": float64_device(device)}
        self.register_buffer("covariance", torch.eye(dim, **float64))
        self.register_buffer("weight", torch.zeros((), **float64))  # Σ DECAY^i over updates

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Fold in the covariance of a step's real codes, [N, D] or [N, D, H, W], over batch, positions, processes."""
        samples = codes.to(self.covariance).movedim(1, -1).flatten(0, -2)
        centred = samples - all_reduce_mean(samples.mean(dim=0))
        self.weight.mul_(DECAY).add_(1)
        self.covariance.lerp_(all_reduce_mean(centred.T @ centred / len(samples)), 1 / self.weight)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """W [D, D], float64. A covariance that is not finite is a UsageError."""
        try:
            v, Q = torch.linalg.eigh(self.covariance)
        except torch.linalg.LinAlgError as error:
            raise UsageError("the judge's codes are not finite, training has diverged; lower LEARNING_RATE") from error
        v = v.clamp(min=LEAST)
        squares = 1 / (v / v.mean() + self.epsilon)
        return Q * (squares / (squares * v).mean()).sqrt() @ Q.T


def whiten(codes: Tensor, matrix: Tensor) -> Tensor:
    """Codes [N, D] or [N, D, H, W], float32 or float64, times W [D, D]: in their own dtype, also under autocast."""
    with torch.autocast(codes.device.type, enabled=False):
        return (codes.movedim(1, -1) @ matrix.to(codes)).movedim(-1, 1)
