"""How well a model reconstructs images that it was not trained on, and the grids that show it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from leae.autoencoder import BATCH, BaseAutoencoder
from leae.data.batches import Images, to_float
from leae.distributed import all_reduce_sum, rank, world_size
from leae.errors import require_in
from leae.layers import float64_device
from leae.masking import add_noise, draw_boxes, fill_squares, mask_side
from leae.randomness import generator

AVERAGED = 20_000  # training images whose mean is taken
SAMPLE_ROWS = 5  # of a grid
DRAWN = 65_536  # masks that are drawn; image 65,537 has the first one again


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, −10 · log₁₀ of the mean squared error: two of float [N, C, S, S] → dB, float [N]."""
    return -10 * torch.log10((images - references).square().mean(dim=(1, 2, 3)))


class MaskedViews:
    """The masked views of every evaluation: an image's square is the same for every run and every run's seed.

    `mask_ratio` is the share of the area, `seed` that of the squares' places; raises what `mask_side` does.
    """

    name = "masked"

    def __init__(self, image_size: int, mask_ratio: float, seed: int = 0):
        self.side = mask_side(image_size, mask_ratio)
        self.image_size, self.mask_ratio, self.seed = image_size, mask_ratio, seed

    def corners(self, count: int, first: int = 0) -> Tensor:
        """Row and column of the top left pixel of each image's square: int64 [count, 2] on the CPU."""
        drawn = draw_boxes(DRAWN, self.side, self.image_size, generator(self.seed, "evaluation"))
        return drawn[torch.arange(first, first + count) % DRAWN]

    def __call__(self, images: Tensor, first: int = 0) -> Tensor:
        """The views of images [N, C, S, S], of which the first is number `first` of its split."""
        return fill_squares(images, self.corners(len(images), first).to(images.device), self.side)


class NoisyViews:
    """The noisy views of every evaluation, σ = `deviation`: an image's noise is the same for every run and seed."""

    name = "noisy"

    def __init__(self, deviation: float):
        require_in("(0, 1]", NOISE=deviation)
        self.deviation = deviation

    def __call__(self, images: Tensor, first: int = 0) -> Tensor:
        """The views of images [N, C, S, S], of which the first is number `first` of its split."""
        numbers = range(first, first + len(images))
        noise = [torch.randn(images.shape[1:], generator=generator(0, "noise", number)) for number in numbers]
        return add_noise(images, self.deviation, torch.stack(noise).to(images.device))


Views = MaskedViews | NoisyViews


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards it is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions of images [N, C, S, S] by the model in evaluation mode."""
    with evaluation_mode(model):
        return torch.cat([model(batch) for batch in images.split(BATCH)])


def grid_rows(model: nn.Module, images: Tensor, views: Views) -> dict[str, Tensor]:
    """The rows of a grid: originals, their masked or noisy views, and the model's reconstructions of both."""
    corrupted = views(images)
    rows = {"original": images, views.name: corrupted, "reconstruction": reconstruct(model, images)}
    return {**rows, f"from {views.name}": reconstruct(model, corrupted)}


def sample_images(model: BaseAutoencoder, count: int, seed: int, device: torch.device) -> Tensor:
    """Images decoded from codes of N(0, I), the same codes at every call: float [count, C, S, S] in [0, 1]."""
    latent = torch.randn(count, *model.latent_shape, generator=generator(seed, "samples")).to(device)
    with evaluation_mode(model):
        return model.decode(latent)


def sample_rows(model: BaseAutoencoder, columns: int, seed: int, device: torch.device) -> dict[str, Tensor]:
    """The rows of a grid of samples; see `sample_images`."""
    rows = sample_images(model, SAMPLE_ROWS * columns, seed, device).split(columns)
    return {f"samples {number}": row for number, row in enumerate(rows, start=1)}


def evaluate(model: nn.Module, images: Images, views: Views, device: torch.device) -> dict[str, float]:
    """Mean PSNR in dB of the reconstructions of images, uint8 [N, S, S, C], and of those of their views.

    They are "psnr_clean", and "psnr_masked" or "psnr_noisy", both against the images themselves. Processes that share
    a run share the images.
    """
    clean = _mean_psnr(images, lambda batch, first: reconstruct(model, batch), device)
    corrupted = _mean_psnr(images, lambda batch, first: reconstruct(model, views(batch, first)), device)
    return {"psnr_clean": clean, f"psnr_{views.name}": corrupted}


def mean_image(images: Images) -> Tensor:
    """The mean of images uint8 [N, S, S, C]: float [C, S, S] in [0, 1]."""
    parts = (np.asarray(images[first : first + 4096]) for first in range(0, len(images), 4096))
    total = sum(part.sum(axis=0, dtype=np.float64) for part in parts)
    return torch.from_numpy(total / len(images)).permute(2, 0, 1).float() / 255


def references(train: Images, held_out: Images, views: Views, device: torch.device) -> dict[str, float]:
    """The PSNR of two answers without a model: the views as they are, and the mean of up to 20,000 training images.

    Both arrays are uint8 [N, S, S, C]; the names are "psnr_masked_input", or "psnr_noisy_input", and "psnr_mean_image".
    """
    mean = mean_image(train[:AVERAGED]).to(device)
    as_it_is, average = (_mean_psnr(held_out, a, device) for a in (views, lambda batch, first: mean))
    return {f"psnr_{views.name}_input": as_it_is, "psnr_mean_image": average}


def summary(measures: dict[str, float], views: Views) -> str:
    """A line with what `evaluate` measured, beside `references`."""
    name, value = views.name, {name: f"{value:.2f} dB" for name, value in measures.items()}
    return (
        f"held-out PSNR: {value['psnr_clean']} clean, {value[f'psnr_{name}']} {name}; "
        f"without a model: {name} input {value[f'psnr_{name}_input']}, mean training image {value['psnr_mean_image']}"
    )


def _mean_psnr(images: Images, answer: Callable[[Tensor, int], Tensor], device: torch.device) -> float:
    """Mean PSNR of `answer`, a function of a batch and of its first image's number, against the images."""
    total = 0.0
    for first in range(rank() * BATCH, len(images), world_size() * BATCH):
        batch = to_float(images[first : first + BATCH], device)
        total += psnr(answer(batch, first), batch).sum().item()
    total = torch.tensor(total, dtype=torch.float64, device=float64_device(device))
    return all_reduce_sum(total).item() / len(images)
