"""SIGReg: how far a batch of codes is from an isotropic standard Gaussian.

The Epps–Pulley statistic on random one-dimensional projections, after LeJEPA (Balestriero and LeCun, 2025,
arXiv 2511.08544).
"""

import torch
from torch import Tensor

DIRECTIONS = 256  # random unit directions per call
KNOTS = 17  # evenly spaced points t on [0, LAST_KNOT] where the characteristic functions are compared
LAST_KNOT = 3.0


def draw_directions(dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random unit directions, uniform on the sphere: [dim, DIRECTIONS] on the generator's device."""
    directions = torch.randn(dim, DIRECTIONS, generator=generator, device=generator.device, dtype=dtype)
    return directions / directions.norm(dim=0)


def epps_pulley(projections: Tensor) -> Tensor:
    """The Epps–Pulley statistic of samples against N(0, 1), one for every column of every leading index.

        N · ∫ |φ̂(t) − exp(−t²/2)|² · exp(−t²/2) dt,   φ̂(t) = mean over the N samples of exp(i·t·sample)

    by the trapezoid rule on KNOTS knots over [0, LAST_KNOT], doubled for the symmetric half.

    Args:
        projections: float [..., N, K].

    Returns:
        float [..., K]. About 1 for N(0, 1) samples at any N; proportional to N for any other distribution.
    """
    count = projections.shape[-2]
    knots = torch.linspace(0, LAST_KNOT, KNOTS, device=projections.device, dtype=projections.dtype)
    gaussian = torch.exp(-knots.square() / 2)  # the target's characteristic function, and the window as well
    weights = gaussian * (2 * LAST_KNOT / (KNOTS - 1))
    weights[[0, -1]] /= 2  # the trapezoid rule's ends

    statistic = torch.zeros_like(projections[..., 0, :])
    for t, target, weight in zip(knots, gaussian, weights, strict=True):  # one knot at a time: memory N·K, not N·K·17
        real = torch.cos(t * projections).mean(dim=-2)
        imaginary = torch.sin(t * projections).mean(dim=-2)
        statistic = statistic + weight * ((real - target).square() + imaginary.square())
    return count * statistic


def sigreg(codes: Tensor, generator: torch.Generator) -> Tensor:
    """SIGReg of a batch of codes: the Epps–Pulley statistic averaged over fresh random directions.

    Args:
        codes: float [N, C], or [N, C, H, W] for a spatial latent, whose every position is a sample of N codes.
        generator: draws the directions; lives on the codes' device.

    Returns:
        A scalar, always computed in float32 (float64 for float64 codes), also under autocast.
    """
    with torch.autocast(codes.device.type, enabled=False):
        if codes.dtype != torch.float64:
            codes = codes.float()
        directions = draw_directions(codes.shape[1], generator, codes.dtype)
        samples = codes.flatten(2).permute(2, 0, 1) if codes.dim() == 4 else codes  # [H·W, N, C] or [N, C]
        return epps_pulley(samples @ directions).mean()
