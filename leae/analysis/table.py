"""The table of `evaluate`: its rows, and how it is printed, in Markdown and in CSV."""

import csv
import math
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap

import numpy as np
from scipy import stats

from leae.analysis.measure import METHODS, VIEWS, Measured, Sample
from leae.analysis.probes import FEWEST_PER_CLASS, interval
from leae.files import atomic_write
from leae.training.run import CHANGEABLE, Run
from leae.training.settings import WITHOUT_EFFECT

SAME = ("SEED", "NAME", *CHANGEABLE, "DATASET", "FACES")  # constants that do not distinguish columns


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, whose ends are NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does; False where there is none."""
        return self.low > 0 or self.high < 0

    @property
    def texts(self) -> list[str]:
        """All three for a CSV file."""
        return [f"{number:.6g}" if math.isfinite(number) else "" for number in (self.value, self.low, self.high)]


def over_seeds(values: list[float]) -> Estimate:
    """The mean of two or more seeds' values, and its interval by Student's t; none where all of them are the same."""
    mean, differ = float(np.mean(values)), np.ptp(values) > 0
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if differ else math.nan
    return Estimate(mean, mean - half, mean + half)


def over_images(values: np.ndarray) -> Estimate:
    """A figure, float64 [1 + RESAMPLES], and its interval by the bootstrap; none for one that is not resampled, [1]."""
    return Estimate(float(values[0]), *interval(values))


@dataclass(frozen=True)
class Column:
    """Runs that differ in SEED alone, by seed; or a baseline, which has no seed, under None."""

    head: tuple[str, ...]  # what distinguishes it: "1", "self-teaching", "JUDGE_NORM=own", "3 seeds"
    by_seed: dict[int | None, Measured]

    @property
    def title(self) -> str:
        return ", ".join([" ".join(self.head[:2]), *self.head[2:]])

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
        """The difference of a figure from another column's, on the same images; None if not both have it.

        This is the paired difference of the seeds that both have, at least two; a baseline is the same for every seed.
        Else it is the difference of the means over seeds, on the same resamples of the images.
        """
        if any(name not in model.values for model in self.models + other.models):
            return None
        seeds = self.by_seed.keys() | other.by_seed.keys()
        pairs = [[column.by_seed.get(seed, column.by_seed.get(None)) for column in (self, other)] for seed in seeds]
        with np.errstate(invalid="ignore"):  # of figures that are not finite
            differences = [one.values[name][0] - two.values[name][0] for one, two in pairs if one and two]
            if len(differences) > 1:
                return over_seeds(differences)
            means = [np.mean([model.values[name] for model in column.models], axis=0) for column in (self, other)]
            return over_images(means[0] - means[1])

    def misses_pca(self, name: str) -> bool:
        """Whether these are probes that are not ahead of those of the PCA beside them."""
        pca = self.models[0].pca
        probed = pca and name.startswith(tuple(METHODS))
        return bool(probed) and not self.difference_from(Column(("PCA",), {None: pca}), name).low > 0


def settings_of(run: Run) -> dict:
    """The constants that distinguish a run, by name: those with an effect, and OBJECTIVE only where the kind says less.

    They are in the order of their names.
    """
    idle = set(SAME)
    for (name, value), others in WITHOUT_EFFECT.items():
        idle.update(others if run.settings.get(name) == value else ())
    return {name: v for name, v in sorted(run.settings.items()) if name not in idle and v != run.kind}


def columns_of(models: list[Measured]) -> list[Column]:
    """The columns of runs, in their order, then those of the baselines, each of which has one.

    Runs are headed by their kind and the constants in which the columns differ, or by a folder where there are none. A
    second run of the same settings and seed begins another column.
    """
    groups = {}
    for model in (model for model in models if model.run):
        run, again = model.run.run, 0
        settings = settings_of(run)
        while run.settings["SEED"] in groups.setdefault((run.kind, *settings.items(), again), {}):
            again += 1
        groups[run.kind, *settings.items(), again][run.settings["SEED"]] = model
    settings = [dict(key[1:-1]) for key in groups]
    names = sorted({name for one in settings for name in one})
    differing = [name for name in names if len({one[name] for one in settings if name in one}) > 1]
    constants = [[f"{name}={one[name]}".replace(" ", "") for name in differing if name in one] for one in settings]
    heads = [(kind, *texts) for (kind, *_), texts in zip(groups, constants, strict=True)]
    columns = []
    for number, (head, group) in enumerate(zip(heads, groups.values(), strict=True), start=1):
        folder = [next(iter(group.values())).run.name] if heads.count(head) > 1 else []
        seeds = [f"{len(group)} seeds"] if len(group) > 1 else []
        columns.append(Column((str(number), *head, *folder, *seeds), group))
    return columns + [Column((model.name,), {None: model}) for model in models if not model.run]


# What is measured, and its format.
FIDELITY = {
    "psnr": ("PSNR of {} images (dB)", ".2f"),
    "psnr_square": ("  in the square, {}", ".2f"),
    "ssim": ("SSIM of {} images", ".3f"),
    "ssim_square": ("  in the square, {}", ".3f"),
    "sharpness_square": ("sharpness in the square, {}", ".2f"),
    "lpips": ("LPIPS of {} images", ".3f"),
    "fid": ("FID of {} images", ".1f"),
}
LATENT = {
    "latent_size": ("latent size", ".0f"),
    "sigreg": ("SIGReg statistic", ".1f"),
    "sigreg_gaussian": ("  of as many N(0, I) codes", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
    "dimensions": ("  of dimensions", ".0f"),
    "dead_dimensions": ("dead dimensions", ".1f"),
    "drift": ("drift under masking", ".2f"),
}
PROBES = {"linear": "linear probes", "few": "linear probes", "neighbours": "nearest neighbours"}
SCORES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
LABEL_WIDTH, COLUMN_WIDTH = 33, 15
INTERVALS = "± half of the 95 % interval: over seeds if a column has several, else over held-out images"
PAIRED = "paired by seed if both have several, else by held-out image"


def rows_of(columns: list[Column], sample: Sample) -> list[tuple[str, str, str]]:
    """Label, name and format of each figure that the first column has; of headings the label alone."""
    count, few = len(sample.attributes), f", {len(sample.few):,} labels, {sample.probed_by_few.sum()} attributes"
    said = f"mean over {count} attributes; ° does not beat the PCA beside it"
    if not count:
        said = f"left out, as no attribute has {FEWEST_PER_CLASS} images with it and as many without in both splits"
    rows = [("reconstruction", "", "")]
    rows += [(label.format(view), f"{n}_{view}", form) for n, (label, form) in FIDELITY.items() for view in VIEWS]
    rows += [("", "", ""), (f"representation: {said}", "", "")]
    for method, scores in METHODS.items():
        pairs = [(score, view) for score in scores for view in VIEWS]
        if f"{method}_clean_{scores[0]}" in columns[0].models[0].values:
            rows.append((PROBES[method] + few * (method == "few"), "", ""))
            rows += [(f"  {SCORES[score]}, {view}", f"{method}_{view}_{score}", ".3f") for score, view in pairs]
    rows += [("", "", ""), ("latent, of clean held-out images", "", "")]
    rows += [(label, name, form) for name, (label, form) in LATENT.items()]
    return [row for row in rows if not row[1] or row[1] in columns[0].models[0].values]


def table(columns: list[Column], sample: Sample) -> list[tuple[str, str, list[Estimate | None], list[str]]]:
    """The figures of every column, then their differences to those of the first.

    A row is a label, a name, the estimates of all columns, and their texts; a heading is a label alone.
    """
    lines, first = [(INTERVALS, "", [], []), ("", "", [], [])], columns[0]
    for label, name, form in rows_of(columns, sample):
        estimates = [column.estimate(name) for column in columns if name]
        marks = ["°" * column.misses_pca(name) for column in columns if name]
        cells = [text_of(one, form, mark) for one, mark in zip(estimates, marks, strict=True)]
        lines.append((label, name, estimates, cells))
    lines += [("", "", [], []), (f"difference from column 1 {PAIRED}; * excludes zero", "", [], []), ("", "", [], [])]
    for label, name, form in rows_of(columns, sample):
        estimates = [column.difference_from(first, name) if column is not first else None for column in columns if name]
        certain = [one if one and not math.isnan(one.low) else None for one in estimates]
        cells = [text_of(one, f"+{form}", "*" * (one is not None and one.excludes_zero)) for one in certain]
        if any(cells) or not name:
            lines.append((label.split(":")[0], name and f"{name} less column 1", estimates, cells))
    while not lines[-1][1]:  # headings of nothing
        lines.pop()
    return lines


def text_of(estimate: Estimate | None, form: str, mark: str) -> str:
    """A figure, half of its interval, and a mark or the room for one; empty if the figure is undefined."""
    if estimate is None or not math.isfinite(estimate.value):
        return ""
    half = (estimate.high - estimate.low) / 2
    interval = "" if math.isnan(half) else f"±{half:{form.lstrip('+')}}".replace("±0.", "±.")
    return f"{estimate.value:{form}}{interval}{mark or ' '}"


def print_table(columns: list[Column], lines: list[tuple]) -> None:
    """Print the table, and which folders' runs its columns are."""
    for column in columns:
        if column.models[0].run:
            print(f"{column.head[0]}: {', '.join(str(model.run.run.folder) for model in column.models)}")
    heads = zip_longest(*(wrapped(column.head) for column in columns), fillvalue="")
    for label, *_, cells in [("", []), *(("", [f"{line} " for line in head]) for head in heads), *lines]:
        print((label.ljust(LABEL_WIDTH) + "".join(text.rjust(COLUMN_WIDTH) for text in cells)).rstrip())


