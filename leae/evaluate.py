"""How well a model reconstructs images that it was not trained on."""

import numpy as np
import torch
from torch import Tensor, nn

from leae.masking import draw_boxes, fill_squares, mask_side
from leae.prep_data import to_float
from leae.randomness import generator

BATCH = 256  # images at a time
DRAWN = 65_536  # positions of masks that are drawn; more images than that begin again with the first


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in decibels: −10 · log₁₀ of its mean squared error.

    Args:
        images, references: float [N, C, S, S] in [0, 1].

    Returns:
        float [N].
    """
    return -10 * torch.log10((images - references).square().mean(dim=(1, 2, 3)))


def mask_for_evaluation(images: Tensor, mask_ratio: float, first: int = 0) -> Tensor:
    """The masked views that every evaluation uses: an image's square is the same for every run and every seed.

    Args:
        images: float [N, C, S, S], in the order of their split.
        mask_ratio: share of the area that is masked.
        first: number in the split of the first image.
    """
    size = images.shape[-1]
    side = mask_side(size, mask_ratio)
    corners = draw_boxes(DRAWN, side, size, generator(0, "evaluation"))
    corners = corners[torch.arange(first, first + len(images)) % DRAWN]
    return fill_squares(images, corners.to(images.device), side)


@torch.no_grad()
def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions by the model in evaluation mode, which is left in the mode it was in."""
    training = model.training
    model.eval()
    reconstructions = torch.cat([model(batch) for batch in images.split(BATCH)])
    model.train(training)
    return reconstructions


def grid_rows(model: nn.Module, images: Tensor, mask_ratio: float) -> dict[str, Tensor]:
    """The rows of a grid: originals, their masked views, and the model's reconstructions of both."""
    masked = mask_for_evaluation(images, mask_ratio)
    return {
        "original": images,
        "masked": masked,
        "reconstruction": reconstruct(model, images),
        "from masked": reconstruct(model, masked),
    }


def held_out_psnr(model: nn.Module, images: np.ndarray, mask_ratio: float, device: torch.device) -> dict[str, float]:
    """Mean PSNR of the reconstructions of clean and of masked views, against the images themselves.

    Args:
        model: images to reconstructions.
        images: uint8 [N, S, S, C].
        mask_ratio: share of the area that is masked.
        device: where the model is.

    Returns:
        "psnr_clean" and "psnr_masked", in decibels.
    """
    totals = {"psnr_clean": 0.0, "psnr_masked": 0.0}
    for start in range(0, len(images), BATCH):
        target = to_float(images[start : start + BATCH], device)
        masked = mask_for_evaluation(target, mask_ratio, start)
        totals["psnr_clean"] += psnr(reconstruct(model, target), target).sum().item()
        totals["psnr_masked"] += psnr(reconstruct(model, masked), target).sum().item()
    return {name: total / len(images) for name, total in totals.items()}


def mean_image_psnr(train: np.ndarray, test: np.ndarray) -> float:
    """Mean PSNR, in decibels, of answering every test image with the training set's mean image."""
    mean = sum(train[start : start + 4096].sum(axis=0, dtype=np.float64) for start in range(0, len(train), 4096))
    mean = torch.from_numpy(mean / len(train)).permute(2, 0, 1).float() / 255
    total = sum(psnr(mean, to_float(test[i : i + BATCH])).sum().item() for i in range(0, len(test), BATCH))
    return total / len(test)
