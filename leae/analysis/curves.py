"""How the figures of runs grow with training: every kept checkpoint, against images seen and against time."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from leae.analysis.measure import Measured, Sample, measure
from leae.analysis.table import CSV_HEAD, SUMMARY, Column, columns_of, csv_rows
from leae.analysis.trained import TrainedRun, find_checkpoint, open_runs
from leae.errors import require
from leae.files import write_csv
from leae.training.pictures import save_picture
from leae.training.run import CHECKPOINTS, read_metrics

AXES = {"images": "images seen", "minutes": "minutes of training"}
PANELS = 5  # in a row


def training_minutes(run: TrainedRun) -> float:
    """How long its steps took at the median of metrics.csv's rates, which other load hardly moves."""
    rates = [float(row["images_per_second"]) for row in read_metrics(run.folder)[1] if "images_per_second" in row]
    require(rates, f"images_per_second in {run.folder}/metrics.csv", rates, "that of some steps, which tells the time")
    return run.step * run.settings["BATCH_SIZE"] / median(rates) / 60


def require_curves(runs: list[TrainedRun]) -> None:
    """Refuse runs that lack a checkpoint or the rates: `UsageError` now, not after hours of work."""
    for run in runs:
        training_minutes(run)
        for name in CHECKPOINTS:
            find_checkpoint(run.folder, name)


def measure_curves(folders: list[str], sample: Sample, device: torch.device) -> list[list[Column]]:
    """For each of CHECKPOINTS the columns of the runs in some folders, with AXES among the figures; no resamples."""
    sample.weights = sample.weights[:1]
    curves = []
    for name in CHECKPOINTS:
        models = [Measured(f"{run.name}, {name}", run.model, run) for run in open_runs(folders, name, device)]
        for one in models:
            measure(one, sample, device)
            axes = {"images": one.run.step * one.run.settings["BATCH_SIZE"], "minutes": training_minutes(one.run)}
            one.values |= {axis: np.array([float(value)]) for axis, value in axes.items()}
            one.model, one.run = None, replace(one.run, model=None)  # which take memory
        curves.append(columns_of(models))
    return curves


def write_curves(curves: list[list[Column]], path: Path, title: str) -> list[Path]:
    """Write a CSV file with a row for each checkpoint, column and figure, and a picture beside it for each of AXES."""
    rows = []
    for name, columns in zip(CHECKPOINTS, curves, strict=True):
        for column in columns:
            along = [f"{column.estimate(axis).value:.6g}" for axis in AXES]
            rows += [[name, *along, *row] for row in csv_rows(column, columns[0], SUMMARY)]
    write_csv(path, ["checkpoint", *AXES, *CSV_HEAD], rows)
    pictures = [path.with_name(f"{path.stem}-{axis}.png") for axis in AXES]
    for axis, picture in zip(AXES, pictures, strict=True):
        save_picture(draw_curves(curves, axis, title), picture)
    return [path, *pictures]


def draw_curves(curves: list[list[Column]], axis: str, title: str) -> Figure:
    """A line for each column, and its interval over seeds as a band: every figure against one of AXES."""
    names = [name for name in SUMMARY if name in curves[0][0].models[0].values]
    rows = -(-len(names) // PANELS)
    figure = Figure(figsize=(16, 1 + 2.7 * rows), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, PANELS, place)
        for number, column in enumerate(zip(*curves, strict=True)):  # as it is after each checkpoint
            along, estimates = [at.estimate(axis).value for at in column], [at.estimate(name) for at in column]
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
            axes.plot(along, [at.value for at in estimates], marker=".", label=column[0].title, **style)
            low, high = [at.low for at in estimates], [at.high for at in estimates]
            axes.fill_between(along, low, high, color=style["color"], alpha=0.2, linewidth=0)
        scale = "log" if name == "sigreg_statistic" else "linear"
        axes.set(xlabel=AXES[axis], title=SUMMARY[name][0], yscale=scale)
        if axis == "images":
            axes.xaxis.set_major_formatter(EngFormatter())  # 100 k
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, title=title)
    return figure
