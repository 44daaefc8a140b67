"""Trained runs as the commands read them: model, data set, masked views, codes."""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor

from leae.autoencoder import BaseAutoencoder
from leae.checkpoints import WEIGHTS, find_weights, load_checkpoint
from leae.data.batches import Images, chunks_of
from leae.data.prepare import Dataset, open_dataset
from leae.data.sources import DATA_SETS
from leae.errors import UsageError, is_installed, one_line, require
from leae.files import misfit, one_at_a_time, read_json, require_regular, says_empty
from leae.training.device import find_device
from leae.training.evaluation import MaskedViews
from leae.training.run import CHECKPOINTS, RUNS, read_settings

# Settings without which a run cannot be analysed.
NEEDED = {"DATASET": str, "FACES": int, "OBJECTIVE": str, "MASK_RATIO": float, "BATCH_SIZE": int, "SEED": int}
DEFAULT_CHECKPOINT = CHECKPOINTS[-1]
EVALUATION = "evaluation.json"  # in a run's folder, made like this; a figure stands before the ends of its interval
SHAPE = {"step": int, "data": dict, "options": dict, "figures": {str: [int | float | None]}}
MAX_HEAD = 2**20  # bytes of a file that are looked at, to tell whose it is; a CSV file's first line may be long
# By suffix, how a file that one of the commands has written begins, as a pattern.
OWN = {
    ".png": rb"\x89PNG.{29,192}?\0\0\0\x0dtEXtSoftware\0leae",  # so long a text, not training's
    ".safetensors": rb'.{8}\{"__metadata__":\{"leae":',
    ".json": rb'{\s*"run": "',
    ".npz": rb"PK.{28}leae\.npy",
    ".md": rb"[^\n]*: [\d,]+ training and [\d,]+ held-out images; ",
    ".csv": rb"((file|image),error,(.*,)?code_0(,code_\d+)*|file,score,score_above_[\w,]*,reason"
    rb"|(checkpoint,)?column,figure,value,low,high,[\w, ]*)\r\n",
}


@dataclass(frozen=True)
class TrainedRun:
    """A run's model at one of its checkpoints."""

    folder: Path
    kind: str  # "self-teaching", or the baseline's objective
    settings: dict  # its constants by name
    data: dict[str, str | int]  # name, title, identity and channels of its data set
    checkpoint: str  # "100", say; of an exported folder "model"
    step: int  # how many optimizer steps the model has had
    model: BaseAutoencoder  # in evaluation mode
    defaults: dict = field(default_factory=dict)  # the constants as its script had them; older runs do not say

    @property
    def name(self) -> str:
        return one_line(self.folder.name)

    @property
    def method(self) -> str:
        """What it was trained for."""
        of = self.settings
        return f"{self.kind}, {of['OBJECTIVE']}, {of['JUDGE_NORM']} norm" if "JUDGE_NORM" in of else self.kind

    @property
    def size(self) -> str:
        """How large its latent is."""
        return f"latent size {self.model.latent_size:,}, {self.model.compression:.0f}×"

    @property
    def title(self) -> str:
        """The run in the first line of a picture's title."""
        return f"{self.name} ({self.method}), step {self.step:,}; {self.size} compression"

    @property
    def upscale(self) -> bool:
        """Whether it takes images that are smaller than its own; older runs do not."""
        named = DATA_SETS.get(self.settings.get("DATASET"))
        return named.upscale if named else self.settings.get("UPSCALE", False)

    def open_data(self) -> Dataset:
        """The data set that it was trained on; a `UsageError` if that is not there any more, or has changed."""
        of, (channels, size, _) = self.settings, self.model.image_shape  # older runs took folders for no classes
        how = {"classes": of.get("CLASSES", False), "channels": channels, "upscale": self.upscale}
        return open_dataset(of["DATASET"], size, of["FACES"], self.data["identity"], **how)

    def evaluation(self) -> dict:
        """The content of its evaluation.json; empty if there is none of its step."""
        with suppress(OSError, ValueError, RecursionError):
            content = read_json(self.folder / EVALUATION, SHAPE)
            if content["step"] == self.step and all(content["figures"].values()):
                return content
        return {}

    def views(self, mask_ratio: float | None, seed: int = 0) -> MaskedViews:
        """Masked views, by default with the run's mask ratio; a `UsageError` if no such square fits the images."""
        ratio = self.settings["MASK_RATIO"] if mask_ratio is None else mask_ratio
        return MaskedViews(self.model.image_shape[-1], ratio, seed)


def add_run_arguments(parser: argparse.ArgumentParser, nargs: int | str, masks: bool = True) -> None:
    """The arguments that the commands share: `nargs` runs, and with `masks` the mask ratio."""
    parser.add_argument("runs", metavar="RUN", nargs=nargs, help="a run's folder, such as runs/self-teaching-001")
    which = f"{', '.join(CHECKPOINTS)} (percent of the run) or last [%(default)s]"
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help=which)
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")
    if masks:
        parser.add_argument("--mask-ratio", type=float, help="share of the area that is masked [the first run's]")


def runs_of(options: argparse.Namespace) -> tuple[list[TrainedRun], torch.device]:
    """The runs that a command is about, and the device that it uses; see `open_runs`."""
    device = find_device(options.device)
    return open_runs(options.runs, options.checkpoint, device), device


