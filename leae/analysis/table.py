"""The table of `evaluate` and `ablate`: estimates and their intervals, its columns, its rows, and how it is written."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from leae.analysis.measure import METHODS, VIEWS, Measured, Sample
from leae.analysis.probes import FEWEST_PER_CLASS
from leae.analysis.trained import TrainedRun
from leae.training.run import CHANGEABLE
from leae.training.settings import WITHOUT_EFFECT

INCIDENTAL = ("NAME", *CHANGEABLE)  # constants that are no part of an experiment
SHARED = ("SEED", "DATASET", "FACES")  # those in which the runs of a column may differ, as all are on the same images

# The rows of `evaluate`: labels and formats of figures, by name.
RECONSTRUCTION = {
    "psnr": ("PSNR of {} images (dB)", ".2f"),
    "psnr_square": ("  in the square, {}", ".2f"),
    "ssim": ("SSIM of {} images", ".3f"),
    "ssim_square": ("  in the square, {}", ".3f"),
    "sharpness_square": ("sharpness in the square, {}", ".2f"),
    "lpips": ("LPIPS of {} images", ".3f"),
    "fid": ("FID of {} images", ".1f"),
}
PROBE_TITLES = {"linear": "linear probes", "few": "linear probes", "neighbours": "nearest neighbours"}
SCORE_TITLES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
LATENT = {
    "latent_size": ("latent size", ".0f"),
    "sigreg_statistic": ("SIGReg statistic", ".1f"),
    "sigreg_statistic_gaussian": ("  of as many N(0, I) codes", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
    "dimensions": ("  of dimensions", ".0f"),
    "dead_dimensions": ("dead dimensions", ".1f"),
    "drift": ("drift under masking", ".2f"),
}
# The figures that say most, for `ablate` and the learning curves.
SUMMARY = {
    "psnr_clean": ("PSNR (dB), clean", ".2f"),
    "psnr_masked": ("PSNR (dB), masked", ".2f"),
    "psnr_square_masked": ("PSNR (dB) in the square, masked", ".2f"),
    "linear_clean_auroc": ("AUROC, clean", ".3f"),
    "linear_masked_auroc": ("AUROC, masked", ".3f"),
    "few_clean_auroc": ("AUROC by few labels, clean", ".3f"),
    "neighbours_clean_balanced_accuracy": ("neighbours, clean", ".3f"),
    "neighbours_masked_balanced_accuracy": ("neighbours, masked", ".3f"),
    "sigreg_statistic": ("SIGReg statistic", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
}
INTERVALS = "± half of the 95 % interval: over seeds if a column has several, else over held-out images"
PAIRED = "paired by seed if both have several, else by held-out image"
LABEL_WIDTH, COLUMN_WIDTH = 33, 16
CSV_HEAD = ("column", "figure", "value", "low", "high", "difference", "difference low", "difference high")


class Estimate(NamedTuple):
    """A figure and its 95 % interval, whose ends are NaN where there is none."""

    value: float
    low: float
    high: float


def over_seeds(values: list[float]) -> Estimate:
    """The mean of two or more seeds' values, and its interval by Student's t; none where all of them are the same."""
    mean, differ = float(np.mean(values)), np.ptp(values) > 0
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if differ else math.nan
    return Estimate(mean, mean - half, mean + half)


def over_images(values: np.ndarray) -> Estimate:
    """A figure, float64 [1 + RESAMPLES], and the middle 95 % of its resamples; none if it is not resampled, [1]."""
    with np.errstate(invalid="ignore"):  # of figures that are not finite
        low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (math.nan, math.nan)
    return Estimate(float(values[0]), float(low), float(high))


def star(difference: Estimate | None) -> str:
    """The mark of a difference whose interval excludes zero."""
    return "*" if difference is not None and (difference.low > 0 or difference.high < 0) else ""


@dataclass(frozen=True)
class Column:
    """Runs that differ in SEED alone, by seed; or a baseline, which has no seed, under None."""

    title: str  # what distinguishes it: "1 self-teaching, JUDGE_NORM=own, 3 seeds"
    by_seed: dict[int | None, Measured]

    @property
    def models(self) -> list[Measured]:
        return list(self.by_seed.values())

    def estimate(self, name: str) -> Estimate | None:
        """A figure: over the seeds, or of a single model over the images; None if it is not measured."""
        values = [model.values[name] for model in self.models if name in model.values]
        if len(values) > 1:
            return over_seeds([of_seed[0] for of_seed in values])
        return over_images(values[0]) if values else None

    def difference_from(self, other: "Column", name: str) -> Estimate | None:
        """The difference of a figure from another column's, on the same images; None if it has no interval.

        This is the paired difference of the seeds that both have, at least two; a baseline is the same for every seed.
        Else it is the difference of the means over seeds, on the same resamples of the images.
        """
        if other is self or any(name not in model.values for model in self.models + other.models):
            return None
        seeds = self.by_seed.keys() | other.by_seed.keys()
        pairs = [[column.by_seed.get(seed, column.by_seed.get(None)) for column in (self, other)] for seed in seeds]
        with np.errstate(invalid="ignore"):  # of figures that are not finite
            differences = [one.values[name][0] - two.values[name][0] for one, two in pairs if one and two]
            means = [np.mean([model.values[name] for model in column.models], axis=0) for column in (self, other)]
            estimate = over_seeds(differences) if len(differences) > 1 else over_images(means[0] - means[1])
        return None if math.isnan(estimate.low) else estimate

    def misses_pca(self, name: str) -> bool:
        """Whether these are probes that are not ahead of those of the PCA beside them."""
        pca = self.models[0].pca
        if pca is None or not name.startswith(tuple(METHODS)):
            return False
        difference = self.difference_from(Column("PCA", {None: pca}), name)
        return difference is None or difference.low <= 0


def settings_of(run: TrainedRun) -> dict:
    """The constants that distinguish a run, by name: those with an effect, and OBJECTIVE only where the kind says less.

    They are in the order of their names.
    """
    idle = {*INCIDENTAL, *SHARED}
    for (name, value), others in WITHOUT_EFFECT.items():
        idle.update(others if run.settings.get(name) == value else ())
    return {name: v for name, v in sorted(run.settings.items()) if name not in idle and v != run.kind}


def columns_of(models: list[Measured]) -> list[Column]:
    """The columns of runs, in their order, then those of the baselines, each of which has one.

    A column's title has the runs' kind and the constants in which columns differ, or a folder where there are none. A
    second run of the same settings and seed begins another column.
    """
    groups = defaultdict(dict)  # by kind, settings, and how many earlier columns of these have the seed: runs by seed
    for model in models:
        if model.run:
            key, seed = (model.run.kind, *settings_of(model.run).items()), model.run.settings["SEED"]
            earlier = sum(seed in by_seed for (other, _), by_seed in groups.items() if other == key)
            groups[key, earlier][seed] = model
    settings = [dict(key[1:]) for key, _ in groups]
    values = {name: {one[name] for one in settings if name in one} for name in sorted(set().union(*settings))}
    titles = []
    for ((kind, *_), _), one in zip(groups, settings, strict=True):
        differing = [name for name in values if name in one and len(values[name]) > 1]
        titles.append(", ".join([kind, *(f"{name}={one[name]}".replace(" ", "") for name in differing)]))
    columns = []
    for number, (title, by_seed) in enumerate(zip(titles, groups.values(), strict=True), start=1):
        folder = f", {next(iter(by_seed.values())).run.name}" if titles.count(title) > 1 else ""
        seeds = f", {len(by_seed)} seeds" if len(by_seed) > 1 else ""
        columns.append(Column(f"{number} {title}{folder}{seeds}", by_seed))
    return columns + [Column(model.name, {None: model}) for model in models if not model.run]


def rows_of(columns: list[Column], sample: Sample) -> list[tuple[str, str, str]]:
    """Label, name and format of each figure that the first column has; of headings the label alone."""
    count, few = len(sample.attributes), f", {len(sample.few):,} labels, {sample.probed_by_few.sum()} attributes"
    said = f"mean over {count} attributes; ° does not beat the PCA beside it"
    if not count:
        said = f"left out, as no attribute has {FEWEST_PER_CLASS} images with it and as many without in both splits"
    rows = [("reconstruction", "", "")]
    rows += [(label.format(view), f"{n}_{view}", form) for n, (label, form) in RECONSTRUCTION.items() for view in VIEWS]
    rows += [("", "", ""), (f"representation: {said}", "", "")]
    for method, scores in METHODS.items():
        pairs = [(score, view) for score in scores for view in VIEWS]
        if f"{method}_clean_{scores[0]}" in columns[0].models[0].values:
            rows.append((PROBE_TITLES[method] + few * (method == "few"), "", ""))
            rows += [(f"  {SCORE_TITLES[score]}, {view}", f"{method}_{view}_{score}", ".3f") for score, view in pairs]
    rows += [("", "", ""), ("latent, of clean held-out images", "", "")]
    rows += [(label, name, form) for name, (label, form) in LATENT.items()]
    return [row for row in rows if not row[1] or row[1] in columns[0].models[0].values]


def table(columns: list[Column], sample: Sample) -> list[list[str]]:
    """The figures of every column, then their differences from the first one's.

    Each row is a label and a text for each column; a heading is a label alone.
    """
    figures, differences = [[INTERVALS], [""]], []
    for label, name, form in rows_of(columns, sample):
        if not name:
            figures.append([label])
            differences.append([label.split(":")[0]])
            continue
        marks = ["°" * column.misses_pca(name) for column in columns]
        figures.append([label, *(text_of(c.estimate(name), form, m) for c, m in zip(columns, marks, strict=True))])
        found = [column.difference_from(columns[0], name) for column in columns]
        if any(found):
            differences.append([label, *(text_of(one, f"+{form}", star(one)) for one in found)])
    while differences and len(differences[-1]) == 1:  # headings of nothing
        differences.pop()
    said = f"difference from column 1 {PAIRED}; * excludes zero"
    return figures + ([[""], [said], [""], *differences] if differences else [])


def text_of(estimate: Estimate | None, form: str, mark: str) -> str:
    """A figure, half of its interval, and a mark or the room for one; empty if the figure is undefined."""
    if estimate is None or not math.isfinite(estimate.value):
        return ""
    half = (estimate.high - estimate.low) / 2
    interval = "" if math.isnan(half) else f"±{half:{form.lstrip('+')}}".replace("±0.", "±.")
    return f"{estimate.value:{form}}{interval}{mark or ' '}"


def print_table(columns: list[Column], rows: list[list[str]]) -> None:
    """Print the table under the number and kind of each column, and above it whole titles and the runs' folders."""
    for column in columns:
        if column.models[0].run:
            print(f"{column.title}: {', '.join(str(model.run.folder) for model in column.models)}")
    heads = [f"{column.title.partition(',')[0]} " for column in columns]
    for label, *cells in [[""], ["", *heads], *rows]:
        print((label.ljust(LABEL_WIDTH) + "".join(text.rjust(COLUMN_WIDTH) for text in cells)).rstrip())


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; a row of a label alone is a heading."""
    head = list(head)
    lines = [head, ["---", *("--:" for _ in head[1:])]]
    for label, *cells in rows:
        if label:
            texts = [text.strip() for text in cells] or [""] * (len(head) - 1)
            lines.append([label.replace("  ", "&emsp;") if cells else f"**{label}**", *texts])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_rows(column: Column, first: Column, names: Iterable[str]) -> list[list[str]]:
    """A column's figures for a CSV file, by CSV_HEAD: each with its difference from the first column's."""
    rows = []
    for name in names:
        estimates = [column.estimate(name), column.difference_from(first, name)]
        numbers = [number for one in estimates for number in (one or 3 * [math.nan])]
        if estimates[0] is not None:
            rows.append([column.title, name, *(f"{number:.6g}" if math.isfinite(number) else "" for number in numbers)])
    return rows
