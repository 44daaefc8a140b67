"""The table of `evaluate` and `ablate`: estimates with their intervals, columns of runs, Markdown and CSV."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from leae.analysis.measure import VIEWS, Measured
from leae.analysis.trained import TrainedRun, distinct_names
from leae.errors import one_line
from leae.training.run import CHANGEABLE

INCIDENTAL = ("NAME", *CHANGEABLE)  # constants that are no part of an experiment
# In which a column's runs may differ, as all are on the same images.
WITHIN_COLUMN = {*INCIDENTAL, "SEED", "DATASET", "CLASSES", "FACES", "CHANNELS", "UPSCALE"}

LABELS = {
    "psnr_{}": ("PSNR (dB), {}", ".2f"),
    "psnr_square_{}": ("PSNR (dB) in the square, {}", ".2f"),
    "ssim_{}": ("SSIM, {}", ".3f"),
    "ssim_square_{}": ("SSIM in the square, {}", ".3f"),
    "sharpness_square_{}": ("sharpness in the square, {}", ".2f"),
    "lpips_{}": ("LPIPS, {}", ".3f"),
    "fid_{}": ("FID, {}", ".1f"),
    "linear_{}_auroc": ("AUROC, {}", ".3f"),
    "linear_{}_balanced_accuracy": ("balanced accuracy, {}", ".3f"),
    "few_{}_auroc": ("AUROC by few labels, {}", ".3f"),
    "few_{}_balanced_accuracy": ("balanced accuracy by few labels, {}", ".3f"),
    "neighbours_{}_balanced_accuracy": ("neighbours, {}", ".3f"),
    "linear_{}_top1": ("top-1, {}", ".3f"),
    "few_{}_top1": ("top-1 by few labels, {}", ".3f"),
    "neighbours_{}_top1": ("top-1 of neighbours, {}", ".3f"),
    "sigreg_statistic": ("SIGReg statistic", ".1f"),
    "sigreg_statistic_gaussian": ("SIGReg statistic of N(0, I)", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
    "dimensions": ("dimensions", ".0f"),
    "dead_dimensions": ("dead dimensions", ".1f"),
    "drift": ("drift under masking", ".2f"),
}
# Label and format of every figure, by name, in the table's order; {} is a view.
FIGURES = {name.format(v): (label.format(v), form) for name, (label, form) in LABELS.items() for v in VIEWS}
# The figures that say most, for `ablate` and the learning curves; see `summary_of`.
SUMMARY = (
    "psnr_clean",
    "psnr_masked",
    "psnr_square_masked",
    "linear_clean_auroc",
    "linear_masked_auroc",
    "few_clean_auroc",
    "neighbours_clean_balanced_accuracy",
    "neighbours_masked_balanced_accuracy",
    "sigreg_statistic",
    "effective_rank",
)
INTERVALS = "± half of the 95 % interval: over seeds if a column has several, else over held-out images"
PAIRED = (
    "difference from the first column, paired by seed if both have several, else by held-out image; * excludes zero"
)
CSV_HEAD = ("column", "figure", "value", "low", "high", "difference", "difference low", "difference high")


class Estimate(NamedTuple):
    """A figure and its 95 % interval; NaN where it is undefined, or has none."""

    value: float
    low: float
    high: float

    @property
    def star(self) -> str:
        """The mark of a difference whose interval excludes zero."""
        return "*" if self.low > 0 or self.high < 0 else ""


def over_seeds(values: list[float]) -> Estimate:
    """The mean of two or more seeds' values, and its interval by Student's t; none where all of them are the same."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) or math.nan
    return Estimate(mean, mean - half, mean + half)


@np.errstate(invalid="ignore")  # of figures that are not finite
def over_images(values: np.ndarray) -> Estimate:
    """A figure, float64 [1 + RESAMPLES], and the middle 95 % of its resamples; none where all of these are the same."""
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len({*values[1:]}) > 1 else (math.nan, math.nan)
    return Estimate(float(values[0]), float(low), float(high))


@dataclass(frozen=True)
class Column:
    """Runs that differ in SEED alone, by seed; or a baseline, which has no seed, under None."""

    title: str  # its first run's name: "self-teaching-001, 3 seeds"
    by_seed: dict[int | None, Measured]
    about: str = ""  # what its runs were trained for, the constants that distinguish them, their folders

    def values(self, name: str) -> list[np.ndarray]:
        """A figure of each model."""
        return [model.figure(name) for model in self.by_seed.values()]

    def estimate(self, name: str) -> Estimate:
        """A figure: over the seeds, or of a single model over the images."""
        first, *others = self.values(name)
        return over_seeds([of_seed[0] for of_seed in (first, *others)]) if others else over_images(first)

    @np.errstate(invalid="ignore")  # of figures that are not finite
    def difference_from(self, other: "Column", name: str) -> Estimate:
        """The difference of a figure from another column's, on the same images.

        This is the paired difference of the seeds that both have, at least two; a baseline is the same for every seed.
        Else it is the difference of the means over seeds, on the same resamples of the images.
        """
        seeds = self.by_seed.keys() | other.by_seed.keys()
        pairs = [[column.by_seed.get(seed, column.by_seed.get(None)) for column in (self, other)] for seed in seeds]
        differences = [one.figure(name)[0] - two.figure(name)[0] for one, two in pairs if one and two]
        if len(differences) > 1:
            return over_seeds(differences)
        return over_images(np.mean(self.values(name), axis=0) - np.mean(other.values(name), axis=0))


