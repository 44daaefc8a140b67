"""What is measured and shown of a run while it trains: PSNR of held-out images, health of the codes, grids."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from leae.autoencoder import BaseAutoencoder
from leae.codes import dead_dimensions, effective_rank
from leae.data.batches import PIECE, Images, chunks_of, to_float
from leae.distributed import all_reduce_sum, rank
from leae.judge import Judge
from leae.layers import float64_device, normalise
from leae.masking import add_noise, draw_boxes, fill_squares, mask_side
from leae.progress import progress_bar
from leae.randomness import generator

AVERAGED = 20_000  # training images whose mean is taken
SAMPLE_ROWS = 5  # of a grid
DRAWN = 65_536  # masks that are drawn; image 65,537 has the first one again
COLLAPSED_RANK = 1.5  # codes of a smaller effective rank lie almost on a line
FEWEST_CODES, MOST_CODES = 16, 1024  # held-out images whose codes are measured; fewer cannot tell


def decibels(errors: Tensor) -> Tensor:
    """Peak signal-to-noise ratios, −10 · log₁₀ of mean squared errors of pixels in [0, 1]: dB, at most 100.

    So a mean over images is finite where one is perfect, a black one say.
    """
    return -10 * torch.log10(errors.clamp(min=1e-10))


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """The `decibels` of each of the images float [N, C, S, S] against its reference: float [N]."""
    return decibels((images - references).square().mean(dim=(1, 2, 3)))


class MaskedViews:
    """The masked views of every evaluation: an image's square is the same for every run and every run's seed.

    `mask_ratio` is the share of the area; `seed` draws the squares' places. Raises what `mask_side` does.
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
        self.deviation = deviation

    def __call__(self, images: Tensor, first: int = 0) -> Tensor:
        """The views of images [N, C, S, S], of which the first is number `first` of its split."""
        numbers = range(first, first + len(images))
        noise = [torch.randn(images.shape[1:], generator=generator(0, "noise", number)) for number in numbers]
        return add_noise(images, self.deviation, torch.stack(noise).to(images.device))


Views = MaskedViews | NoisyViews


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards it is in the mode it was in.

    cuDNN does not look for the fastest algorithms meanwhile: for chunks of many sizes that takes longer than it saves.
    """
    training, benchmark = model.training, torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        torch.backends.cudnn.benchmark = benchmark


def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    """Reconstructions of images [N, C, S, S] by the model in evaluation mode."""
    with evaluation_mode(model):
        return torch.cat([model(chunk) for _, chunk in chunks_of(images, images.device)])


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
    return {f"codes {row * columns + 1} to {(row + 1) * columns}\nof N(0, I), decoded": r for row, r in enumerate(rows)}


def mean_image(images: Images) -> Tensor:
    """The mean of images uint8 [N, S, S, C]: float [C, S, S] in [0, 1]."""
    firsts = range(0, len(images), PIECE)
    bar = progress_bar(firsts, "mean image", hidden=len(firsts) == 1)
    total = sum(np.asarray(images[first : first + PIECE]).sum(axis=0, dtype=np.float64) for first in bar)
    return torch.from_numpy(total / len(images)).permute(2, 0, 1).float() / 255


def summary(measures: dict[str, float]) -> str:
    """A line with the PSNR that an `Evaluation` measured, beside its references."""
    psnrs = {name.removeprefix("psnr_"): value for name, value in measures.items() if name.startswith("psnr_")}
    return "held-out PSNR: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f} dB" for name, value in psnrs.items())


class Evaluation:
    """The evaluation of a run on held-out images: what it measures is a row of metrics.csv.

    It takes training and held-out images, uint8 [N, S, S, C]. The codes of the first 1,024 held-out ones are measured,
    if there are at least 16.
    """

    def __init__(self, train: Images, held_out: Images, views: Views, device: torch.device):
        self.held_out, self.views, self.device = held_out, views, device
        mean = mean_image(train[:AVERAGED]).to(device)
        self.references = {
            f"psnr_{views.name}_input": self._mean_psnr(views),
            "psnr_mean_image": self._mean_psnr(lambda batch, first: mean),
        }
        self.encoded = to_float(held_out[:MOST_CODES], device) if len(held_out) >= FEWEST_CODES else None
        self.collapsed = set()

    def __call__(self, step: int, model: BaseAutoencoder, judge: Judge | None = None) -> dict[str, float]:
        """Figures by name, after so many steps. Warns where codes have collapsed, once when it begins.

        "psnr_clean", and "psnr_masked" or "psnr_noisy": mean PSNR in dB of the reconstructions of images, and of their
        views, both against the images. "psnr_masked_input" and "psnr_mean_image": that of two answers without a model,
        the views as they are, and the mean of up to 20,000 training images. "encoder_effective_rank",
        "encoder_dead_dimensions", and the same of the judge, where there is one and codes are finite.
        """
        views = self.views
        measures = {
            "psnr_clean": self._mean_psnr(lambda images, first: reconstruct(model, images)),
            f"psnr_{views.name}": self._mean_psnr(lambda images, first: reconstruct(model, views(images, first))),
            **self.references,
        }
        if self.encoded is None:
            return measures
        chunks = [chunk for _, chunk in chunks_of(self.encoded, self.device)]
        with evaluation_mode(model):
            codes = {"encoder": torch.cat([model.encode(chunk) for chunk in chunks])}
        if judge is not None:
            with evaluation_mode(judge):
                projected = torch.cat([judge.encoder.project(chunk) for chunk in chunks])
                codes["judge"] = normalise(projected, judge.encoder.norm)
        for name, code in codes.items():
            if code.isfinite().all():  # else nothing of it will be saved
                measures |= self._health_of(name, code, step)
        return measures

    def _mean_psnr(self, answer: Callable[[Tensor, int], Tensor]) -> float:
        """Mean PSNR of `answer`, a function of a batch and of its first image's number, against held-out images.

        Processes that share a run share the images.
        """
        chunks = chunks_of(self.held_out, self.device, "evaluating", share=True)
        total = sum(psnr(answer(chunk, first), chunk).sum().item() for first, chunk in chunks)
        total = torch.tensor(total, dtype=torch.float64, device=float64_device(self.device))
        return all_reduce_sum(total).item() / len(self.held_out)

    def _health_of(self, name: str, codes: Tensor, step: int) -> dict[str, float]:
        """Effective rank and dead dimensions of codes; a warning if they have collapsed since the last time."""
        directions, dead, size = effective_rank(codes), dead_dimensions(codes), codes.shape[1]
        collapsed = dead > 0 or (size > 1 and directions < COLLAPSED_RANK)
        if collapsed and name not in self.collapsed and rank() == 0:
            text = f"{dead} of {size} dimensions are dead and their effective rank is {directions:.2f}"
            tqdm.write(f"warning: the {name}'s codes have collapsed: after step {step:,} {text}", file=sys.stderr)
        (self.collapsed.add if collapsed else self.collapsed.discard)(name)
        return {f"{name}_effective_rank": directions, f"{name}_dead_dimensions": dead}