def wrapped(head: tuple[str, ...]) -> list[str]:
    """The lines of a column's head, which may end behind each of = _ / -."""
    whole, options = "\n".join(head), {"expand_tabs": False, "replace_whitespace": False}
    breakable = re.sub("(?<=[=_/-])", "\t", whole).split("\n")
    return [line.replace("\t", "") for entry in breakable for line in wrap(entry, COLUMN_WIDTH - 1, **options)]


def write_markdown(columns: list[Column], lines: list[tuple], path: Path) -> None:
    """The table as a Markdown file."""
    rows = [["", *(column.title for column in columns)], ["---", *("--:" for _ in columns)]]
    for label, name, _, cells in lines:
        if label:
            texts = [text.strip() for text in cells] if name else [""] * len(columns)
            rows.append([label.replace("  ", "&emsp;") if name else f"**{label}**", *texts])
    with atomic_write(path) as file:
        file.writelines(f"| {' | '.join(row)} |\n" for row in rows)


def write_csv(columns: list[Column], lines: list[tuple], path: Path) -> None:
    """The table as a CSV file: each figure, and each difference, with the ends of its interval."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(["figure", *(f"{column.title}{end}" for column in columns for end in ("", " low", " high"))])
        for _, name, estimates, _ in lines:
            if name:
                writer.writerow([name, *(text for one in estimates for text in (one.texts if one else 3 * [""]))])
