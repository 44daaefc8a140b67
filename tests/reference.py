"""The method without any speed-up, as one writes it first: what tests and `bench` compare the step with.

Every view has its own pass, upsampling comes before convolution, a crop is cut out of its image, SIGReg is a tensor of
samples × directions × knots. The functions take the weights of the same modules that the fast step uses.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.autoencoder import Autoencoder, Decoder, DownBlock, Encoder, UpBlock
from leae.judge import Judge
from leae.masking import crop_side, draw_boxes, mask_side
from leae.objective import SelfTeachingObjective
from leae.sigreg import KNOTS, LAST_KNOT, draw_directions
from leae.whitening import COVARIANCE_DECAY, Whitening


def down_block(block: DownBlock, x: Tensor) -> Tensor:
    residual = F.silu(F.conv2d(x, block.conv1.weight, block.conv1.bias, stride=2, padding=1))
    residual = F.conv2d(residual, block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = F.pixel_unshuffle(x, 2).unflatten(1, (residual.shape[1], -1)).mean(dim=2)
    return F.silu(residual + shortcut)


def up_block(block: UpBlock, x: Tensor) -> Tensor:
    upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
    residual = F.silu(F.conv2d(upsampled, block.conv1.weight, block.conv1.bias, padding=1))
    residual = F.conv2d(residual, block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = F.conv2d(upsampled, block.shortcut.weight, block.shortcut.bias)
    return F.silu(residual + shortcut)


def project(encoder: Encoder, images: Tensor) -> Tensor:
    """Codes before normalisation."""
    stem = F.silu(F.conv2d(images, encoder.stem.weight, encoder.stem.bias, stride=2, padding=1))
    return encoder.to_latent(down_block(encoder.down2, down_block(encoder.down1, stem)))


def decode(decoder: Decoder, latent: Tensor) -> Tensor:
    x = up_block(decoder.up2, up_block(decoder.up1, decoder.from_latent(latent)))
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    return torch.sigmoid(F.conv2d(x, decoder.head.weight, decoder.head.bias, padding=1))


def mask(images: Tensor, corners: Tensor, side: int) -> Tensor:
    masked = images.clone()
    for image, (top, left) in zip(masked, corners.tolist(), strict=True):
        image[:, top : top + side, left : left + side] = image.mean(dim=(1, 2))[:, None, None]
    return masked


def crop(images: Tensor, corners: Tensor, side: int) -> Tensor:
    places = zip(images, corners.tolist(), strict=True)
    boxes = torch.stack([image[:, top : top + side, left : left + side] for image, (top, left) in places])
    return F.interpolate(boxes, images.shape[-2:], mode="bilinear", align_corners=True)


def normalise(codes: Tensor, others: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm of codes with the batch statistics of others."""
    over = (0, *range(2, codes.dim()))
    mean, variance = others.mean(over, keepdim=True), others.var(over, correction=0, keepdim=True)
    normalised = (codes - mean) / (variance + norm.eps).sqrt()
    if norm.weight is None:
        return normalised
    return normalised * norm.weight.view(mean.shape) + norm.bias.view(mean.shape)


def whitening(average: Whitening, real: Tensor) -> Tensor:
    """W [D, D] for codes of a kind of real view, which are folded into the average of their covariance."""
    samples = real.double().transpose(0, 1).flatten(1)  # [D, N·H·W]
    past = COVARIANCE_DECAY * average.weight
    covariance = (past * average.covariance + torch.cov(samples, correction=0)) / (past + 1)
    average.covariance, average.weight = covariance, past + 1
    v, Q = torch.linalg.eigh(covariance)
    W = Q @ torch.diag((v / v.mean() + average.epsilon) ** -0.5) @ Q.T
    return W / (torch.trace(W @ covariance @ W.T) / len(W)).sqrt()


def sigreg(codes: Tensor, generator: torch.Generator) -> Tensor:
    directions = draw_directions(codes.shape[1], generator, codes.dtype)
    t = torch.linspace(0, LAST_KNOT, KNOTS, dtype=codes.dtype, device=codes.device)
    gaussian = torch.exp(-(t**2) / 2)
    samples = codes.flatten(2).permute(2, 0, 1) if codes.dim() == 4 else codes[None]  # [positions, N, C]
    angles = (samples @ directions)[..., None] * t  # [positions, N, directions, knots]
    error = (angles.cos().mean(dim=1) - gaussian) ** 2 + angles.sin().mean(dim=1) ** 2
    return 2 * codes.shape[0] * torch.trapezoid(error * gaussian, t).mean()


def reference_objective(
    objective: SelfTeachingObjective, model: Autoencoder, judge: Judge, images: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The terms of `SelfTeachingObjective`, from the same draws: mask, boxes of each ratio, directions of each view."""
    count, size, T = len(images), images.shape[-1], judge.encoder
    rows = {"clean": torch.arange(count), "masked": torch.arange(count)}
    if objective.kind == "alternating":
        rows = {"clean": torch.arange(0, count, 2), "masked": torch.arange(1, count, 2)}
    views = {"clean": images[rows["clean"]]}
    if objective.kind != "crop":
        side = mask_side(size, objective.mask_ratio)
        masked = images[rows["masked"]]
        views["masked"] = mask(masked, draw_boxes(len(masked), side, size, generator), side)
    z = {view: model.encoder.norm(project(model.encoder, shown)) for view, shown in views.items()}
    x = {view: decode(model.decoder, code) for view, code in z.items()}

    W = {}  # of each kind of view, which is folded into its average once a step

    def measured(codes: Tensor, real: Tensor, ratio: float) -> Tensor:
        """The judge's codes, normalised beside the real view's."""
        normalised = normalise(codes, codes if judge.norm == "own" else real, T.norm)
        if judge.norm != "whitened":
            return normalised
        if ratio not in W:
            W[ratio] = whitening(judge.whitenings[judge.whitened_ratios.index(ratio)], normalise(real, real, T.norm))
        return torch.einsum("ij,nj...->ni...", W[ratio].to(codes.dtype), normalised)

    terms = {}
    if objective.kind == "symmetric":
        real = project(T, images).detach()
        terms["consistency"] = F.mse_loss(*(measured(project(T, shown), real, 1.0) for shown in x.values()))
    for ratio in objective.crop_ratios:
        side = crop_side(size, ratio)
        corners = draw_boxes(count, side, size, generator) if side < size else torch.zeros(count, 2, dtype=int)
        real = project(T, crop(images, corners, side)).detach()
        target = measured(real, real, ratio).detach()
        for view in x:
            codes = project(T, crop(x[view], corners[rows[view]], side))
            terms[f"{view}_crop_{ratio}"] = F.mse_loss(measured(codes, real, ratio), target[rows[view]])
    latent = sum(terms.values()) / len(terms)
    regularity = objective.sigreg_weight * sum(sigreg(code, generator) for code in z.values()) / len(z)
    return {"loss": latent + regularity, "latent": latent, "sigreg": regularity, **terms}
