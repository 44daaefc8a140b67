"""A run's folder: settings, metrics, curves, grids of pictures, checkpoints, and how a run is resumed.

runs/self-teaching-001/
  settings.json   metrics.csv   metrics.png
  grids/          train-000500.png, test-000500.png, …
  checkpoints/    000.pt, 020.pt … 100.pt (percent of the run) and last.pt, from which the run resumes
"""

import csv
import json
import math
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from leae.distributed import rank
from leae.errors import UsageError
from leae.files import hold, whole_file, whole_folder
from leae.training.checkpoints import (
    UNREADABLE,
    model_of,
    read_checkpoint,
    reason_of,
    require_same_shapes,
    require_state_of,
    tensors_of,
    write_checkpoint,
)
from leae.training.monitoring import first_non_finite
from leae.training.pictures import draw_grid
from leae.training.settings import constants_of, read_command_line, require_text

RUNS = Path("runs")
MILESTONES = (0, 20, 40, 60, 80, 100)  # percent of a run at which a checkpoint is kept
METRICS_SECONDS = 1.0  # metrics.csv is written at most so often; where a checkpoint is, it is up to date


def milestones(total_steps: int) -> dict[int, list[str]]:
    """The steps after which a checkpoint is kept, each with the names it is kept under: {0: ["000"], …}."""
    steps = {}
    for percent in MILESTONES:
        steps.setdefault(math.ceil(total_steps * percent / 100), []).append(f"{percent:03d}")
    return steps


def versions() -> dict[str, str]:
    """What computes here, by name."""
    libraries = {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), "torch": torch.__version__, **libraries}


def begin(namespace: dict, *kinds: str) -> tuple["Run | None", dict]:
    """Give a script's constants the values of this run: the command line's or, with --resume, those it began with.

    Args:
        namespace: the script's `globals()`, of which the constants are set.
        *kinds: the kinds of runs that the script goes on with.

    Returns:
        The run that is resumed, or None; and the constants that the command line sets.

    Raises:
        UsageError: a wrong command line, or a run that cannot be resumed like this.
    """
    chosen = read_command_line(namespace)
    namespace.update(chosen)
    require_text(RESUME=namespace["RESUME"])
    if not namespace["RESUME"]:
        return None, chosen
    run = Run.resume(namespace["RESUME"], *kinds)
    settings = run.settings_with(chosen)
    unknown = settings.keys() - constants_of(namespace).keys()
    if unknown:
        raise UsageError(
            f"{run.folder / 'settings.json'} sets {min(unknown)}, which is no constant of {Path(sys.argv[0]).name}; "
            f"resume the run with the version of leae that began it"
        )
    namespace.update(settings)
    return run, chosen


