"""A run's folder, and how a run is resumed; README.md beside this file says what lies in the folder."""

import csv
import io
import math
import os
import platform
import re
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from leae.autoencoder import BaseAutoencoder
from leae.checkpoints import (
    WEIGHTS,
    find_weights,
    first_non_finite,
    load_checkpoint,
    part_of,
    read_checkpoint,
    restore_checkpoint,
    state_of,
    write_checkpoint,
)
from leae.data.prepare import Dataset
from leae.distributed import rank
from leae.errors import UsageError, first_line, require
from leae.files import (
    TEMPORARY,
    acquire_lock,
    names_file,
    one_at_a_time,
    read_bytes,
    read_json,
    remove,
    write_csv,
    write_json,
)
from leae.judge import Judge
from leae.training.device import device_name, precision_on
from leae.training.evaluation import health, report
from leae.training.pictures import draw_grid, draw_metrics, save_picture

RUNS = Path("runs")
CHECKPOINTS = ("000", "020", "040", "060", "080", "100")  # percent of a run at which one is kept
# What training writes into the folder, as patterns.
OWN_FILES = [Path(name) for name in ("settings.json", "metrics.csv", "metrics.png", "checkpoints/*", "grids/*")]
TRAINING = "leae training"  # in its pictures
MAX_METRICS, MAX_ROWS, MAX_COLUMNS = 2**28, 10**6, 100  # of metrics.csv; the first are bytes
# What is in settings.json; older runs have no defaults.
CONSTANTS = {str: (int | float | str, [int | float | str])}
SHAPE = {"kind": str, "settings": CONSTANTS, "defaults": (type(None), CONSTANTS)}
SHAPE |= {"data": {"name": str, "title": str, "identity": str}}
SHAPE |= {"command": [str], "steps": int, "device": str, "versions": {str: str}, "started": str}
# Constants that may change when a run is resumed, as they are no part of the experiment.
CHANGEABLE = ("DEVICE", "COMPILE", "LOG_EVERY", "GRID_EVERY", "GRID_IMAGES", "SAVE_MINUTES", "TRACKER")


def milestones(total_steps: int) -> dict[int, list[str]]:
    """The steps after which a checkpoint is kept, each with the names it is kept under: {0: ["000"], …}."""
    steps = {}
    for percent in CHECKPOINTS:
        steps.setdefault(math.ceil(total_steps * int(percent) / 100), []).append(percent)
    return steps


