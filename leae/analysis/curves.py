"""How the figures of runs grow with training: every kept checkpoint, against images seen and against time."""

import math
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leae.analysis.measure import Measured, Sample, measure
from leae.analysis.table import CSV_HEAD, FIGURES, Column, columns_of, csv_rows, summary_of
from leae.analysis.trained import TrainedRun, open_runs, output_path, require_own
from leae.errors import require
from leae.files import write_csv
from leae.training.pictures import save_picture
from leae.training.run import CHECKPOINTS, read_metrics

AXES = {"images": "images seen", "minutes": "minutes of training"}


def training_minutes(run: TrainedRun) -> float:
    """How long its steps took at the median of metrics.csv's rates, which other load hardly moves."""
    rates = [float(row.get("images_per_second", 0)) for row in read_metrics(run.folder)]
    rates = [rate for rate in rates if 0 < rate < math.inf]
    require(rates, f"images_per_second in {run.folder}/metrics.csv", rates, "that of some steps, which tells the time")
    return run.step * run.settings["BATCH_SIZE"] / median(rates) / 60


def open_curves(folders: list[str], device: torch.device) -> list[list[Measured]]:
    """For each of CHECKPOINTS the runs in some folders, with AXES for figures; raises what `open_runs` does."""
    curves = []
    for checkpoint in CHECKPOINTS:
        models = [Measured(run.name, run.model, run) for run in open_runs(folders, checkpoint, device)]
        for one in models:
            images = one.run.step * one.run.settings["BATCH_SIZE"]
            one.values = {"images": np.array([images]), "minutes": np.array([training_minutes(one.run)])}
        curves.append(models)
    return curves


def pictures_beside(path: Path) -> list[Path]:
    """The pictures of the curves that are written to a .csv file, one for each of AXES."""
    return [path.with_name(f"{path.stem}-{axis}.png") for axis in AXES]


def write_curves(
    curves: list[list[Measured]], sample: Sample, device: torch.device, asked: Path | None, title: str
) -> list[Path]:
    """Measure the runs, write their figures at each checkpoint as CSV, and a picture beside it for each of AXES.

    What is written comes back; `asked` is where to, if not to an `output_path`.
    """
    sample.weights = sample.weights[:1]  # no intervals over images
    for models in curves:
        for one in models:
            measure(one, sample, device)
    by_checkpoint = dict(zip(CHECKPOINTS, map(columns_of, curves), strict=True))
    figures = [*AXES, *summary_of(by_checkpoint[CHECKPOINTS[0]])]
    rows = [[checkpoint, *row] for checkpoint, columns in by_checkpoint.items() for row in csv_rows(columns, figures)]
    with output_path(asked, "curves", ".csv", *(f"-{axis}.png" for axis in AXES)) as path:
        pictures = pictures_beside(path)
        require_own(*pictures)
        write_csv(path, ["checkpoint", *CSV_HEAD], rows)
        for axis, picture in zip(AXES, pictures, strict=True):
            save_picture(draw_curves(list(by_checkpoint.values()), axis, title), picture)
    return [path, *pictures]


def summary_panels(columns: list[Column], height: float, **options) -> tuple[Figure, dict[str, Axes]]:
    """A picture with a panel for each figure of `summary_of`, by its name; `options` are for `subplots`."""
    figure = Figure(figsize=(18, height), layout="constrained")
    panels = dict(zip(summary_of(columns), figure.subplots(2, 5, **options).flat, strict=True))
    for name, axes in panels.items():
        axes.set(title=FIGURES[name][0])
        axes.grid(alpha=0.3)
    return figure, panels


def draw_curves(curves: list[list[Column]], axis: str, title: str) -> Figure:
    """A line for each column, and its interval over seeds as a band: every figure against one of AXES."""
    figure, panels = summary_panels(curves[0], height=6.4)
    for name, axes in panels.items():
        for column in zip(*curves, strict=True):  # as it is after each checkpoint
            along = [at.estimate(axis).value for at in column]
            values, low, high = np.transpose([at.estimate(name) for at in column])
            [line] = axes.plot(along, values, marker=".", label=column[0].title)
            if name == "sigreg_statistic":  # whose logarithms have no place for an interval's end below zero
                low = low.clip(min=np.fmin.reduce(values) / 2)
            axes.fill_between(along, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set(xlabel=AXES[axis], yscale="log" if name == "sigreg_statistic" else "linear")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, title=title)
    return figure
