"""The columns of `evaluate`'s table: which runs share one, what heads it, and how certain its figures are."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from leae.analysis.measure import METHODS, Measured
from leae.analysis.probes import interval
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

    head: tuple[str, ...]  # what distinguishes it: "1", "self-teaching", "JUDGE_RULER=own", "3 seeds"
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