def versions() -> dict[str, str]:
    """What computes here, by name, and the source's git commit where there is one."""
    commit, root = "", Path(__file__).parents[2]
    with suppress(OSError):  # no git
        git = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]  # not that of a folder above it
        git += ["describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    libraries = {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    # torch.__version__ tells of CUDA, too
    return {"leae": commit or "unknown", "python": platform.python_version(), "torch": torch.__version__, **libraries}


class Run:
    """A run's settings and its folder. `Run.read` reads a run, `Run.resume` is for training it further.

    Of several processes that share a run only the first one writes; the methods of the others' do nothing.
    """

    def __init__(self, settings: dict, kind: str, defaults: dict | None = None):
        self.settings = settings  # the constants by name
        self.defaults = defaults or {}  # as the script has them, without its command line
        self.kind = kind  # "self-teaching", or the baseline's objective
        self.folder = None  # until it is made
        self.place = None  # an open descriptor of it, once this process has locked it
        self.data = {}  # name, title, identity and channels of the data set; empty for a new run
        self.init = None  # file and step of the weights that INIT means, where it means some
        self.content = {}  # of settings.json
        self.milestones = {}  # the steps after which a checkpoint is kept, with its names
        self.rows, self.columns = [], []  # of metrics.csv
        self.tracker, self.send = "", None  # the value of TRACKER, and what sends to it once it is open

    @classmethod
    def read(cls, folder: str | Path) -> "Run":
        """The run in a folder, of whatever kind and however far it came; raises what `read_settings` does."""
        content = read_settings(Path(folder))
        run = cls(content["settings"], content["kind"], content.get("defaults"))
        run.folder, run.data, run.content = Path(folder), content["data"], content
        return run

    @property
    def is_exported(self) -> bool:
        """Whether its folder was made by `export`: a model, which cannot be trained further."""
        return (self.folder / WEIGHTS).exists() and not (self.folder / "checkpoints").exists()

    @classmethod
    def resume(cls, folder: str | Path, *kinds: str) -> "Run":
        """The run in a folder, to train it further; while this process lives, no other one can.

        A `UsageError` if the folder is not a run of one of these kinds, or if a process is training it.
        """
        run = cls.read(folder)
        if run.is_exported:
            raise UsageError(f"{folder} is an exported model; start a new run from its weights: --init {folder}")
        if not (run.folder / "checkpoints").is_dir():
            raise UsageError(f"{folder} has lost its checkpoints; bring that folder back, or start a new run")
        if run.kind not in kinds:
            raise UsageError(f"{folder} is a {run.kind} run; resume it with the script that began it")
        for part in ("checkpoints", "grids", "tensorboard", "wandb"):
            if (run.folder / part).is_symlink():
                advice = "put the folder in its place, or link the whole run"
                raise UsageError(f"{run.folder / part} is a link, and a run writes into its own folder alone; {advice}")
        run._lock()
        return run

    def create_or_restore(
        self,
        dataset: Dataset,
        total_steps: int,
        model: BaseAutoencoder,
        optimizer: torch.optim.Optimizer,
        judge: nn.Module | None = None,
    ) -> int:
        """Make the run's folder, or restore the run from it, and print what is trained; how many steps have been made.

        Raises what `restore` does.
        """
        at, self.milestones = next(model.parameters()).device, milestones(total_steps)
        device, precision = device_name(at), precision_on(at, self.settings["PRECISION"])
        if not self.folder:
            self._create(dataset, model.image_shape[0], total_steps, device)
        start = self.restore(model, optimizer, judge)
        train, held_out = len(dataset.images["train"]), len(dataset.images[dataset.validation_split])
        held_out, (channels, size, _) = min(held_out, self.settings["HELD_OUT"]), model.image_shape
        grey = ", grey" if channels == 1 else ""
        print(f"device: {device}, {precision}")
        title = f"{dataset.title}, {dataset.label_count}" if dataset.class_names else dataset.title
        print(f"data: {title}, {train:,} images to train on, {held_out:,} held out, {size}×{size} pixels{grey}")
        print(f"model: a code of {model.latent_size:,} numbers an image, {model.compression:.0f}× compression")
        steps = f"steps {start:,} to {total_steps:,}, {self.settings['BATCH_SIZE']} images each"
        again = f"complete; a new run from its weights: --init {self.folder}"
        print(f"run: {again if start == total_steps else f'{steps}; to resume it: --resume {self.folder}'}")
        return start

    def _create(self, dataset: Dataset, channels: int, total_steps: int, device: str) -> None:
        """Make the run's folder: runs/NAME, or runs/<kind>-001, or with the next free number."""
        named = {"name": dataset.name, "title": dataset.title, "identity": dataset.identity}
        self.data = {**named, "channels": channels}
        self.settings["DATASET"] = dataset.name  # what "auto" meant
        if rank() > 0:
            return
        self.content = {
            "kind": self.kind,
            "settings": self.settings,
            "defaults": self.defaults,
            "data": self.data,
            "init": self.init,
            "steps": total_steps,
            "device": device,
            "versions": versions(),
            "command": sys.argv,
            "wandb_id": f"{time.time_ns():x}",
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        new = RUNS / ".new"
        with one_at_a_time(RUNS / "new"):
            taken = [re.fullmatch(rf"{self.kind}-(\d+)", path.name) for path in RUNS.iterdir()]
            number = 1 + max((int(name[1]) for name in taken if name), default=0)
            name = self.settings.get("NAME") or f"{self.kind}-{number:03d}"
            require_new(name)  # another process may just have taken it
            remove(new)  # left by a process that was killed here
            (new / "grids").mkdir(parents=True)
            (new / "checkpoints").mkdir()
            write_json(new / "settings.json", self.content)
            self.folder = new.rename(RUNS / name)
        self._lock()

    def _lock(self) -> None:
        if rank() == 0:
            try:
                self.lock = acquire_lock(self.folder / ".lock", wait=False)
            except Timeout as error:
                advice = "stop that one first, or let it finish"
                raise UsageError(f"another process is running {self.folder}; {advice}") from error
            if hasattr(os, "O_DIRECTORY"):  # not on Windows
                self.place = os.open(self.folder, os.O_DIRECTORY)
            for place in OWN_FILES:
                for left in (self.folder / place.parent).glob(TEMPORARY.format(place.name)):  # by a killed process
                    left.unlink()

    def _require_place(self) -> None:
        """Refuse to write where another folder, or none, lies by now: `UsageError`, or an OSError that names it."""
        if self.place is not None and not os.path.samestat(os.fstat(self.place), self.folder.stat()):
            raise UsageError(f"{self.folder} is another run's by now: this one's was moved or deleted")

    def save(
        self, step: int, model: BaseAutoencoder, optimizer: torch.optim.Optimizer, judge: nn.Module | None = None
    ) -> None:
        """Write last.safetensors, from which the run resumes, and at a milestone the model alone, to be kept.

        A `UsageError` if a gradient, a weight or a moment is not finite; what was saved before stays.
        """
        if rank() > 0:
            return
        self._require_place()
        folder, state = self.folder / "checkpoints", state_of(model, optimizer, judge)
        parameters = model.named_parameters()
        gradients = {f"the gradient of {name}": p.grad for name, p in parameters if p.grad is not None}
        bad = first_non_finite(gradients | state)
        if bad:
            diverged = f"{bad[0]} is {bad[1]} after step {step}, training has diverged"
            raise UsageError(f"{diverged}; start again with a lower LEARNING_RATE; {folder} is unchanged")
        for name in self.milestones.get(step, []):
            write_checkpoint(folder / f"{name}.safetensors", model, step, state_of(model))
        write_checkpoint(folder / "last.safetensors", model, step, state, run=self.settings)
        if not (self.folder / "settings.json").exists():  # it was deleted
            write_json(self.folder / "settings.json", self.content)

    def load_initial_weights(self, model: BaseAutoencoder, judge: Judge | None = None) -> None:
        """Give model and judge the weights that INIT names, unless it is empty or the run has saved its own.

        Raises what `find_weights` and `init_from_checkpoint` do.
        """
        if self.settings["INIT"] and not (self.folder and (self.folder / "checkpoints" / "last.safetensors").exists()):
            path = find_weights(self.settings["INIT"])
            self.init = {"file": str(path), "step": init_from_checkpoint(path, model, judge, self.settings)}
            print(f"weights: {path}, after {self.init['step']:,} steps")

    def restore(self, model: BaseAutoencoder, optimizer: torch.optim.Optimizer, judge: nn.Module | None = None) -> int:
        """Bring everything to where last.safetensors left it; how many steps have been made, 0 for a new run.

        Rows of metrics.csv from later steps are dropped, for these steps will be made again. A `UsageError` if either
        file is damaged, missing, or not of this run.
        """
        if not self.folder:
            return 0
        path = self.folder / "checkpoints" / "last.safetensors"
        saved, logged = path.exists(), (self.folder / "metrics.csv").exists()  # saved before anything is logged
        kept = any(path.with_stem(name).exists() for name in CHECKPOINTS[1:])
        if (logged or kept) and not saved:
            advice = f"bring it back, or start a new run from its weights: --init {self.folder}"
            raise UsageError(f"{path}, from which this run resumes, is missing; {advice}")
        start, settings = restore_checkpoint(path, model, optimizer, judge) if saved else (0, {})
        for name, value in settings.items():
            if name not in CHANGEABLE and tuples(value) != self.settings.get(name):
                changed = f"{name} is {self.settings.get(name)} in {self.folder}/settings.json, and was {tuples(value)}"
                advice = f"put it back, or start a new run from its weights: --init {self.folder}"
                raise UsageError(f"{changed} when the run was saved; {advice}")
        if rank() == 0 and logged:
            self.rows = [row for row in read_metrics(self.folder) if int(row["step"]) <= start]
            self._write_metrics()
        return start

    def log(self, split: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Add a row to metrics.csv: what was measured of a split after so many steps; a new name adds a column.

        It takes the place of the last one if that is of the same step, as in a resumed run.
        """
        if rank() > 0:
            return
        self._require_place()
        figures = {name: f"{value:.6g}" for name, value in values.items()}
        if again := [(row["split"], row["step"]) for row in self.rows[-1:]] == [(split, str(step))]:
            self.rows.pop()
        self.rows.append({"split": split, "step": str(step), "epoch": f"{epoch:.6g}", **figures})
        path = self.folder / "metrics.csv"
        if again or values.keys() - set(self.columns) or not path.exists():
            self._write_metrics()
        else:
            with names_file(path), path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(self.rows[-1])
        if split != "train":
            before, verdict = health(self.rows[:-1]), health(self.rows)
            if verdict.startswith("collapsed") and not before.startswith("collapsed"):
                tqdm.write(f"warning: {verdict}", file=sys.stderr)
        self.track(step, {f"{split}/{name}": float(value) for name, value in {"epoch": epoch, **values}.items()})

    def _write_metrics(self) -> None:
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        rows = ([row.get(name, "") for name in self.columns] for row in self.rows)
        write_csv(self.folder / "metrics.csv", self.columns, rows)

    def draw(self, name: str, step: int, rows: dict[str, Tensor]) -> None:
        """Write grids/<name>-<step>.png; see `draw_grid`."""
        if rank() == 0:
            title = f"{self.folder.name}, {self.data['title']}: {name} images, step {step:,}"
            picture = draw_grid(rows, title)
            self._require_place()
            (self.folder / "grids").mkdir(exist_ok=True)
            save_picture(picture, self.folder / "grids" / f"{name}-{step:06d}.png", by=TRAINING)
            self.track(step, {f"grids/{name}": picture})

    def track(self, step: int, values: dict[str, float | Image]) -> None:
        """Send figures or pictures to the tracker, if there is one. If it fails, a warning says so, and it is left."""
        try:
            if self.tracker:
                self.send = self.send or open_tracker(self)
                self.send(step, values)
        except Exception as error:  # of a library, a network, a disk
            tqdm.write(f"warning: {self.tracker} has failed, the run goes on: {first_line(error)}", file=sys.stderr)
            self.tracker = ""

    def plot_metrics(self) -> None:
        """Write metrics.png; see `draw_metrics`."""
        if rank() == 0:
            self._require_place()
            title = f"{self.folder.name}\n{report(self.rows)}"
            save_picture(draw_metrics(self.rows, title), self.folder / "metrics.png", by=TRAINING)


def open_tracker(run: Run):
    """A function of a step and of figures and pictures by name, which sends them to the run's tracker."""
    if run.tracker == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        first = int(run.rows[-2]["step"]) + 1 if run.rows[1:] else 0  # later rows, which a resumed run has dropped, go
        writer = SummaryWriter(run.folder / "tensorboard", purge_step=first)
        writer.add_text("settings", "\n".join(f"    {name} = {value!r}" for name, value in run.settings.items()))

        def send(step: int, values: dict[str, float | Image]) -> None:
            for name, value in values.items():
                if isinstance(value, Image):
                    writer.add_image(name, np.asarray(value), step, dataformats="HWC")
                else:
                    writer.add_scalar(name, value, step)
            writer.flush()

        return send
    os.environ.update({"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"} | os.environ)  # sends only if asked
    import wandb

    about = {"id": run.content["wandb_id"], "project": "leae", "name": run.folder.name, "config": run.settings}
    sent = wandb.init(dir=run.folder, resume="allow", settings=wandb.Settings(silent=True, console="off"), **about)
    sent.define_metric("*", step_metric="step")  # as its own count of steps never goes back
    return lambda step, values: sent.log(
        {"step": step} | {name: wandb.Image(v) if isinstance(v, Image) else v for name, v in values.items()}
    )


def init_from_checkpoint(path: Path, model: BaseAutoencoder, judge: Judge | None, settings: dict) -> int:
    """Give the model of a new run with these settings a checkpoint's weights; the steps that they have had.

    The judge is the checkpoint's, or a copy of the encoder where that has none of this kind. Raises what
    `load_checkpoint` does, and a `UsageError` that names the sizes that differ if the weights do not fit the model.
    """
    source, step = load_checkpoint(path)
    if source.settings["output"] != model.settings["output"]:
        print(f"warning: {path} was trained on pixels of another scale, OUTPUT {source.settings['output']}")
    try:
        model.load_state_dict(source.state_dict())
    except RuntimeError as error:
        own, stored = ({"model": type(each).__name__, **each.settings} for each in (model, source))
        same = {name for name in own if own[name] == stored.get(name)}
        differing = [f"{name} is {own[name]}, and {stored.get(name)} in {path}" for name in own if name not in same]
        why = "weights of other sizes, or of another kind, cannot be used"
        raise UsageError(f"{'; '.join(differing)}: {why}") from error
    if judge:
        judge.encoder.load_state_dict(model.encoder.state_dict())
        header, tensors = read_checkpoint(path)
        kind = ("JUDGE_LIVE", "JUDGE_NORM", "CROP_RATIOS")
        if all(tuples(header["run"].get(name)) == settings[name] for name in kind):
            try:
                judge.load_state_dict(part_of(tensors, "judge"))
            except RuntimeError as error:
                raise UsageError(f"the judge in {path} is not of its run's settings ({first_line(error)})") from error
    return step


def require_new(name: str) -> None:
    """Refuse a run's name that is no plain folder name, or is taken: `UsageError`."""
    plain = re.fullmatch(r"[^\W_][\w.+=-]{0,99}", name)
    require(plain is not None, "NAME", name, "a folder's name: letters, digits, and behind the first also . _ + = -")
    if os.path.lexists(RUNS / name):
        raise UsageError(f"{RUNS / name} exists; choose another --name, or resume it: --resume {RUNS / name}")


def tuples(value):
    """A setting as it was before JSON made a list of a tuple."""
    return tuple(value) if isinstance(value, list) else value


def read_settings(folder: Path) -> dict:
    """The content of settings.json: "kind", "settings", "defaults", "data" and more; `UsageError` if not a run's."""
    try:
        content = read_json(folder / "settings.json", SHAPE)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        known = ", ".join(sorted(str(path.parent) for path in RUNS.glob("*/settings.json"))) or "none yet"
        said = f"{folder} is not a run's folder of this version: no settings.json, or another ({first_line(error)})"
        raise UsageError(f"{said}; runs here: {known}") from error
    constants = {"settings": content["settings"], "defaults": content.get("defaults") or {}}
    return content | {part: {name: tuples(value) for name, value in of.items()} for part, of in constants.items()}


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The complete rows of metrics.csv; a last one that was cut off, by a full disk say, is left out.

    A `UsageError` if there are other things in it.
    """
    path = folder / "metrics.csv"
    try:
        lines = io.StringIO(read_bytes(path, MAX_METRICS).decode("utf-8-sig"), newline="")
        table = csv.DictReader(line for line in lines if line.endswith("\n"))
        columns = table.fieldnames or ["split", "step"]
        require({"split", "step"} <= {*columns}, "its first line", ",".join(columns)[:80], "split,step and others")
        require(len(columns) <= MAX_COLUMNS, "the number of columns", len(columns), f"at most {MAX_COLUMNS}")
        rows = list(islice(table, MAX_ROWS + 1))
        require(len(rows) <= MAX_ROWS, "the number of rows", len(rows), f"at most {MAX_ROWS:,}")
        for row in rows:
            if None in row or None in row.values() or int(row["step"]) < 0 or not row["split"]:
                raise ValueError(f"the row of step {row['step']} does not have a value for every column")
            [float(value) for name, value in row.items() if value and name != "split"]
    except (ValueError, TypeError, LookupError, csv.Error) as error:
        raise UsageError(f"{path} cannot be used ({error}); move it away to resume without these rows") from error
    return [{name: value for name, value in row.items() if value} for row in rows]