def constants_said(run: TrainedRun, others: list[TrainedRun]) -> list[str]:
    """The constants in which a run differs from others of its kind, or from any, if it does not have the default."""
    said = []
    for name in sorted(run.settings.keys() - WITHIN_COLUMN):
        value = run.settings[name]
        kinds = [other.kind for other in others if other.settings.get(name, value) != value]
        if value != run.kind and (run.kind in kinds or (kinds and value != run.defaults.get(name))):
            said.append(f"{name}={value}")
    return said


def columns_of(models: list[Measured]) -> list[Column]:
    """The columns of runs, in their order, then those of the baselines, each of which has one.

    Runs of a column are after the same number of steps.
    A column is named after its first run, by its folder where several have that name. A second run of the same settings
    and seed begins another column.
    """
    groups, seen = defaultdict(dict), Counter()
    for run, model in ((model.run, model) for model in models if model.run):
        constants = ((name, run.settings[name]) for name in sorted(run.settings.keys() - WITHIN_COLUMN))
        of, seed = (run.step, *constants), run.settings["SEED"]  # with --checkpoint last, steps may differ
        groups[of, seen[of, seed]][seed] = model
        seen[of, seed] += 1
    firsts, columns = [next(iter(by_seed.values())).run for by_seed in groups.values()], []
    for run, title, by_seed in zip(firsts, distinct_names(firsts), groups.values(), strict=True):
        seeds = f", {len(by_seed)} seeds" if len(by_seed) > 1 else ""
        about, folders = [run.kind, *constants_said(run, firsts)], [str(model.run.folder) for model in by_seed.values()]
        about += [f"step {run.step:,}"] * (len({first.step for first in firsts}) > 1)
        columns.append(Column(title + seeds, by_seed, f"{', '.join(about)}: {one_line(', '.join(folders))}"))
    return columns + [Column(model.name, {None: model}) for model in models if not model.run]


def summary_of(columns: list[Column]) -> list[str]:
    """The names of SUMMARY; where the first column has top-1 accuracies, these stand for attributes' figures."""
    has_classes = any("linear_clean_top1" in model.values for model in columns[0].by_seed.values())
    return [re.sub("_(auroc|balanced_accuracy)$", "_top1", name) if has_classes else name for name in SUMMARY]


def text_of(estimate: Estimate, form: str) -> str:
    """A figure and half of its interval; empty if the figure is undefined."""
    if not math.isfinite(estimate.value):
        return ""
    half = (estimate.high - estimate.low) / 2
    return f"{estimate.value:{form}}" + ("" if math.isnan(half) else f"±{half:{form.lstrip('+')}}")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, with columns as wide as their widest cell."""
    head, *rows = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(2, *map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [[label.ljust(widths[0]), *map(str.rjust, cells, widths[1:])] for label, *cells in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def report(columns: list[Column]) -> str:
    """In Markdown each column's runs, the figures that the first column has, and the differences from that column."""
    abouts = [f"- {column.title}: {column.about}" for column in columns if column.about]
    heads = [column.title for column in columns]
    figures, differences = [], []
    for name, (label, form) in FIGURES.items():
        cells = [text_of(column.estimate(name), form) for column in columns]
        if cells[0]:
            figures.append([label, *cells])
            found = [column.difference_from(columns[0], name) for column in columns[1:]]
            differences.append([label, *(text_of(one, f"+{form}") + one.star for one in found)])
    tables = [markdown(["", *heads], figures), markdown(["", *heads[1:]], differences)]
    return "\n\n".join(["\n".join(abouts), INTERVALS, tables[0], PAIRED, tables[1]])


def csv_rows(columns: list[Column], names: Iterable[str]) -> list[list[str]]:
    """Figures for a CSV file, by CSV_HEAD: each with its difference from the first column's."""
    rows = []
    for column in columns:
        for name in names:
            numbers = [*column.estimate(name), *column.difference_from(columns[0], name)]
            rows.append([column.title, name, *(f"{number:.6g}" if math.isfinite(number) else "" for number in numbers)])
    return rows
