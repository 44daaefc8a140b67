"""One table of what trained runs are worth: reconstruction, representation, health of the latent.

    uv run -m leae evaluate runs/self-teaching-001 runs/masked-001
    uv run -m leae evaluate runs/*-001 --label-share 0.01
    uv run --extra perceptual -m leae evaluate runs/*-001 --perceptual      LPIPS and FID, besides

All runs are given the same held-out images and the same masks. Beside them stand the untrained encoder of the same
shape, PCA of the pixels to as many dimensions, and chance, which answers every image with the training set's mean
image. Each run's folder gets its figures in evaluation.json, and a picture of all in evaluation.png.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from leae.analysis import probes
from leae.analysis.codes import drift, gaussianity
from leae.analysis.metrics import PerceptualFigures, reconstruction_figures
from leae.analysis.trained import TrainedRun, add_run_arguments, encode_all, open_runs, save_picture
from leae.data.batches import to_float
from leae.data.prepare import Dataset
from leae.errors import require, require_whole
from leae.files import atomic_write
from leae.training.checkpoints import MODELS
from leae.training.device import find_device
from leae.training.evaluation import MaskedViews, mean_image
from leae.training.monitoring import dead_dimensions, effective_rank, spectrum
from leae.training.run import versions
from leae.training.settings import Parser

VIEWS = ("clean", "masked")
# Rows of the table: what is measured, and its format.
FIDELITY = {
    "psnr": ("PSNR of {} images (dB)", ".2f"),
    "psnr_square": ("  in the square, {}", ".2f"),
    "ssim": ("SSIM of {} images", ".3f"),
    "ssim_square": ("  in the square, {}", ".3f"),
    "sharpness_square": ("sharpness in the square, {}", ".2f"),
    "lpips": ("LPIPS of {} images", ".3f"),
    "fid": ("FID of {} images", ".1f"),
}
RECONSTRUCTION = {f"{n}_{view}": (label.format(view), form) for n, (label, form) in FIDELITY.items() for view in VIEWS}
LATENT = {
    "latent_size": ("latent size", "d"),
    "sigreg": ("SIGReg statistic", ".1f"),
    "sigreg_gaussian": ("  of as many N(0, I) codes", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
    "dimensions": ("  of so many dimensions", "d"),
    "dead_dimensions": ("dead dimensions", "d"),
    "drift": ("drift under masking", ".2f"),
}
METHODS = {"linear": "linear probes", "few": "linear probes", "neighbours": "nearest neighbours"}
SCORES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
CHANCE = 0.5  # of both of them
LABEL_WIDTH, COLUMN_WIDTH = 33, 13


@dataclass
class Column:
    """One encoder of the table, and what is measured of it."""

    name: str
    model: Callable[[Tensor], Tensor]  # reconstructs images; has `encode` where it has codes; in evaluation mode
    run: TrainedRun | None = None  # that it is of
    pca: "Column | None" = None  # that its probes have to beat
    reconstructs: bool = True  # which no untrained encoder does
    # By section and name, as in evaluation.json; those of the representation by method, view and score.
    figures: dict = field(default_factory=lambda: {"reconstruction": {}, "latent": {}, "representation": {}})
    # Means of the scores over attributes, by method, view and score: float64 [1 + RESAMPLES].
    means: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)


class Sample:
    """What every column is measured on: images, their masks, and those A of their attributes that can be probed."""

    def __init__(self, dataset: Dataset, train: int, test: int, label_share: float, views: MaskedViews):
        self.train, self.test = dataset.images["train"][:train], dataset.images["test"][:test]  # uint8 [N, S, S, C]
        self.views = views
        counts = {"train": len(self.train), "test": len(self.test)}
        labels = [dataset.attributes.get(split, np.zeros((n, 0), bool))[:n] for split, n in counts.items()]
        probed = probes.probed_attributes(*labels)
        self.attributes = np.array(dataset.attribute_names)[probed]  # names [A]
        self.train_labels, self.test_labels = (part[:, probed] for part in labels)  # bool [N, A]
        order = np.random.default_rng(0).permutation(len(self.train))
        self.few = order[: max(1, round(label_share * len(order)))]  # indices of training images
        self.probed_by_few = probes.probed_attributes(self.train_labels[self.few])  # bool [A], which have enough
        self.weights = probes.resample_weights(len(self.test))


class PixelPCA:
    """The best linear autoencoder by squared error: principal components of images uint8 [N, S, S, C]."""

    def __init__(self, images: np.ndarray, components: int):
        pixels = to_float(images).flatten(1).numpy()
        self.pca = PCA(min(components, *pixels.shape), svd_solver="randomized", random_state=0).fit(pixels)

    def encode(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] in [0, 1] → [N, D] on the CPU"""
        return torch.from_numpy(self.pca.transform(images.flatten(1).cpu().numpy()))

    def __call__(self, images: Tensor) -> Tensor:
        """Reconstructions: float [N, C, S, S] in [0, 1] → the same."""
        pixels = torch.from_numpy(self.pca.inverse_transform(self.encode(images).numpy()))
        return pixels.to(images.device).view(images.shape).clamp(0, 1)


