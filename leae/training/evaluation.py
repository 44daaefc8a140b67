"""What is measured and shown of a run while it trains: PSNR of held-out images, health of the codes, grids."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from leae.autoencoder import BaseAutoencoder
from leae.codes import dead_dimensions, effective_rank
from leae.data.batches import PIECE, Images, chunks_of
from leae.distributed import all_reduce_sum
from leae.judge import Judge
from leae.layers import float64_device, normalise
from leae.masking import add_noise, draw_boxes, fill_squares, mask_side
from leae.progress import progress_bar
from leae.randomness import generator

AVERAGED = 20_000  # training images whose mean is taken
SAMPLE_ROWS = 5  # of a grid
DRAWN = 65_536  # masks that are drawn; image 65,537 has the first one again
MUCH, SOME, LITTLE = 1.0, 0.5, 0.1  # dB by which PSNR changes; README.md: the runs behind them
PSNR = ("psnr_clean", "psnr_masked", "psnr_noisy")
CODES = ("effective_rank", "dead_dimensions", "dimensions")
NO_TERMS = ("split", "step", "epoch", "images_per_second", "learning_rate", "loss", "latent")  # in rows
FEWEST_STEPS = 50  # after which a verdict says something
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
    """The model in evaluation mode and without gradients; afterwards each part of it is in the mode it was in.

    cuDNN does not look for the fastest algorithms meanwhile: for chunks of many sizes that takes longer than it saves.
    """
    training, benchmark = [part for part in model.modules() if part.training], torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
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
    """A line with the PSNR that an `Evaluation` measured, each beside what it is to be compared with."""
    _, view, view_input, mean = (name for name in measures if name.startswith("psnr_"))
    kind, exact = view.removeprefix("psnr_"), ", exact outside its square" * (view == "psnr_masked")
    clean = f"clean {measures['psnr_clean']:.2f} dB (mean image {measures[mean]:.2f})"
    return f"held-out PSNR: {clean}, {kind} {measures[view]:.2f} dB ({kind} input{exact}, {measures[view_input]:.2f})"


def health(rows: list[dict[str, str]]) -> str:
    """A verdict on a run, and its reason, from the rows of its metrics.csv."""
    for row in rows:
        if bad := [name for name, value in row.items() if value in ("nan", "inf", "-inf")]:
            return f"diverged: {bad[0]} is {row[bad[0]]} after step {row['step']}"
    measured = [row for row in rows if "psnr_clean" in row] or [{}]
    last, half, codes = measured[-1], measured[(len(measured) - 1) // 2], ""
    if all(f"encoder_{name}" in last for name in CODES):  # not in older runs, nor where few images are held out
        effective, dead, size = (float(last[f"encoder_{name}"]) for name in CODES)
        codes = f"rank {effective:.1f} of {size:.0f}, {dead:.0f} dead, "
        if dead or (size > 1 and effective < min(4, max(size / 32, 1.25))):  # README.md: the runs behind these figures
            return f"collapsed: {codes}after step {last['step']}: the codes hardly tell images apart"
    if len(measured) < 3 or int(last["step"]) < FEWEST_STEPS:
        return f"too early to tell: {codes}step {last.get('step', 0)}"
    name = max((name for name in PSNR if name in last), key=lambda name: float(last[name]))  # the one it is trained for
    psnr, mean = float(last[name]), float(last.get("psnr_mean_image", "-inf"))
    best, gained = max(float(row.get(name, "-inf")) for row in measured), psnr - float(half.get(name, psnr))
    stalled = psnr < best - MUCH or (psnr <= mean and gained < SOME)
    verdict = "stalled" if stalled else "healthy" if psnr > mean else "too early to tell"
    trend = "rising, a longer run gives more" if gained > MUCH else "rising" if gained > LITTLE else "no longer rising"
    said = f"after step {int(last['step']):,}, {gained:+.2f} since step {int(half['step']):,}, mean image {mean:.2f}"
    return f"{verdict}: {codes}PSNR {trend} ({psnr:.2f} dB {said})"


def report(rows: list[dict[str, str]]) -> str:
    """`health`, and lines with consistency, at first and now, and the terms' shares of the loss."""
    trained = [row for row in rows if "loss" in row] or [{}]
    terms = {name: float(value) for name, value in trained[-1].items() if name not in NO_TERMS}
    if not terms:
        return health(rows)
    loss = float(trained[-1]["loss"])
    terms |= {"kl": loss - terms.get("reconstruction", 0)} if "kl" in terms else {}  # β included
    if "latent" in trained[-1]:  # the mean of all terms but sigreg
        latent, sigreg = float(trained[-1]["latent"]), terms.pop("sigreg", 0.0)
        rest = loss - latent - sigreg  # of terms that somebody has added to the loss
        averaged = {name: value / len(terms) for name, value in terms.items()}
        terms = {"sigreg": sigreg, **(averaged if abs(rest) <= 0.001 * abs(loss) else {"latent": latent, "rest": rest})}
    shares = [f"{name} {value / (loss or 1):.0%}" for name, value in terms.items()]
    ends = [f"{float(row['consistency']):.3g}" for row in (trained[0], trained[-1]) if "consistency" in row]
    consistency = f"consistency: {' at first, '.join(ends)} now\n" if ends else ""
    return f"{health(rows)}\n{consistency}shares of the loss: {', '.join(shares)}"


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

    def __call__(self, model: BaseAutoencoder, judge: Judge | None = None) -> dict[str, float]:
        """Figures by name.

        "psnr_clean", and "psnr_masked" or "psnr_noisy": mean PSNR in dB of the reconstructions of images, and of their
        views, both against the images. "psnr_masked_input" and "psnr_mean_image": that of two answers without a model,
        the views as they are, and the mean of up to 20,000 training images. "encoder_effective_rank",
        "encoder_dead_dimensions" of "encoder_dimensions", and the same of a judge, where codes are finite.
        """
        views = self.views
        measures = {
            "psnr_clean": self._mean_psnr(lambda images, first: reconstruct(model, images)),
            f"psnr_{views.name}": self._mean_psnr(lambda images, first: reconstruct(model, views(images, first))),
            **self.references,
        }
        if len(self.held_out) < FEWEST_CODES:
            return measures
        with evaluation_mode(model):
            codes = {"encoder": self._map_first(model.encode)}
        if judge is not None:
            with evaluation_mode(judge):
                codes["judge"] = normalise(self._map_first(judge.encoder.project), judge.encoder.norm)
        for name, code in codes.items():
            if code.isfinite().all():  # else nothing of it will be saved
                figures = effective_rank(code), dead_dimensions(code), code.shape[1]
                measures |= {f"{name}_{figure}": value for figure, value in zip(CODES, figures, strict=True)}
        return measures

    def _map_first(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function of a batch makes of the first MOST_CODES held-out images."""
        return torch.cat([function(chunk) for _, chunk in chunks_of(self.held_out[:MOST_CODES], self.device)])

    def _mean_psnr(self, answer: Callable[[Tensor, int], Tensor]) -> float:
        """Mean PSNR of `answer`, a function of a batch and of its first image's number, against held-out images.

        Processes that share a run share the images.
        """
        chunks = chunks_of(self.held_out, self.device, "evaluating", share=True)
        total = sum(psnr(answer(chunk, first), chunk).sum().item() for first, chunk in chunks)
        total = torch.tensor(total, dtype=torch.float64, device=float64_device(self.device))
        return all_reduce_sum(total).item() / len(self.held_out)
