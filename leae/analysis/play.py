"""A page in the browser to try trained models: mask, morph, change attributes, mix codes, draw samples.

    uv run --extra play -m leae play runs/self-teaching-001 runs/masked-001
    uv run --extra play -m leae play runs/self-teaching-001 --port 8000

Every run answers in a column of its own, on the same picture: a held-out image, or a photograph of your own. Exported
folders work as runs do, where the data that they were trained on are. Only this machine sees the page, unless --host
says otherwise.
"""

import argparse
import threading
from functools import cached_property
from importlib.util import find_spec

import torch
from torch import Tensor

from leae.analysis.latents import LatentSpace, class_difference, draw_fitted
from leae.analysis.trained import add_run_arguments, open_runs
from leae.codes import mean_square_distance
from leae.errors import UsageError, require_whole
from leae.randomness import generator
from leae.training.device import find_device
from leae.training.settings import Parser

SLIDERS = 6  # attributes, or principal components
SAMPLES = 6  # of either distribution


class Player(LatentSpace):
    """What a run answers on the page. Codes are flat: float [N, D] on the CPU, and so are images, [N, C, S, S]."""

    def encode(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.run.model.encode(images.to(self.device)).float().cpu().flatten(1)

    @cached_property
    def between(self) -> float:
        """How far the codes of two training images are apart: the root of the mean square over all pairs."""
        return mean_square_distance(self.training).sqrt().item()

    def directions(self, attributes: list[str]) -> Tensor:
        """A direction [D] for each slider: from the mean code without an attribute to that with it.

        Without attributes they are the first principal components, each a standard deviation long.
        """
        codes, names = self.training, self.dataset.attribute_names
        if attributes:
            labels = [self.training_labels[:, names.index(name)] for name in attributes]
            return torch.stack([class_difference(codes, label) for label in labels])
        _, deviations, components = torch.pca_lowrank(codes, min(SLIDERS, *codes.shape), niter=4)
        return (components * deviations / len(codes) ** 0.5).T

    def fill(self, picture: Tensor, painted: Tensor) -> tuple[Tensor, str]:
        """The reconstruction [1, C, S, S] of a picture whose painted pixels, bool [S, S], have its mean colour.

        And what to say of it. Without paint it is that of the picture itself.
        """
        hidden = torch.where(painted, picture.mean(dim=(2, 3), keepdim=True), picture)
        clean, code = self.encode(torch.cat([picture, hidden])).split(1)
        answer = self.decode(code)
        errors = (answer - picture).square().mean(dim=(0, 1))
        if not painted.any():
            return answer, f"PSNR {decibels(errors)}"
        alone = (hidden - picture).square().mean(dim=(0, 1))[painted]
        inside = f"{decibels(errors[painted])} inside the paint (the paint itself {decibels(alone)})"
        shift = (code - clean).norm().item() / self.between
        return answer, f"PSNR {inside}, {decibels(errors[~painted])} outside. Code shift {shift:.2f}"

    def mix(self, pictures: Tensor, painted: Tensor) -> Tensor:
        """The first of two pictures, but with the codes of the second at the painted positions of the map."""
        first, second = self.encode(pictures).unflatten(1, self.run.model.latent_shape)
        there = torch.nn.functional.adaptive_max_pool2d(painted[None].float(), first.shape[1:]) > 0
        return self.decode(torch.where(there, second, first).flatten()[None])

    def sample(self, fitted: bool, seed: int, spread: float) -> Tensor:
        """Images decoded from codes of N(0, I), or of a Gaussian fitted to training codes, deviating so much more."""
        training = self.training
        if fitted:
            mean = training.mean(dim=0)
            return self.decode(mean + spread * (draw_fitted(training, SAMPLES, seed) - mean))
        return self.decode(spread * torch.randn(SAMPLES, training.shape[1], generator=generator(seed, "samples")))


def decibels(errors: Tensor) -> str:
    """The PSNR of pixels with these squared errors."""
    return f"{-10 * errors.mean().log10().item():.1f} dB" if len(errors) else "of nothing"


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs="+", masks=False)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network [%(default)s]")
    parser.add_argument("--port", type=int, default=7860, help="[%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, 65_535, **{"--port": options.port})
    if find_spec("gradio") is None:
        raise UsageError("the page needs gradio, which is not installed; run uv run --extra play -m leae play …")
    from leae.analysis.page import serve

    device = find_device(options.device)
    runs = open_runs(options.runs, options.checkpoint, device)
    dataset = runs[0].open_data()
    players = [Player(run, dataset, 0, device) for run in runs]
    with serve(players, options.host, options.port) as address:
        print(f"play: {address}; Ctrl-C ends it", flush=True)
        threading.Event().wait()
