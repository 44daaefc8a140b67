"""Finished runs as the commands read them that look at them: model, data set, codes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from leae.autoencoder import BaseAutoencoder
from leae.data.prepare import Dataset, find_source, open_dataset, to_float
from leae.errors import UsageError
from leae.masking import mask_side
from leae.training.evaluation import BATCH, MaskedViews, Views, evaluating
from leae.training.run import MILESTONES, Run, load_with_step
from leae.training.settings import Parser

NEEDED = ("DATASET", "IMAGE_SIZE", "FACES", "OBJECTIVE", "MASK_RATIO")  # settings that looking at a run takes


@dataclass(frozen=True)
class FinishedRun:
    """A run's model at one of its checkpoints.

    Attributes:
        run: its folder and settings.
        name: what it is called in tables: the folder's name.
        checkpoint: the checkpoint's name, "100" say.
        step: how many optimizer steps the model has had.
        model: in evaluation mode.
    """

    run: Run
    name: str
    checkpoint: str
    step: int
    model: BaseAutoencoder

    @property
    def method(self) -> str:
        """What it was trained for."""
        settings = self.run.settings
        if "JUDGE_RULER" not in settings:
            return self.run.kind
        return f"{self.run.kind}, {settings['OBJECTIVE']}, {settings['JUDGE_RULER']} ruler"

    @property
    def size(self) -> str:
        """How large its latent is."""
        return f"{self.model.latent_size:,} numbers, {self.model.compression:.0f}×"


def open_runs(folders: list[str], checkpoint: str, device: torch.device) -> list[FinishedRun]:
    """The runs in some folders, at one checkpoint, all of the same data set and image size.

    Args:
        folders: of the runs.
        checkpoint: "100", another percentage that is kept, or "last".
        device: where the models are to be.

    Raises:
        UsageError: a folder is not a run's, has no such checkpoint or a damaged one, or its data differ from the
            first's.
    """
    names = [Path(folder).name for folder in folders]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice:
        raise UsageError(f"{twice} is given twice; name every run once")
    finished = []
    for folder, name in zip(folders, names, strict=True):
        run = Run.read(folder)
        missing = [setting for setting in NEEDED if setting not in run.settings]
        if missing:
            raise UsageError(
                f"{folder}/settings.json has no {missing[0]}; train the run again with this version of leae"
            )
        model, step = load_with_step(_find_checkpoint(run, checkpoint), device)
        name = name if names.count(name) == 1 else str(folder)
        finished.append(FinishedRun(run, name, checkpoint, step, model))
    first = finished[0]
    for other in finished[1:]:
        if other.run.data["fingerprint"] != first.run.data["fingerprint"] or _shape(other) != _shape(first):
            raise UsageError(
                f"{first.run.folder} was trained on {_describe_data(first)}, {other.run.folder} on "
                f"{_describe_data(other)}; only runs on the same images can be put side by side"
            )
    return finished


def add_options(parser: Parser, name: str, nargs: str | None = None, masks: bool = True) -> None:
    """The options that commands over finished runs share.

    Args:
        parser: of the command.
        name: of what it takes, for its help.
        nargs: how many runs it takes, as argparse has it; None for one.
        masks: whether it looks at masked views.
    """
    parser.add_argument("runs", metavar=name, nargs=nargs, help="a run's folder, runs/self-teaching-001 say")
    kept = ", ".join(f"{percent:03d}" for percent in MILESTONES)
    parser.add_argument("--checkpoint", default="100", help=f"which one: {kept} (percent) or last [%(default)s]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="[%(default)s]")
    if masks:
        parser.add_argument("--mask-ratio", type=float, help="share of the area that is masked [the first run's]")


def views_for(finished: FinishedRun, mask_ratio: float | None, seed: int = 0) -> MaskedViews:
    """The masked views that runs are looked at with.

    Args:
        finished: the first of them, whose mask ratio is taken where none is given.
        mask_ratio: share of the area, or None.
        seed: of the squares' places.

    Raises:
        UsageError: no square of that share fits the images.
    """
    ratio = finished.run.settings["MASK_RATIO"] if mask_ratio is None else mask_ratio
    mask_side(finished.model.image_shape[-1], ratio)
    return MaskedViews(ratio, seed)


def _find_checkpoint(run: Run, name: str) -> Path:
    path = run.folder / "checkpoints" / f"{name}.pt"
    if path.is_file():
        return path
    there = sorted(file.stem for file in path.parent.glob("*.pt"))
    if not there:
        raise UsageError(f"{run.folder} has no checkpoint yet; train it to its end first")
    advice = f"choose --checkpoint {' or '.join(there)}"
    if name == f"{MILESTONES[-1]:03d}":
        advice = f"the run did not come to its end; go on with it by --resume {run.folder}, or {advice}"
    raise UsageError(f"{run.folder} has no checkpoint {name}; {advice}")


def _shape(finished: FinishedRun) -> tuple[int, ...]:
    return finished.model.image_shape


def _describe_data(finished: FinishedRun) -> str:
    channels, size, _ = _shape(finished)
    fingerprint = finished.run.data["fingerprint"][:6]
    return f"{finished.run.data['title']} ({fingerprint}) at {size}×{size}×{channels}"


def open_data(finished: FinishedRun) -> Dataset:
    """The data set that a run was trained on.

    Raises:
        UsageError: it is not there any more, or has changed.
    """
    run = finished.run
    settings = [run.settings[name] for name in ("DATASET", "IMAGE_SIZE", "FACES")]
    try:
        source = find_source(*settings)
    except UsageError as error:
        raise UsageError(f"{run.folder} was trained on {run.data['title']}, which cannot be had: {error}") from error
    run.check_data(source.identity)
    return open_dataset(source)


def batches_of(images: np.ndarray, device: torch.device, title: str):
    """Batches of images in their order, behind a progress bar.

    Args:
        images: uint8 [N, S, S, C].
        device: where the batches are made.
        title: of the progress bar.

    Yields:
        The number of the batch's first image, and the batch: float [n, C, S, S] in [0, 1].
    """
    for first in tqdm(range(0, len(images), BATCH), desc=title, leave=False, dynamic_ncols=True):
        yield first, to_float(images[first : first + BATCH], device)


def encode_all(
    model: BaseAutoencoder, images: np.ndarray, views: Views | None, device: torch.device, title: str
) -> Tensor:
    """Codes of images, or of their views: float32 [N, *latent_shape] on the CPU.

    Args:
        model: in any mode; its evaluation mode is used.
        images: uint8 [N, S, S, C].
        views: what is encoded in the images' place; None for the images themselves.
        device: where the model is.
        title: of the progress bar.

    Raises:
        UsageError: codes that are not finite.
    """
    with evaluating(model):
        parts = [
            model.encode(views(batch, first) if views else batch).float().cpu()
            for first, batch in batches_of(images, device, title)
        ]
    codes = torch.cat(parts)
    if not codes.isfinite().all():
        raise UsageError(f"{title}: the model makes codes that are not finite numbers; its training has diverged")
    return codes
