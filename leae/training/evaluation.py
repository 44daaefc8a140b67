"""How well a model reconstructs images that it was not trained on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from leae.autoencoder import BaseAutoencoder
from leae.data.prepare import to_float
from leae.masking import add_noise, draw_boxes, fill_squares, mask_side
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


class MaskedViews:
    """The masked views that every evaluation uses: an image's square is the same for every run and every run's seed.

    Args:
        mask_ratio: share of the area that is masked.
        seed: of the squares' places.
    """

    name = "masked"

    def __init__(self, mask_ratio: float, seed: int = 0):
        self.mask_ratio = mask_ratio
        self.seed = seed

    def corners(self, count: int, size: int, first: int = 0) -> Tensor:
        """Row and column of the top left pixel of each image's square: int64 [count, 2] on the CPU."""
        drawn = draw_boxes(DRAWN, mask_side(size, self.mask_ratio), size, generator(self.seed, "evaluation"))
        return drawn[torch.arange(first, first + count) % DRAWN]

    def __call__(self, images: Tensor, first: int = 0) -> Tensor:
        """The views of images [N, C, S, S] in the order of their split, of which the first has the number `first`."""
        size = images.shape[-1]
        corners = self.corners(len(images), size, first)
        return fill_squares(images, corners.to(images.device), mask_side(size, self.mask_ratio))


class NoisyViews:
    """The noisy views that every evaluation uses: an image's noise is the same for every run and every seed.

    Args:
        deviation: σ of the noise, in the units of the pixels.
    """

    name = "noisy"

    def __init__(self, deviation: float):
        self.deviation = deviation

    def __call__(self, images: Tensor, first: int = 0) -> Tensor:
        """The views of images [N, C, S, S] in the order of their split, of which the first has the number `first`."""
        numbers = range(first, first + len(images))
        noise = [torch.randn(images.shape[1:], generator=generator(0, "noise", number)) for number in numbers]
        return add_noise(images, self.deviation, torch.stack(noise).to(images.device))


Views = MaskedViews | NoisyViews


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards it is in the mode it was in."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions by the model in evaluation mode, which is left in the mode it was in."""
    with evaluating(model):
        return torch.cat([model(batch) for batch in images.split(BATCH)])


def grid_rows(model: nn.Module, images: Tensor, views: Views) -> dict[str, Tensor]:
    """The rows of a grid: originals, their masked or noisy views, and the model's reconstructions of both."""
    corrupted = views(images)
    return {
        "original": images,
        views.name: corrupted,
        "reconstruction": reconstruct(model, images),
        f"from {views.name}": reconstruct(model, corrupted),
    }


def samples(model: BaseAutoencoder, count: int, seed: int, device: torch.device) -> Tensor:
    """Images decoded from codes of N(0, I), the same codes at every call: float [count, C, S, S] in [0, 1]."""
    latent = torch.randn(count, *model.latent_shape, generator=generator(seed, "samples")).to(device)
    with evaluating(model):
        return model.decode(latent)


def held_out_psnr(model: nn.Module, images: np.ndarray, views: Views, device: torch.device) -> dict[str, float]:
    """Mean PSNR of the reconstructions of clean images and of their corrupted views, against the images themselves.

    Args:
        model: images to reconstructions.
        images: uint8 [N, S, S, C].
        views: masks or noise.
        device: where the model is.

    Returns:
        "psnr_clean" and "psnr_masked" or "psnr_noisy", in decibels.
    """
    return {
        "psnr_clean": _mean_psnr(images, lambda batch, first: reconstruct(model, batch), device),
        f"psnr_{views.name}": _mean_psnr(images, lambda batch, first: reconstruct(model, views(batch, first)), device),
    }


def mean_image(images: np.ndarray) -> Tensor:
    """The mean of images uint8 [N, S, S, C]: float [C, S, S] in [0, 1]."""
    total = sum(images[i : i + 4096].sum(axis=0, dtype=np.float64) for i in range(0, len(images), 4096))
    return torch.from_numpy(total / len(images)).permute(2, 0, 1).float() / 255


def summary(quality: dict[str, float], train: np.ndarray, test: np.ndarray, views: Views) -> str:
    """A line with a model's held-out PSNR beside that of two answers which need no model.

    Args:
        quality: of the model, from `held_out_psnr`.
        train: uint8 [N, S, S, C], of which the mean image is one of these answers.
        test: uint8 [N, S, S, C], the held-out images.
        views: masks or noise; a corrupted image as it is, is the other answer.
    """
    mean = mean_image(train)
    return (
        f"held-out PSNR: {quality['psnr_clean']:.2f} dB for clean, {quality[f'psnr_{views.name}']:.2f} dB for "
        f"{views.name} images; the {views.name} images as they are {_mean_psnr(test, views):.2f} dB, "
        f"the training set's mean image {_mean_psnr(test, lambda batch, first: mean):.2f} dB"
    )


def _mean_psnr(
    images: np.ndarray, answer: Callable[[Tensor, int], Tensor], device: torch.device | str = "cpu"
) -> float:
    """Mean PSNR of `answer`, a function of a batch and of its first image's number, against the images."""
    total = 0.0
    for first in range(0, len(images), BATCH):
        batch = to_float(images[first : first + BATCH], device)
        total += psnr(answer(batch, first), batch).sum().item()
    return total / len(images)
