"""How the figures of runs grow with training: every kept checkpoint, against images seen and against time."""

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from leae.analysis.measure import Measured, Sample, measure
from leae.analysis.table import Column, columns_of
from leae.analysis.trained import open_runs
from leae.errors import require
from leae.files import atomic_write
from leae.training.run import CHECKPOINTS, Run

FIGURES = {
    "psnr_clean": "PSNR, clean (dB)",
    "psnr_masked": "PSNR, masked (dB)",
    "linear_clean_auroc": "linear probes, clean: AUROC",
    "linear_masked_auroc": "linear probes, masked: AUROC",
    "neighbours_clean_balanced_accuracy": "neighbours, clean",
    "neighbours_masked_balanced_accuracy": "neighbours, masked",
    "sigreg": "SIGReg statistic",
    "effective_rank": "effective rank",
}
AXES = {"images": "images seen", "minutes": "minutes of training"}


def training_minutes(run: Run, step: int) -> float:
    """How long the steps up to this one take at the median of metrics.csv's rates, which other load hardly moves."""
    rates = [float(row["images_per_second"]) for row in run.read_metrics() if "images_per_second" in row]
    require(rates, f"images_per_second in {run.folder}/metrics.csv", rates, "that of some steps, which tells the time")
    return step * run.settings["BATCH_SIZE"] / median(rates) / 60


def measure_curves(folders: list[str], sample: Sample, device: torch.device) -> list[list[Column]]:
    """For each of CHECKPOINTS the columns of the runs in some folders, with FIGURES and AXES; without resamples."""
    sample.weights = sample.weights[:1]
    curves = []
    for name in CHECKPOINTS:
        models = [Measured(f"{run.name}, {name}", run.model, run) for run in open_runs(folders, name, device)]
        for one in models:
            measure(one, sample, None, device)
            seen = one.run.step * one.run.run.settings["BATCH_SIZE"]
            axes = {"images": seen, "minutes": training_minutes(one.run.run, one.run.step)}
            one.values |= {axis: np.array([float(value)]) for axis, value in axes.items()}
            one.model, one.run = None, replace(one.run, model=None)  # which take memory
        curves.append(columns_of(models))
    return curves


def write_curves(curves: list[list[Column]], path: Path) -> None:
    """A CSV file with a row for each checkpoint, column and figure: the mean over seeds and its 95 % interval."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(["column", "checkpoint", *AXES, "figure", "value", "low", "high"])
        for name, columns in zip(CHECKPOINTS, curves, strict=True):
            for column, figure in product(columns, FIGURES):
                along = [column.estimate(axis).texts[0] for axis in AXES]
                if figure in column.models[0].values:
                    writer.writerow([column.title, name, *along, figure, *column.estimate(figure).texts])


def draw_curves(curves: list[list[Column]], axis: str, title: str) -> Figure:
    """A line for each column, and its interval over seeds as a band: every figure against one of AXES."""
    panels = [name for name in FIGURES if name in curves[0][0].models[0].values]
    figure = Figure(figsize=(13, 1 + 2.7 * -(-len(panels) // 4)), layout="constrained")
    for place, name in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // 4), 4, place)
        for number, column in enumerate(zip(*curves, strict=True)):  # as it is after each checkpoint
            along, estimates = [at.estimate(axis).value for at in column], [at.estimate(name) for at in column]
            style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
            axes.plot(along, [at.value for at in estimates], marker=".", label=column[0].title, **style)
            low, high = [at.low for at in estimates], [at.high for at in estimates]
            axes.fill_between(along, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set(xlabel=AXES[axis], title=FIGURES[name], yscale="log" if name == "sigreg" else "linear")
        if axis == "images":
            axes.xaxis.set_major_formatter(EngFormatter())  # 100 k
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, title=title)
    return figure
