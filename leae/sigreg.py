"""SIGReg: how far a batch of codes is from an isotropic standard Gaussian.

The Epps–Pulley statistic on random one-dimensional projections, after LeJEPA (Balestriero and LeCun, 2025,
arXiv 2511.08544).
"""

import torch
from torch import Tensor

from leae.distributed import all_reduce_mean, all_reduce_sum, world_size
from leae.layers import at_least_float32

DIRECTIONS = 256  # random unit directions per call
KNOTS = 17  # evenly spaced points t on [0, LAST_KNOT] where the characteristic functions are compared
LAST_KNOT = 3.0


def draw_directions(dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random unit directions, uniform on the sphere: [dim, DIRECTIONS] on the generator's device."""
    directions = torch.randn(dim, DIRECTIONS, generator=generator, device=generator.device, dtype=dtype)
    return directions / directions.norm(dim=0)


class EppsPulley(torch.autograd.Function):
    """`EppsPulley.apply` is the Epps–Pulley statistic of samples against N(0, 1): [..., N, K] → [..., K].

        N · ∫ |φ̂(t) − exp(−t²/2)|² · exp(−t²/2) dt,   φ̂(t) = mean over the N samples of exp(i·t·sample)

    by the trapezoid rule on KNOTS knots over [0, LAST_KNOT], doubled for the symmetric half. It is about 1 for samples
    of N(0, 1) at any N, and grows with N for any other distribution. Each process gives its rows of the N samples.

    The knots t_k = k·δ are evenly spaced, so that exp(i·t_k·x) is the k-th power of z = exp(i·δ·x): a product a knot.
    With e_k = φ̂(t_k) − exp(−t_k²/2) and the weights w_k, the statistic's derivative by a sample x is

        Re Σ_k 2·w_k · conj(e_k) · i·t_k · z^k  =  Im Σ_k 2·w_k · t_k · e_k · conj(z)^k,

    a polynomial in conj(z), by Horner's rule another product a knot. Nothing but conj(z) and the e_k is kept for it, so
    that a second derivative is refused: it would silently be wrong.
    """

    @staticmethod
    def forward(ctx, projections: Tensor) -> Tensor:
        knots = torch.linspace(0, LAST_KNOT, KNOTS, device=projections.device, dtype=projections.dtype)
        gaussian = torch.exp(-knots.square() / 2)  # the target's characteristic function, and the window as well
        weights = gaussian * (2 * LAST_KNOT / (KNOTS - 1))
        weights[:: KNOTS - 1] /= 2  # the trapezoid rule's ends

        angles = projections * knots[1]
        z = torch.complex(angles.cos(), angles.sin())  # [..., N, K]
        power, errors = torch.ones_like(z), []
        for k in range(KNOTS):
            errors.append(power.mean(dim=-2) - gaussian[k])
            power *= z
        error = all_reduce_mean(torch.view_as_real(torch.stack(errors)))  # [KNOTS, ..., K, 2]
        weights = weights.view(KNOTS, *[1] * (projections.dim() - 1))
        ctx.save_for_backward(z.conj_physical(), error, 2 * weights * knots.view_as(weights))
        count = world_size() * projections.shape[-2]
        return count * (weights * error.square().sum(dim=-1)).sum(dim=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # create_graph; once_differentiable lets it pass where `gradient` is a constant
            raise RuntimeError("SIGReg has no second derivative; call backward without create_graph")
        conjugate, error, weights = ctx.saved_tensors
        # Every process has the same statistic in its loss, and each loss depends on these samples.
        weights = (weights * all_reduce_sum(gradient)).unsqueeze(-1)
        coefficients = torch.view_as_complex(error * weights).unsqueeze(-2)  # [KNOTS, ..., 1, K]
        total = coefficients[-1] * conjugate
        for coefficient in coefficients[1:-1].flip(0):  # that of knot 0 is 0
            total += coefficient
            total *= conjugate
        return total.imag


def sigreg(codes: Tensor, generator: torch.Generator) -> Tensor:
    """SIGReg of codes [N, C], or [N, C, H, W] whose every position is a sample of N codes: a scalar.

    It is `sigreg_along` random directions, which the generator, on the codes' device, draws at every call.
    """
    return sigreg_along(draw_directions(codes.shape[1], generator, at_least_float32(codes).dtype), codes)


def sigreg_along(directions: Tensor, codes: Tensor) -> Tensor:
    """SIGReg of codes along directions [C, K] of their dtype: the Epps–Pulley statistic, averaged over them.

    It is float32 (float64 for float64 codes) even under autocast, which it disables. Two things are coarser: codes that
    autocast's layers have rounded to bfloat16, and on a GPU, where `find_device` allows TF32, the projections.
    """
    with torch.autocast(codes.device.type, enabled=False):
        codes = at_least_float32(codes)
        samples = codes.flatten(2).permute(2, 0, 1) if codes.dim() == 4 else codes  # [H·W, N, C] or [N, C]
        return EppsPulley.apply(samples @ directions).mean()