def columns_for(runs: list[TrainedRun], train: np.ndarray, device: torch.device) -> list[Column]:
    """The runs, for each shape an untrained encoder and a PCA of training images uint8 [N, S, S, C], and chance."""
    columns, untrained, pcas = [], {}, {}
    for run in runs:
        components = min(run.model.latent_size, probes.PROBE_DIMS)
        if components not in pcas:
            model = PixelPCA(train, components)
            pcas[components] = Column(f"PCA {model.pca.n_components_}", model)
        columns.append(Column(run.name, run.model, run, pcas[components]))
        torch.manual_seed(0)
        kind = MODELS[type(run.model).__name__.removeprefix("Variational")]  # whose latent has no second half
        model = kind(**run.model.settings).eval().to(device)
        shape = (type(model), *(parameter.shape for parameter in model.encoder.parameters()))
        if shape not in untrained:
            untrained[shape] = Column("untrained", model, pca=pcas[components], reconstructs=False)
    for number, column in enumerate(untrained.values() if len(untrained) > 1 else (), start=1):
        column.name = f"untrained {number}"
    mean = mean_image(train).to(device)
    chance = Column("chance", lambda images: mean.expand_as(images))
    return [*columns, *untrained.values(), *pcas.values(), chance]


def measure(column: Column, sample: Sample, perceptual: PerceptualFigures | None, device: torch.device) -> None:
    """Fill in a column's figures, after those of its PCA; LPIPS and FID where they are wanted."""
    name, model, views = column.name, column.model, sample.views
    if column.reconstructs:
        with torch.no_grad():
            figures = reconstruction_figures(model, sample.test, views, device, f"{name}: reconstruction")
            if perceptual:
                figures |= perceptual(model, sample.test, views, device, f"{name}: LPIPS and FID")
        column.figures["reconstruction"] = finite(figures)
    if not hasattr(model, "encode"):
        return
    clean, masked = (encode_all(model, sample.test, v, device, f"{name}: held-out codes") for v in (None, views))
    if column.run:
        statistic, gaussian, _ = gaussianity(clean)
        latent = {
            "latent_size": clean[0].numel(),
            "sigreg": statistic,
            "sigreg_gaussian": gaussian,
            "effective_rank": effective_rank(clean),
            "dimensions": clean.shape[1],
            "dead_dimensions": dead_dimensions(clean),
            "drift": drift(clean, masked),
        }
        column.figures["latent"] = finite(latent) | {"spectrum": spectrum(clean).tolist()}
    if not len(sample.attributes):
        return
    for view, shown, codes in (("clean", None, clean), ("masked", views, masked)):
        fitted = encode_all(model, sample.train, shown, device, f"{name}: training codes")
        probe(column, view, fitted.flatten(1).numpy(), codes.flatten(1).numpy(), sample)