def open_runs(folders: list[str], checkpoint: str, device: torch.device) -> list[TrainedRun]:
    """The runs in some folders, at one checkpoint ("100", "040" or "last", say).

    A `UsageError` if one is no run's or has no such sound checkpoint, or if their images differ.
    """
    require(re.fullmatch(r"\w+", checkpoint), "--checkpoint", checkpoint, f"one of {', '.join(CHECKPOINTS)}, last")
    runs, files = [], [name for name in folders if Path(name).is_file()]
    if 0 < len(files) < len(folders):  # as of runs/*
        print(f"left out, as they are no folders: {', '.join(files)}", file=sys.stderr)
        folders = [name for name in folders if name not in files]
    for folder in map(Path, folders):
        content = read_settings(folder)
        if missing := misfit(content["settings"], NEEDED, "settings"):
            raise UsageError(f"{folder}/settings.json has no {missing}, or another; train it again with this version")
        path = find_weights(folder, (checkpoint,))
        if path.name == WEIGHTS and checkpoint != DEFAULT_CHECKPOINT:
            raise UsageError(f"{folder} is an exported model, which has no checkpoint {checkpoint}, only one")
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in (folder / "checkpoints").glob("*.safetensors")))
            advice = f"train it to its end, by --resume {folder}, or choose another --checkpoint of [{there}]"
            raise UsageError(f"{folder} has no checkpoint {checkpoint}; {advice}")
        model, step = load_checkpoint(path, device)
        about = {key: content[key] for key in ("kind", "settings", "data", "defaults")}
        runs.append(TrainedRun(folder, **about, checkpoint=path.stem, step=step, model=model))
    require_same_images(runs)
    return runs


def distinct_names(runs: list[TrainedRun]) -> list[str]:
    """The runs' names, but their folders' paths where several have the same one."""
    named = Counter(run.name for run in runs)
    return [run.name if named[run.name] == 1 else one_line(str(run.folder)) for run in runs]


def require_same_images(runs: list[TrainedRun]) -> None:
    """Refuse to put runs side by side that were trained on different images, or sizes of them: `UsageError`."""
    if len({(run.data["identity"], run.model.image_shape) for run in runs}) > 1:
        data = [f"{run.data['title']} ({run.data['identity'][:6]}), {run.model.image_shape}" for run in runs]
        said = ", ".join(f"{run.folder} was trained on {what}" for run, what in zip(runs, data, strict=True))
        raise UsageError(f"{said}; only runs on the same images can be put side by side")


def encode_all(model, images: Images, views: MaskedViews | None, device: torch.device, title: str) -> Tensor:
    """Codes float32 [N, *latent_shape] of images uint8 [N, S, S, C] or their views; `UsageError` if not finite."""
    batches = chunks_of(images, device, title)
    with torch.no_grad():  # the model is in evaluation mode
        codes = torch.cat([model.encode(views(x, first) if views else x).float().cpu() for first, x in batches])
    return require_finite(codes, title)


def require_finite(codes: Tensor, title: str) -> Tensor:
    """The codes; `UsageError` if they are not finite."""
    if not codes.isfinite().all():
        raise UsageError(f"{title}: the model makes codes that are not finite; its training has diverged")
    return codes


def require_extra(what: str, extra: str, *modules: str) -> None:
    """Refuse what needs modules that only an extra brings, where one of them is not installed: `UsageError`."""
    if not all(map(is_installed, modules)):
        raise UsageError(f"{what} needs {modules[0]}, which is not installed; run uv run --extra {extra} -m leae …")


def require_file(path: Path | None, option: str, *suffixes: str) -> None:
    """Refuse a path, if one is given, where no file of these kinds can be written, or another's is: `UsageError`."""
    if path and (path.suffix.lower() not in suffixes or not path.parent.is_dir()):
        raise UsageError(f"{option} is {path}; it must be a {' or '.join(suffixes)} file in a folder that exists")
    require_own(path)


def free_path(folder: Path, name: str, *endings: str) -> Path:
    """The first of name, name-2, name-3, … that is free in the folder, with the first of these endings and with all."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    free = next(one for one in names if not any(os.path.lexists(folder / f"{one}{end}") for end in endings))
    return folder / f"{free}{endings[0]}"


@contextmanager
def output_path(asked: Path | None, name: str, *endings: str) -> Iterator[Path]:
    """Where to write, in this block: the path that was asked for, or else a `free_path` in RUNS.

    That is looked for only now, when all is computed, and no other command looks for one meanwhile. A `UsageError` if
    by now another's file is where one was asked for.
    """
    require_own(asked)
    with nullcontext() if asked else one_at_a_time(RUNS / name):
        yield asked or free_path(RUNS, name, *endings)


def require_own(*paths: Path | None) -> None:
    """Refuse to replace what is no file, or one that is neither empty nor of these commands' making: `UsageError`.

    What they have made they can make again, but not training's pictures.
    """
    for path in filter(Path.exists, filter(None, paths)):
        require_regular(path)
        if says_empty(path):
            continue
        with path.open("rb") as file:
            beginning = file.read(MAX_HEAD)
        if not re.match(OWN[path.suffix.lower()], beginning, re.DOTALL):
            raise UsageError(f"{path} was not written by this command; name another place, or move it away")