class Run:
    """A run's folder. `Run.create` makes one, `Run.resume` goes on with it, `Run.read` only looks at it.

    Of several processes that share a run only the first writes; the methods of the others' do nothing.

    Attributes:
        kind: "self-teaching", or the baseline's objective.
        folder: where everything is written.
        settings: the constants of the run by name.
        terms: the names of the loss terms that are logged.
        measures: the names of the held-out figures that are logged.
        data: title and fingerprint of the data set.
    """

    def __init__(self, kind: str, folder: Path, settings: dict, terms: list[str], measures: list[str], data: dict):
        self.kind = kind
        self.folder = folder
        self.settings = settings
        self.terms = terms
        self.measures = measures
        self.data = data
        self.rows, self.written = [], -math.inf  # of metrics.csv; when it was last written

    @classmethod
    def create(cls, kind: str, settings: dict, terms: list[str], measures: list[str], data: dict, device: str) -> "Run":
        """A new folder runs/<kind>-001, or the next number that is free.

        Args:
            kind: what the run is called.
            settings: the script's constants.
            terms: the names of the loss terms that will be logged.
            measures: the names of the held-out figures that will be logged.
            data: name, title and fingerprint of the data set.
            device: what the run is trained on.
        """
        settings = {name: value for name, value in settings.items() if name != "RESUME"}
        settings["DATASET"] = data["name"]  # what "auto" meant
        if rank() > 0:
            return cls(kind, RUNS / kind, settings, terms, measures, data)
        content = {
            "kind": kind,
            "settings": settings,
            "terms": terms,
            "measures": measures,
            "data": data,
            "device": device,
            "versions": versions(),
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        names = [re.fullmatch(rf"{kind}-(\d+)", path.name) for path in RUNS.glob(f"{kind}-*")]
        number = max((int(name[1]) for name in names if name), default=0) + 1
        while True:
            folder = RUNS / f"{kind}-{number:03d}"
            try:
                with whole_folder(folder, replace=False) as new:
                    (new / "grids").mkdir()
                    (new / "checkpoints").mkdir()
                    with whole_file(new / "settings.json") as file:
                        json.dump(content, file, indent=2)
                    hold(new / "settings.json")
                return cls(kind, folder, settings, terms, measures, data)
            except FileExistsError:  # another process was quicker
                number += 1

    @classmethod
    def read(cls, folder: str | Path) -> "Run":
        """The run in a folder, whatever kind it is of and however far it came.

        Raises:
            UsageError: the folder is not a run's.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            kind, settings, terms = content["kind"], content["settings"], content["terms"]
            data = {name: content["data"][name] for name in ("name", "title", "fingerprint")}
            measures = content.get("measures", ["psnr_clean", "psnr_masked"])
            texts = (kind, *data.values(), *terms, *measures)
            if not isinstance(settings, dict) or not all(isinstance(text, str) for text in texts):
                raise TypeError("settings.json holds other things than a run's")
        except KeyError as error:
            raise UsageError(
                f"{folder}/settings.json has no {error}: the run is of another version of leae; train it again"
            ) from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            known = ", ".join(sorted(str(path.parent) for path in RUNS.glob("*/settings.json"))) or "none yet"
            raise UsageError(
                f"{folder} is not a run's folder (no settings.json of a run); runs here: {known}"
            ) from error
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        return cls(kind, folder, settings, terms, measures, data)

    @classmethod
    def resume(cls, folder: str | Path, *kinds: str) -> "Run":
        """The run in a folder, to go on with; as long as this process lives, no other one can.

        Raises:
            UsageError: the folder is not a run of one of these kinds, or a process is at it.
        """
        run = cls.read(folder)
        if run.kind not in kinds:
            expected = f"{', '.join(kinds[:-1])} or {kinds[-1]}" if len(kinds) > 1 else kinds[0]
            raise UsageError(
                f"{folder} is a {run.kind} run, not a {expected} run; resume it with the script that began it"
            )
        if rank() == 0 and not hold(run.folder / "settings.json"):
            raise UsageError(f"{folder} is still running, in another process; stop that one first, or let it finish")
        return run

    def settings_with(self, chosen: dict) -> dict:
        """The run's settings, for a command line that asks for `chosen`; only the device may change.

        Raises:
            UsageError: the command line asks for another value than the run began with.
        """
        for name, value in chosen.items():
            if name in self.settings and name != "DEVICE" and self.settings[name] != value:
                raise UsageError(
                    f"{name} is {self.settings[name]} in {self.folder}, not {value}; a resumed run keeps its settings, "
                    f"so leave the option out or start a new run"
                )
        return {**self.settings, **{name: value for name, value in chosen.items() if name == "DEVICE"}}

    # --- checkpoints -------------------------------------------------------------------------------------------

    def save(self, name: str, model: nn.Module, step: int, others: dict | None = None) -> None:
        """Write checkpoints/<name>.pt, whole or not at all.

        Args:
            name: "last", or the percent of the run in three digits.
            model: the model; with its class and settings, so that `load` needs nothing else.
            step: how many optimizer steps it has had.
            others: by name, whatever else with a state dict a resumed run needs.
        """
        if rank() > 0:
            return
        others = {key: other.state_dict() for key, other in (others or {}).items()}
        self.require_finite(model, step, others)
        self._write_metrics()  # a run goes on from here with the rows so far
        content = {"class": type(model).__name__, "settings": model.settings, "weights": model.state_dict()}
        checkpoint = {"model": content, "step": step, "others": others}
        write_checkpoint(self.folder / "checkpoints" / f"{name}.pt", checkpoint)

    def require_finite(self, model: nn.Module, step: int, others: dict) -> None:
        """Refuse to keep what training has spoilt, so that what was kept before stays.

        Args:
            model: its gradients and weights are looked at.
            step: how many optimizer steps it has had.
            others: state dicts by name, the judge's and the optimizer's say.

        Raises:
            UsageError: a number in them is not finite.
        """
        gradients = {
            f"the gradient of {name}": parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        bad = first_non_finite({**gradients, **model.state_dict(), **dict(tensors_of(others))})
        if bad:
            raise UsageError(
                f"{bad[0]} is {bad[1]} after step {step}, training has diverged; lower LEARNING_RATE; "
                f"{self.folder / 'checkpoints'} is as it was"
            )

    def check_data(self, data: dict) -> None:
        """Refuse to go on with another data set than the run began with.

        Raises:
            UsageError: the fingerprints differ.
        """
        if data["fingerprint"] != self.data["fingerprint"]:
            raise UsageError(
                f"{self.folder} was trained on {self.data['title']}, which has changed since; "
                f"bring back the data set as it was, or start a new run"
            )

    def restore(self, model: nn.Module, others: dict, device: torch.device) -> int:
        """Bring model and others to where last.pt left them, and metrics.csv as well.

        Rows of metrics.csv from later steps are dropped, for these steps will be made again. A run that was stopped
        before it wrote last.pt begins again.

        Returns:
            How many steps have been made.

        Raises:
            UsageError: last.pt or metrics.csv cannot be read, or is not of this run.
        """
        path = self.folder / "checkpoints" / "last.pt"
        start = 0
        if path.exists():
            checkpoint = read_checkpoint(path, device)
            try:
                self._load(checkpoint, model, others)
            except UNREADABLE as error:
                raise UsageError(f"{path} does not fit this run ({reason_of(error)}); start a new run") from error
            start = checkpoint["step"]
        if rank() == 0:
            # At step 0 the first look comes again, too.
            self.rows = [row for row in self.read_metrics() if int(row["step"]) <= start] if start else []
            self._write_metrics()
        return start

    def _load(self, checkpoint: dict, model: nn.Module, others: dict) -> None:
        """Load a checkpoint's state dicts, once it is known that all of them fit.

        Raises:
            one of UNREADABLE: one does not.
        """
        stored = checkpoint["model"]
        if (stored["class"], stored["settings"]) != (type(model).__name__, model.settings):
            raise ValueError("its model has other settings")
        require_same_shapes(stored["weights"], model.state_dict())
        for key, other in others.items():
            if isinstance(other, torch.optim.Optimizer):
                require_state_of(other, checkpoint["others"][key])
            else:
                require_same_shapes(checkpoint["others"][key], other.state_dict())
        model.load_state_dict(stored["weights"])
        for key, other in others.items():
            other.load_state_dict(checkpoint["others"][key])

    # --- metrics -----------------------------------------------------------------------------------------------

    def log(self, split: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Add a row to metrics.csv, which is written at most once a second, and before every checkpoint.

        Args:
            split: "train" or "test".
            step: how many optimizer steps have been made.
            epoch: how often the training images have been seen.
            values: loss terms and "images_per_second", or measures; what is missing stays empty.
        """
        if rank() > 0:
            return
        numbers = {name: f"{value:.6g}" for name, value in values.items()}
        row = {"split": split, "step": str(step), "epoch": f"{epoch:.6g}", **numbers}
        self.rows.append({name: row.get(name, "") for name in self.columns})
        if time.monotonic() - self.written > METRICS_SECONDS:
            self._write_metrics()

    @property
    def columns(self) -> list[str]:
        """Those of metrics.csv."""
        return ["split", "step", "epoch", "images_per_second", *self.terms, *self.measures]

    def _write_metrics(self) -> None:
        with whole_file(self.folder / "metrics.csv") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self.written = time.monotonic()

    def read_metrics(self) -> list[dict[str, str]]:
        """The complete rows of metrics.csv; a last one that was cut off, as a full disk once did, is left out.

        Raises:
            UsageError: there are other things in it.
        """
        path = self.folder / "metrics.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            if rows and None in rows[-1].values():
                rows.pop()
            if rows and reader.fieldnames != self.columns:
                raise ValueError("it has other columns")
            for row in rows:
                int(row["step"])
                [float(row[name]) for name in self.columns[2:] if row[name]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise UsageError(f"{path} is damaged ({error}); move it away to go on without the rows so far") from error
        return rows

    def plot_metrics(self) -> None:
        """Draw metrics.png: the loss terms of training, and the held-out PSNR."""
        figure = Figure(figsize=(11, 4.5))
        margins = {"left": 0.08, "right": 0.99, "bottom": 0.11, "top": 0.93}  # a layout engine would draw it twice
        losses, quality = figure.subplots(1, 2, gridspec_kw=margins)
        for axes, names in ((losses, self.terms), (quality, self.measures)):
            for name in names:
                points = [(int(row["step"]), float(row[name])) for row in self.rows if row[name]]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, marker=".")
            axes.set_xlabel("step")
            axes.grid(alpha=0.3)
            if axes.has_data():
                axes.legend(fontsize="small")
        losses.set(title="training loss and its terms", yscale="log" if losses.has_data() else "linear")
        quality.set(title="held-out reconstruction", ylabel="PSNR (dB)")
        with whole_file(self.folder / "metrics.png", "wb") as file:
            figure.savefig(file, format="png", dpi=110)

    # --- grids -------------------------------------------------------------------------------------------------

    def look(
        self,
        step: int,
        epoch: float,
        quality: dict[str, float],
        grids: dict[str, dict[str, Tensor]],
        model: nn.Module,
        others: dict,
        keep: list[str],
    ) -> None:
        """Write down what a look at the model gave: a row of metrics, curves, grids and checkpoints.

        Args:
            step: how many optimizer steps have been made.
            epoch: how often the training images have been seen.
            quality: the measures.
            grids: by the name of the grid, its rows; see `draw_grid`.
            model, others: what is kept; see `save`.
            keep: names of checkpoints that are due besides "last".
        """
        if rank() > 0:
            return
        self.require_finite(model, step, {key: other.state_dict() for key, other in others.items()})
        self.log("test", step, epoch, quality)
        self.plot_metrics()
        for name, rows in grids.items():
            self.save_grid(name, step, rows)
        for name in keep:
            self.save(name, model, step)
        self.save("last", model, step, others)

    def save_grid(self, name: str, step: int, rows: dict[str, Tensor]) -> Path:
        """Write grids/<name>-<step>.png; see `draw_grid`."""
        path = self.folder / "grids" / f"{name}-{step:06d}.png"
        title = f"{self.folder.name} · {name} · step {step}"
        with whole_file(path, "wb") as file:
            draw_grid(rows, title).save(file, format="PNG", optimize=True)
        return path


def load(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The model of a checkpoint, in evaluation mode.

    Args:
        path: a checkpoint's file, for example runs/self-teaching-001/checkpoints/100.pt.
        device: where the model is to be.

    Raises:
        UsageError: the file is missing, or is not a checkpoint of this project.
    """
    return load_with_step(path, device)[0]


def load_with_step(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, int]:
    """What `load` gives, and how many optimizer steps the model has had."""
    checkpoint = read_checkpoint(Path(path), device)
    try:
        model = model_of(checkpoint)
    except UNREADABLE as error:
        raise UsageError(f"{path}: the weights do not fit the stored settings ({reason_of(error)})") from error
    return model.to(device).eval(), checkpoint["step"]