def finite(figures: dict[str, float]) -> dict[str, float | None]:
    """The figures, with None for those that are not finite, as the sharpness of flat images is."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def probe(column: Column, view: str, train: np.ndarray, test: np.ndarray, sample: Sample) -> None:
    """Fill in what a column's codes of one view, float [N, D] and [M, D], tell of the sample's attributes."""
    title, labels, few, enough = f"{column.name}: {view}", sample.train_labels, sample.few, sample.probed_by_few
    every = np.ones(len(enough), bool)
    scores = {"linear": (every, probes.linear_scores(train, labels, test, title))}
    if enough.any():
        title = f"{title}, few labels"
        scores["few"] = (enough, probes.linear_scores(train[few], labels[few][:, enough], test, title))
    scores["neighbours"] = (every, probes.neighbour_scores(train, labels, test))
    for method, (attributes, scored) in scores.items():
        truth, figures = sample.test_labels[:, attributes], {}
        if method != "neighbours":  # whose votes are too few for a ranking
            figures["auroc"] = probes.auroc(scored, truth, sample.weights)
        figures["balanced_accuracy"] = probes.balanced_accuracy(scored > 0, truth, sample.weights)
        entries = column.figures["representation"].setdefault(method, {})[view] = {}
        for score, values in figures.items():
            # An attribute is left out of the resamples that have one class only.
            means = column.means[method, view, score] = np.nanmean(values, axis=1)
            by_attribute = dict(zip(sample.attributes[attributes].tolist(), values[0].tolist(), strict=True))
            entries[score] = {"mean": float(means[0]), "interval": probes.interval(means), "attributes": by_attribute}
            if column.pca:
                ahead = means - column.pca.means[method, view, score]
                entries[score][f"beats {column.pca.name}"] = probes.interval(ahead)[0] > 0


def table(columns: list[Column], sample: Sample) -> str:
    """The figures as text, a column for every encoder."""
    heads = zip_longest(*(column.name.replace("-", "-\n").split("\n") for column in columns), fillvalue="")
    rows = [("", head) for head in heads]
    rows += [("reconstruction", ()), *figure_rows(columns, "reconstruction", RECONSTRUCTION)]
    count, fewest = len(sample.attributes), probes.FEWEST_PER_CLASS
    said = f"mean over {count} attributes ± half of the 95 % interval; * does not beat the PCA beside it"
    if not count:
        said = f"left out, as no attribute has {fewest} images with it and as many without in both splits"
    rows += [("", ()), (f"representation: {said}", ())]
    for method, entries in columns[0].figures["representation"].items():
        few = f", {len(sample.few):,} labels, {sample.probed_by_few.sum()} attributes" if method == "few" else ""
        rows.append((METHODS[method] + few, ()))
        for score in entries["clean"]:
            for view in VIEWS:
                cells = [probe_cell(column, method, view, score) for column in columns]
                rows.append((f"  {SCORES[score]}, {view}", cells))
    rows += [("", ()), ("latent, of clean held-out images", ()), *figure_rows(columns, "latent", LATENT)]
    lines = [label.ljust(LABEL_WIDTH) + "".join(cell.rjust(COLUMN_WIDTH) for cell in cells) for label, cells in rows]
    return "\n".join(line.rstrip() for line in lines)


def figure_rows(columns: list[Column], section: str, figures: dict[str, tuple[str, str]]) -> Iterator[tuple[str, list]]:
    """The rows of those figures of a section that any column has: label and cells."""
    for name, (label, form) in figures.items():
        if any(name in column.figures[section] for column in columns):
            values = [column.figures[section].get(name) for column in columns]
            yield label, ["" if value is None else f"{value:{form}}" for value in values]


def probe_cell(column: Column, method: str, view: str, score: str) -> str:
    if not column.means:
        return f"{CHANCE:.3f}     "
    entry = column.figures["representation"][method][view][score]
    low, high = entry["interval"]
    star = "*" if column.pca and not entry[f"beats {column.pca.name}"] else " "
    return f"{entry['mean']:.3f}±{(high - low) / 2:.3f}".replace("±0", "±") + star


def draw(columns: list[Column], sample: Sample) -> Figure:
    """What the codes of every column tell of each attribute, and how those of runs spread over their dimensions."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    probed, spread = figure.subplots(1, 2)
    probed.axvline(CHANCE, color="grey", linewidth=1)
    spread.axhline(1, color="grey", linewidth=1, label="N(0, I)")
    names = sorted(sample.attributes, reverse=True)
    for number, column in enumerate(columns):
        if column.means:
            areas = column.figures["representation"]["linear"]["clean"]["auroc"]["attributes"]
            form = f"C{number % 10}{'o+1x'[number % 4]}"
            probed.plot([areas[name] for name in names], names, form, label=column.name)
        if column.run:
            spectrum = column.figures["latent"]["spectrum"]
            spread.plot(range(1, len(spectrum) + 1), spectrum, f"C{number % 10}", label=column.name)
    probed.set(title="linear probes of clean held-out codes", xlabel="AUROC")
    spread.set(title="spread of the codes", xlabel="principal direction", ylabel="standard deviation", ylim=(0, None))
    for axes in (probed, spread):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs="+")
    parser.add_argument("--train-images", type=int, default=10_000, help="that probes are fitted to [%(default)s]")
    parser.add_argument("--held-out", type=int, default=20_000, help="images of the test split [%(default)s]")
    parser.add_argument("--label-share", type=float, default=0.05, help="of the labels in other probes [%(default)s]")
    parser.add_argument("--perceptual", action="store_true", help="LPIPS and FID as well")


def main(options: argparse.Namespace) -> None:
    require_whole(100, **{"--train-images": options.train_images, "--held-out": options.held_out})
    require(0 < options.label_share <= 1, "--label-share", options.label_share, "above 0 and at most 1, say 0.05")
    device = find_device(options.device)
    runs = open_runs(options.runs, options.checkpoint, device)
    views = runs[0].views(options.mask_ratio)
    perceptual = PerceptualFigures(device) if options.perceptual else None
    dataset = runs[0].open_data()

    sample = Sample(dataset, options.train_images, options.held_out, options.label_share, views)
    counts = f"{len(sample.train):,} training and {len(sample.test):,} held-out images"
    print(f"{dataset.title}: {counts}; mask ratio {views.mask_ratio:g}")
    columns = columns_for(runs, sample.train, device)
    for column in sorted(columns, key=lambda column: column.pca is not None):  # what others have to beat comes first
        measure(column, sample, perceptual, device)

    print(table(columns, sample))
    beside = {column.name: column.figures for column in columns if column.run is None}
    for column, run in zip(columns, runs, strict=False):
        folder = run.run.folder
        about = {"run": folder.name, "checkpoint": run.checkpoint, "step": run.step, "data": run.run.data}
        measured = {"mask_ratio": views.mask_ratio, "train_images": len(sample.train), "held_out": len(sample.test)}
        about["options"] = {**measured, "label_share": options.label_share}
        content = {**about, **column.figures, "beside": beside, "versions": versions()}
        with atomic_write(folder / "evaluation.json") as file:
            json.dump(content, file, indent=2)
        save_picture(draw(columns, sample), folder / "evaluation.png")
    print(f"figures: evaluation.json and evaluation.png in {', '.join(str(run.run.folder) for run in runs)}")
