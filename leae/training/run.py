"""A run's folder, and how a run is resumed; README.md beside this file says what lies in the folder."""

import csv
import json
import math
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from torch import Tensor, nn

from leae.autoencoder import BaseAutoencoder
from leae.data.prepare import Dataset
from leae.distributed import rank
from leae.errors import UsageError, say
from leae.files import atomic_write
from leae.judge import Judge
from leae.training.checkpoints import init_from_checkpoint, restore_checkpoint, state_of, write_checkpoint
from leae.training.device import device_name
from leae.training.folder import CHANGEABLE, CHECKPOINTS, RUNS, read_metrics, read_settings, require_new, tuples
from leae.training.hub import find_weights
from leae.training.monitoring import first_non_finite
from leae.training.pictures import draw_grid


def milestones(total_steps: int) -> dict[int, list[str]]:
    """The steps after which a checkpoint is kept, each with the names it is kept under: {0: ["000"], …}."""
    steps = {}
    for percent in CHECKPOINTS:
        steps.setdefault(math.ceil(total_steps * int(percent) / 100), []).append(percent)
    return steps


def versions() -> dict[str, str]:
    """What computes here, by name, and the source's git commit where there is one."""
    git, options = shutil.which("git"), {"cwd": Path(__file__).parent, "capture_output": True, "text": True}
    commit = subprocess.run([git, "describe", "--always", "--dirty", "--abbrev=40"], **options).stdout if git else ""
    libraries = {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    python, torch_version = platform.python_version(), torch.__version__  # which tells of CUDA, too
    return {"leae": commit.strip() or "unknown", "python": python, "torch": torch_version, **libraries}


class Run:
    """A run's settings and its folder, which `create` makes. `Run.read` reads one, `Run.resume` goes on with it.

    Of several processes that share a run only the first one writes; the methods of the others' do nothing.
    """

    def __init__(self, settings: dict, kind: str = "", folder: Path | None = None, data: dict | None = None):
        self.settings = settings  # the constants by name
        self.kind = kind  # "self-teaching", or the baseline's objective
        self.folder = folder  # None until it is made
        self.data = data or {}  # name, title and identity of the data set
        self.init = None  # file and step of the weights that INIT means, where it means some
        self.content = {}  # of settings.json
        self.columns, self.rows = ["split", "step", "epoch"], []  # of metrics.csv

    @property
    def identity(self) -> str | None:
        """The identity of the data set; None for a new run."""
        return self.data.get("identity")

    @classmethod
    def read(cls, folder: str | Path, name: str = "settings.json") -> "Run":
        """The run in a folder, of whatever kind and however far it came; raises what `read_settings` does."""
        content = read_settings(Path(folder), name)
        run = cls(content["settings"], content["kind"], Path(folder), content["data"])
        run.content = content
        return run

    @classmethod
    def resume(cls, folder: str | Path, *kinds: str) -> "Run":
        """The run in a folder, to go on with; while this process lives, no other one can.

        A `UsageError` if the folder is not a run of one of these kinds, or if a process is at it.
        """
        run = cls.read(folder)
        if run.kind not in kinds:
            raise UsageError(f"{folder} is a {run.kind} run; resume it with the script that began it")
        run._lock()
        return run

    def start(
        self,
        kind: str,
        dataset: Dataset,
        total_steps: int,
        model: BaseAutoencoder,
        optimizer: torch.optim.Optimizer,
        judge: nn.Module | None = None,
    ) -> int:
        """Make the run's folder, or restore the run from it, and say what is trained; how many steps have been made."""
        device = device_name(next(model.parameters()).device)
        self.create(kind, dataset, device)
        start = self.restore(model, optimizer, judge)
        train, held_out = len(dataset.images["train"]), len(dataset.images[dataset.validation_split])
        held_out, size = min(held_out, self.settings["HELD_OUT"]), model.image_shape[-1]
        say(f"device: {device}")
        say(f"data: {dataset.title}, {train:,} images to train on, {held_out:,} held out, {size}×{size} pixels")
        say(f"model: a code of {model.latent_size:,} numbers an image, {model.compression:.0f}× compression")
        batch_size = self.settings["BATCH_SIZE"]
        say(f"run: steps {start:,} to {total_steps:,}, {batch_size} images each; to resume it: --resume {self.folder}")
        return start

    def create(self, kind: str, dataset: Dataset, device: str) -> None:
        """Make the run's folder, unless it has one: runs/NAME, or runs/<kind>-001, or with the next free number."""
        if self.folder:
            return
        self.kind = kind
        self.data = {"name": dataset.name, "title": dataset.title, "identity": dataset.identity}
        self.settings["DATASET"] = dataset.name  # what "auto" meant
        if rank() > 0:
            return
        self.content = {
            "kind": kind,
            "settings": self.settings,
            "data": self.data,
            "init": self.init,
            "device": device,
            "versions": versions(),
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        new = RUNS / ".new"
        RUNS.mkdir(parents=True, exist_ok=True)
        with FileLock(RUNS / ".lock"):
            shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed here
            (new / "grids").mkdir(parents=True)
            (new / "checkpoints").mkdir()
            self._write_settings(new)
            taken = [re.fullmatch(rf"{kind}-(\d+)", path.name) for path in RUNS.iterdir()]
            number = 1 + max((int(name[1]) for name in taken if name), default=0)
            name = self.settings.get("NAME") or f"{kind}-{number:03d}"
            require_new(name)  # another process may just have taken it
            self.folder = new.rename(RUNS / name)
        self._lock()

    def _write_settings(self, folder: Path) -> None:
        with atomic_write(folder / "settings.json") as file:
            json.dump(self.content, file, indent=2)

    def _lock(self) -> None:
        if rank() == 0:
            self.lock = FileLock(self.folder / ".lock")  # the system releases it when the process ends
            try:
                self.lock.acquire(timeout=0)
            except Timeout as error:
                advice = "stop that one first, or let it finish"
                raise UsageError(f"another process is running {self.folder}; {advice}") from error

    def save(
        self,
        step: int,
        model: BaseAutoencoder,
        optimizer: torch.optim.Optimizer,
        judge: nn.Module | None = None,
        keep: list[str] | None = None,
    ) -> None:
        """Write last.safetensors, from which the run resumes, and the checkpoints named in `keep`, of the model alone.

        A `UsageError` if a gradient, a weight or a moment is not finite; what was saved before stays.
        """
        if rank() > 0:
            return
        folder, state = self.folder / "checkpoints", state_of(model, optimizer, judge)
        parameters = model.named_parameters()
        gradients = {f"the gradient of {name}": p.grad for name, p in parameters if p.grad is not None}
        bad = first_non_finite(gradients | state)
        if bad:
            diverged = f"{bad[0]} is {bad[1]} after step {step}, training has diverged"
            raise UsageError(f"{diverged}; lower LEARNING_RATE; {folder} is unchanged")
        for name in keep or []:
            write_checkpoint(folder / f"{name}.safetensors", model, step, state_of(model))
        write_checkpoint(folder / "last.safetensors", model, step, state, run=self.settings)
        if not (self.folder / "settings.json").exists():  # it was deleted
            self._write_settings(self.folder)

    def begin(self, model: BaseAutoencoder, judge: Judge | None = None) -> None:
        """Give model and judge the weights that INIT means, where it means some and none of the run's own are saved.

        Raises what `find_weights` and `init_from_checkpoint` do.
        """
        if self.settings["INIT"] and not (self.folder and (self.folder / "checkpoints" / "last.safetensors").exists()):
            path = find_weights(self.settings["INIT"])
            self.init = {"file": str(path), "step": init_from_checkpoint(path, model, judge, self.settings)}
            say(f"weights: {path}, after {self.init['step']:,} steps")

    def restore(self, model: BaseAutoencoder, optimizer: torch.optim.Optimizer, judge: nn.Module | None = None) -> int:
        """Bring everything to where last.safetensors left it; how many steps have been made, 0 for a new run.

        Rows of metrics.csv from later steps are dropped, for these steps will be made again, and so will the
        evaluation after the last one. A `UsageError` if either file is damaged, or not of this run.
        """
        if not self.folder:
            return 0
        path = self.folder / "checkpoints" / "last.safetensors"
        start, settings = restore_checkpoint(path, model, optimizer, judge) if path.exists() else (0, {})
        for name, value in settings.items():
            if name not in CHANGEABLE and tuples(value) != self.settings.get(name):
                changed = f"{name} is {self.settings.get(name)} in {self.folder}/settings.json, and was {tuples(value)}"
                advice = f"put it back, or start a new run from its weights: --init {self.folder}"
                raise UsageError(f"{changed} when the run was saved; {advice}")
        if rank() == 0 and (self.folder / "metrics.csv").exists():
            rows = self.read_metrics()
            self.rows = [row for row in rows if int(row["step"]) < start + (row["split"] == "train")]
            self._write_metrics()
        return start

    def log(self, split: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Add a row to metrics.csv: what was measured of a split after so many steps; a new name adds a column."""
        if rank() > 0:
            return
        figures = {name: f"{value:.6g}" for name, value in values.items()}
        self.rows.append({"split": split, "step": str(step), "epoch": f"{epoch:.6g}", **figures})
        new = [name for name in values if name not in self.columns]
        if new:
            self.columns += new
            self._write_metrics()
        else:
            with (self.folder / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(self.rows[-1])

    def _write_metrics(self) -> None:
        with atomic_write(self.folder / "metrics.csv") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def psnr(self) -> str:
        """The last held-out PSNR of clean images, as a text; empty where there is none."""
        values = [row["psnr_clean"] for row in self.rows if "psnr_clean" in row]
        return f"PSNR {float(values[-1]):.2f}" if values else ""

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, whose columns are kept; raises what `read_metrics` does."""
        self.columns, rows = read_metrics(self.folder)
        return rows

    def draw(self, name: str, step: int, rows: dict[str, Tensor]) -> None:
        """Write grids/<name>-<step>.png; see `draw_grid`."""
        if rank() == 0:
            with atomic_write(self.folder / "grids" / f"{name}-{step:06d}.png", "wb") as file:
                objective = self.settings.get("OBJECTIVE", "")
                method = self.kind if self.kind == objective else f"{self.kind}, {objective}"
                title = f"{self.folder.name} ({method}), {self.data['title']}: {name} images, step {step:,}"
                draw_grid(rows, title).save(file, format="PNG")

    def plot_metrics(self) -> None:
        """Draw metrics.png: the loss and its terms, held-out PSNR, effective ranks, learning rate."""
        if rank() > 0:
            return
        figure = Figure(figsize=(15, 8))
        figure.suptitle(self.folder.name)
        # A layout engine would draw it twice. Legends stand beside their panels.
        margins = {"left": 0.06, "right": 0.87, "bottom": 0.07, "top": 0.9, "wspace": 0.55, "hspace": 0.28}
        (losses, quality), (ranks, rates) = figure.subplots(2, 2, gridspec_kw=margins)
        logged = {name for row in self.rows if row["split"] == "train" for name in row} - {"images_per_second"}
        for name in self.columns[3:]:
            points = [(int(row["step"]), float(row[name])) for row in self.rows if name in row]
            axes = rates if name == "learning_rate" else losses if name in logged else None
            axes = quality if name.startswith("psnr") else ranks if name.endswith("effective_rank") else axes
            if points and axes:
                number, reference = len(axes.lines), name.endswith(("_input", "_image"))
                style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[2 if reference else number // 5 % 2]}
                label = name.removeprefix("psnr_").replace("_", " ")
                axes.plot(*zip(*points, strict=True), label=label, marker="" if reference else ".", ms=4, **style)
        titles = {losses: "training loss and its terms", quality: "held-out PSNR (dB)"}
        for axes, title in (titles | {ranks: "effective rank of held-out codes", rates: "learning rate"}).items():
            axes.set(title=title, xlabel="step")
            axes.grid(alpha=0.3)
            if axes.has_data():
                axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
        losses.set_yscale("log" if losses.has_data() else "linear")
        with atomic_write(self.folder / "metrics.png", "wb") as file:
            figure.savefig(file, format="png", dpi=110)
