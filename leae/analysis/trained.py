"""Trained runs as the commands read them: model, data set, codes; and how the commands write pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from leae.autoencoder import BaseAutoencoder
from leae.data.batches import to_float
from leae.data.prepare import Dataset, open_dataset
from leae.errors import UsageError
from leae.files import atomic_write
from leae.training.checkpoints import load_checkpoint
from leae.training.evaluation import BATCH, MaskedViews, reconstruct
from leae.training.run import MILESTONES, Run
from leae.training.settings import Parser

NEEDED = (
    "DATASET",
    "FACES",
    "OBJECTIVE",
    "MASK_RATIO",
    "BATCH_SIZE",
    "SEED",
)  # settings without which a run cannot be analysed


@dataclass(frozen=True)
class TrainedRun:
    """A run's model at one of its checkpoints."""

    run: Run  # its folder and settings
    name: str  # in tables: the folder's name, or its path where another run has the same name
    checkpoint: str  # "100", say
    step: int  # how many optimizer steps the model has had
    model: BaseAutoencoder  # in evaluation mode

    @property
    def method(self) -> str:
        """What it was trained for."""
        settings = self.run.settings
        judge = f", {settings['OBJECTIVE']}, {settings['JUDGE_RULER']} ruler" if "JUDGE_RULER" in settings else ""
        return self.run.kind + judge

    @property
    def size(self) -> str:
        """How large its latent is."""
        return f"latent size {self.model.latent_size:,}, {self.model.compression:.0f}×"

    @property
    def title(self) -> str:
        """The run in the first line of a picture's title."""
        return f"{self.name} ({self.method}), step {self.step:,}; {self.size} compression"

    def open_data(self) -> Dataset:
        """The data set that it was trained on; a `UsageError` if that is not there any more, or has changed."""
        settings, size = self.run.settings, self.model.image_shape[-1]
        return open_dataset(settings["DATASET"], size, settings["FACES"], self.run.identity)

    def views(self, mask_ratio: float | None, seed: int = 0) -> MaskedViews:
        """Masked views, by default with the run's mask ratio; a `UsageError` if no such square fits the images."""
        ratio = self.run.settings["MASK_RATIO"] if mask_ratio is None else mask_ratio
        return MaskedViews(self.model.image_shape[-1], ratio, seed)


def add_run_arguments(parser: Parser, nargs: int | str, masks: bool = True) -> None:
    """The arguments that the commands share: `nargs` runs, and with `masks` the mask ratio."""
    parser.add_argument("runs", metavar="RUN", nargs=nargs, help="a run's folder, runs/self-teaching-001 say")
    kept = ", ".join(f"{percent:03d}" for percent in MILESTONES)
    parser.add_argument("--checkpoint", default="100", help=f"which one: {kept} (percent) or last [%(default)s]")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu or the first that is there [%(default)s]")
    if masks:
        parser.add_argument("--mask-ratio", type=float, help="share of the area that is masked [the first run's]")


def open_runs(folders: list[str], checkpoint: str, device: torch.device) -> list[TrainedRun]:
    """The runs in some folders, at one checkpoint ("100", "040" or "last", say).

    A `UsageError` if one is given twice, is no run's or has no such sound checkpoint, or if their images differ.
    """
    names = [Path(folder).name for folder in folders]
    runs = []
    places = [Path(folder).resolve() for folder in folders]
    for folder, name, place in zip(folders, names, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{folder} is given twice; name every run once")
        run = Run.read(folder)
        missing = [setting for setting in NEEDED if setting not in run.settings]
        if missing:
            raise UsageError(f"{folder}/settings.json has no {missing[0]}; train it again with this version of leae")
        model, step = load_checkpoint(find_checkpoint(run, checkpoint), device)
        runs.append(TrainedRun(run, name if names.count(name) == 1 else str(folder), checkpoint, step, model))
    if len({(one.run.identity, one.model.image_shape) for one in runs}) > 1:
        data = [f"{one.run.data['title']} ({one.run.identity[:6]}), {one.model.image_shape}" for one in runs]
        said = ", ".join(f"{one.run.folder} was trained on {what}" for one, what in zip(runs, data, strict=True))
        raise UsageError(f"{said}; only runs on the same images can be put side by side")
    return runs


def find_checkpoint(run: Run, name: str) -> Path:
    """The file of a run's checkpoint; a `UsageError` if there is none."""
    path = run.folder / "checkpoints" / f"{name}.safetensors"
    if path.is_file():
        return path
    there = " or ".join(sorted(file.stem for file in path.parent.glob(f"*{path.suffix}"))) or "none yet"
    advice = f"train it to its end, by --resume {run.folder}, or choose another --checkpoint: {there}"
    raise UsageError(f"{run.folder} has no checkpoint {name}; {advice}")


def batches_of(images: np.ndarray, device: torch.device, title: str) -> Iterator[tuple[int, Tensor]]:
    """Batches float [n, C, S, S] in [0, 1] of images uint8 [N, S, S, C], each behind the index of its first image."""
    for first in tqdm(range(0, len(images), BATCH), desc=title, leave=False, dynamic_ncols=True):
        yield first, to_float(images[first : first + BATCH], device)


def encode_all(model, images: np.ndarray, views: MaskedViews | None, device: torch.device, title: str) -> Tensor:
    """Codes float32 [N, *latent_shape] of images uint8 [N, S, S, C] or their views; `UsageError` if not finite."""
    batches = batches_of(images, device, title)
    with torch.no_grad():  # the model is in evaluation mode
        codes = torch.cat([model.encode(views(x, first) if views else x).float().cpu() for first, x in batches])
    if not codes.isfinite().all():
        raise UsageError(f"{title}: the model makes codes that are not finite; its training has diverged")
    return codes


def squared_errors(model: nn.Module, images: Tensor) -> Tensor:
    """Mean squared error of each image's reconstruction: float [N, C, S, S] in [0, 1] → float64 [N] on the CPU."""
    return (reconstruct(model, images) - images).cpu().double().square().mean(dim=(1, 2, 3))


def held_out_errors(model: nn.Module, images: np.ndarray, device: torch.device) -> Tensor:
    """`squared_errors` of images uint8 [N, S, S, C]: float64 [N] on the CPU."""
    batches = batches_of(images, device, "reconstructing held-out images")
    return torch.cat([squared_errors(model, batch) for _, batch in batches])


def require_file(path: Path | None, option: str, suffix: str) -> None:
    """Refuse a path, if one is given, where no file of this kind can be written: `UsageError`."""
    if path and (path.suffix.lower() != suffix or not path.parent.is_dir()):
        raise UsageError(f"{option} is {path}; it must be a {suffix} file in a folder that exists")


def save_picture(picture: Image.Image | Figure, path: Path) -> None:
    """Write a PNG file."""
    with atomic_write(path, "wb") as file:
        if isinstance(picture, Figure):
            picture.savefig(file, format="png")
        else:
            picture.save(file, format="PNG", optimize=True)
