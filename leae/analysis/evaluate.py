"""One table of what finished runs are worth: reconstruction, representation, health of the latent.

    uv run -m leae evaluate runs/self-teaching-001 runs/masked-001
    uv run -m leae evaluate runs/*-001 --label-share 0.01
    uv run --extra perceptual -m leae evaluate runs/*-001 --perceptual      LPIPS and FID, besides

All runs see the same held-out images and the same masks. Beside them stand the untrained encoder of the same shape, PCA
of the pixels to as many numbers, and chance, which answers every image with the training set's mean image. Each run's
folder gets its figures in evaluation.json and a picture of them in evaluation.png.
"""

import argparse
import json
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from leae.analysis.metrics import PerceptualFigures, reconstruction_figures
from leae.analysis.pixel_pca import MeanImage, PixelPCA
from leae.analysis.probes import (
    LEAST,
    PROBE_DIMS,
    Figures,
    interval,
    is_better,
    linear_scores,
    mean_over_attributes,
    neighbour_scores,
    probed_attributes,
    resample_weights,
)
from leae.analysis.trained import FinishedRun, add_options, encode_all, open_data, open_runs, views_for
from leae.autoencoder import BaseAutoencoder
from leae.data.prepare import Dataset
from leae.errors import run_command
from leae.files import whole_file
from leae.training.checkpoints import MODELS
from leae.training.device import find_device
from leae.training.evaluation import MaskedViews, evaluating, mean_image
from leae.training.monitoring import dead_dimensions, drift, effective_rank, gaussianity, spectrum
from leae.training.run import versions
from leae.training.settings import Parser, require, require_whole

RECONSTRUCTION = {  # rows of the table: what is measured, and its format
    "psnr_clean": ("PSNR of clean images (dB)", ".2f"),
    "psnr_masked": ("PSNR of masked images (dB)", ".2f"),
    "psnr_square_clean": ("  in the square, clean", ".2f"),
    "psnr_square_masked": ("  in the square, masked", ".2f"),
    "ssim_clean": ("SSIM of clean images", ".3f"),
    "ssim_masked": ("SSIM of masked images", ".3f"),
    "ssim_square_clean": ("  in the square, clean", ".3f"),
    "ssim_square_masked": ("  in the square, masked", ".3f"),
    "sharpness_square_clean": ("sharpness in the square, clean", ".2f"),
    "sharpness_square_masked": ("sharpness in the square, masked", ".2f"),
    "lpips_clean": ("LPIPS of clean images", ".3f"),
    "lpips_masked": ("LPIPS of masked images", ".3f"),
    "fid_clean": ("FID of clean images", ".1f"),
    "fid_masked": ("FID of masked images", ".1f"),
}
LATENT = {
    "numbers": ("numbers an image", "d"),
    "sigreg": ("SIGReg statistic", ".1f"),
    "sigreg_gaussian": ("  of as many N(0, I) codes", ".1f"),
    "effective_rank": ("effective rank", ".1f"),
    "dimensions": ("  of so many dimensions", "d"),
    "dead_dimensions": ("dead dimensions", "d"),
    "drift": ("drift under masking", ".2f"),
}
VIEWS = ("clean", "masked")
METHODS = {  # what reads attributes from codes, and the figures that say how well
    "linear": ("auroc", "balanced_accuracy"),
    "few": ("auroc", "balanced_accuracy"),
    "neighbours": ("balanced_accuracy",),
}
FIGURES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
CHANCE = 0.5  # of both of them
LABEL_WIDTH, COLUMN_WIDTH = 33, 13


@dataclass
class Column:
    """One encoder of the table, and what is measured of it.

    Attributes:
        name: at its head.
        model: with `encode` where it has codes, and `forward` where its reconstructions count.
        reconstructs, encodes: which of them is so.
        run: the run that it is of, if any.
        rival: the name of the PCA that its probes have to beat.
        reconstruction, latent: figures by name.
        probes: figures of attributes by method and view: probes["linear", "clean"].
    """

    name: str
    model: nn.Module
    reconstructs: bool = True
    encodes: bool = True
    run: FinishedRun | None = None
    rival: str | None = None
    reconstruction: dict[str, float] = field(default_factory=dict)
    latent: dict[str, float] = field(default_factory=dict)
    probes: dict[tuple[str, str], Figures] = field(default_factory=dict)
    spectrum: Tensor | None = None


# --- who is compared ---------------------------------------------------------------------------------------------


def columns_for(runs: list[FinishedRun], train: np.ndarray, device: torch.device) -> list[Column]:
    """The runs, for each of their shapes an untrained encoder and a PCA, and chance.

    Args:
        runs: at least one.
        train: uint8 [N, S, S, C], training images.
        device: where the models are.
    """
    columns, untrained, principal = [], {}, {}
    for run in runs:
        numbers = min(run.model.latent_size, PROBE_DIMS)
        if numbers not in principal:
            pca = PixelPCA(train, numbers).to(device)
            principal[numbers] = Column(f"PCA {pca.latent_size}", pca)
        rival = principal[numbers].name
        columns.append(Column(run.name, run.model, run=run, rival=rival))
        model = untrained_like(run.model).to(device)
        shape = (type(model), *(parameter.shape for parameter in model.encoder.parameters()))
        if shape not in untrained:
            untrained[shape] = Column("untrained", model, reconstructs=False, rival=rival)
    for number, column in enumerate(untrained.values() if len(untrained) > 1 else (), start=1):
        column.name = f"untrained {number}"
    chance = Column("chance", MeanImage(mean_image(train)).to(device), encodes=False)
    return [*columns, *untrained.values(), *principal.values(), chance]


def untrained_like(model: BaseAutoencoder) -> BaseAutoencoder:
    """A model of the same shape with new weights; for a variational one its sibling without the second half."""
    torch.manual_seed(0)
    return MODELS[type(model).__name__.removeprefix("Variational")](**model.settings).eval()


# --- what is measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """Attributes of the images that are encoded: those that can be probed.

    Attributes:
        names: of the A attributes.
        train, test: bool [N, A] and [M, A].
        few: numbers of the training images whose labels the second setting uses.
        probed_by_few: bool [A], which attributes have enough of them.
        weights: of the bootstrap over the M held-out images.
    """

    names: list[str]
    train: np.ndarray
    test: np.ndarray
    few: np.ndarray
    probed_by_few: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, train_count: int, test_count: int, label_share: float) -> "Labels":
        """The labels of a data set's first images, and a random share of the training labels."""
        train = np.asarray(dataset.attributes["train"][:train_count])
        test = np.asarray(dataset.attributes["test"][:test_count])
        probed = probed_attributes(train, test)
        few = np.random.default_rng(0).permutation(len(train))[: max(1, round(label_share * len(train)))]
        names = [name for name, good in zip(dataset.attribute_names, probed, strict=True) if good]
        train, test = train[:, probed], test[:, probed]
        return cls(names, train, test, few, probed_attributes(train[few]), resample_weights(len(test)))


def probe(train: np.ndarray, test: np.ndarray, labels: Labels, title: str) -> dict[str, Figures]:
    """What codes tell of attributes, by method; whatever is fitted is fitted to the training codes.

    Args:
        train, test: float [N, D] and [M, D], codes.
        labels: theirs.
        title: of the progress bars.

    Returns:
        Figures of "linear" probes, of "few", the same with a share of the labels, and of "neighbours".
    """
    figures = {"linear": Figures.of(linear_scores(train, labels.train, test, title), labels.test, labels.weights)}
    good, few = labels.probed_by_few, labels.few
    if good.any():
        scores = linear_scores(train[few], labels.train[few][:, good], test, f"{title}, few labels")
        figures["few"] = Figures.of(scores, labels.test[:, good], labels.weights)
    scores = neighbour_scores(train, labels.train, test)
    figures["neighbours"] = Figures.of(scores, labels.test, labels.weights, ranked=False)
    return figures


def measure(
    column: Column,
    train: np.ndarray,
    test: np.ndarray,
    labels: Labels | None,
    views: MaskedViews,
    perceptual: PerceptualFigures | None,
    device: torch.device,
) -> None:
    """Fill in a column.

    Args:
        column: what is measured.
        train, test: uint8 [N, S, S, C] and [M, S, S, C].
        labels: of these images; None where there are none.
        views: the masks, of training images as well.
        perceptual: LPIPS and FID, if they are wanted.
        device: where the models are.
    """
    name = column.name
    if column.reconstructs:
        with evaluating(column.model):
            for figures in (reconstruction_figures, perceptual) if perceptual else (reconstruction_figures,):
                column.reconstruction |= figures(column.model, test, views, device, f"{name}: reconstruction")
    if not column.encodes:
        return
    shown = {"clean": None, "masked": views}
    codes = {
        view: encode_all(column.model, test, seen, device, f"{name}: held-out codes") for view, seen in shown.items()
    }
    if column.run:
        clean = codes["clean"]
        statistic, gaussian, _ = gaussianity(clean)
        column.latent = {
            "numbers": clean[0].numel(),
            "sigreg": statistic,
            "sigreg_gaussian": gaussian,
            "effective_rank": effective_rank(clean),
            "dimensions": clean.shape[1],
            "dead_dimensions": dead_dimensions(clean),
            "drift": drift(clean, codes["masked"]),
        }
        column.spectrum = spectrum(clean)
    if labels is None:
        return
    for view, seen in shown.items():
        fitted = encode_all(column.model, train, seen, device, f"{name}: training codes")
        parts = (part.flatten(1).numpy() for part in (fitted, codes[view]))
        for method, figures in probe(*parts, labels, f"{name}: {view}").items():
            column.probes[method, view] = figures


# --- what comes out ----------------------------------------------------------------------------------------------


def mean_and_interval(figure: np.ndarray) -> tuple[float, float, float]:
    """Mean over attributes, and its 95 % interval, of a figure [1 + RESAMPLES, A]."""
    means = mean_over_attributes(figure)
    return float(means[0]), *interval(means)


def beats(column: Column, rival: Column, method: str, view: str, figure: str) -> bool:
    """Whether a column's probes are better than another's on the same images, beyond what chance would do."""
    ours, theirs = (getattr(one.probes[method, view], figure) for one in (column, rival))
    return is_better(mean_over_attributes(ours), mean_over_attributes(theirs))


def table(columns: list[Column], labels: Labels | None, why_none: str) -> str:
    """The figures as text, a column for every encoder.

    Args:
        columns: measured.
        labels: that the probes were given, or None.
        why_none: what is said in that case.
    """
    by_name = {column.name: column for column in columns}
    heads = [[*column.name.replace("-", "-\n").split("\n")] for column in columns]
    height = max(map(len, heads))
    lines = []

    def row(label: str, cells: list[str]) -> None:
        lines.append((label.ljust(LABEL_WIDTH) + "".join(cell.rjust(COLUMN_WIDTH) for cell in cells)).rstrip())

    def rows(kind: str, formats: dict[str, tuple[str, str]]) -> None:
        for key, (label, form) in formats.items():
            values = [getattr(column, kind).get(key) for column in columns]
            if any(value is not None for value in values):
                row(label, ["" if value is None else f"{value:{form}}" for value in values])

    def cell(column: Column, method: str, view: str, figure: str) -> str:
        if not column.encodes:
            return f"{CHANCE:.3f}     "
        mean, low, high = mean_and_interval(getattr(column.probes[method, view], figure))
        worse = column.rival and not beats(column, by_name[column.rival], method, view, figure)
        return f"{mean:.3f}±{(high - low) / 2:.3f}".replace("±0", "±") + ("*" if worse else " ")

    for line in range(height):
        row("" if line else "reconstruction", [head[line] if line < len(head) else "" for head in heads])
    rows("reconstruction", RECONSTRUCTION)
    lines.append("")
    if labels is None:
        lines.append(f"representation: left out, {why_none}")
    else:
        few = f"{len(labels.few):,} labels, {labels.probed_by_few.sum()} attributes"
        titles = {"linear": "linear probes", "few": f"linear probes, {few}", "neighbours": "nearest neighbours"}
        lines.append(
            f"representation: mean over {len(labels.names)} attributes ± half of the 95 % interval; "
            f"* does not beat the PCA beside it"
        )
        for method, figures in METHODS.items():
            if any((method, "clean") in column.probes for column in columns):
                lines.append(titles[method])
                for figure in figures:
                    for view in VIEWS:
                        cells = [cell(column, method, view, figure) for column in columns]
                        row(f"  {FIGURES[figure]}, {view}", cells)
    lines += ["", "latent, of clean held-out images"]
    rows("latent", LATENT)
    return "\n".join(lines)


def record(column: Column, columns: list[Column], labels: Labels | None, options: dict) -> dict:
    """What evaluation.json holds: the figures of a run and of what stands beside it."""
    by_name = {one.name: one for one in columns}

    def probes_of(one: Column) -> dict:
        found = {}
        for (method, view), figures in one.probes.items():
            names = labels.names
            if method == "few":
                names = [name for name, good in zip(names, labels.probed_by_few, strict=True) if good]
            for figure in METHODS[method]:
                values = getattr(figures, figure)
                mean, low, high = mean_and_interval(values)
                entry = {"mean": mean, "interval": [low, high], "attributes": dict(zip(names, values[0], strict=True))}
                if one.rival:
                    entry[f"beats {one.rival}"] = beats(one, by_name[one.rival], method, view, figure)
                found.setdefault(method, {}).setdefault(view, {})[figure] = entry
        return found

    def figures_of(one: Column) -> dict:
        return {"reconstruction": one.reconstruction, "latent": one.latent, "representation": probes_of(one)}

    beside = {one.name: figures_of(one) for one in columns if one.run is None}
    return {
        "run": column.run.run.folder.name,
        "checkpoint": column.run.checkpoint,
        "step": column.run.step,
        "data": column.run.run.data,
        "options": options,
        **figures_of(column),
        "beside": beside,
        "versions": versions(),
    }


def draw(column: Column, columns: list[Column], labels: Labels | None) -> Figure:
    """A run's picture: what its codes tell of every attribute, and how they spread over their dimensions."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    run = column.run
    figure.suptitle(f"{run.name}: {run.method}, {run.size}, checkpoint {run.checkpoint}")
    if labels is None:
        right = figure.subplots()
    else:
        left, right = figure.subplots(1, 2)
        clean = column.probes["linear", "clean"].auroc[0]
        order = np.argsort(clean)
        marks = {column.name: ("clean", "o", "C0"), f"{column.name}, masked views": ("masked", "o", "none")}
        for name, (view, marker, face) in marks.items():
            values = column.probes["linear", view].auroc[0][order]
            left.plot(values, range(len(order)), marker, color="C0", markerfacecolor=face, label=name)
        others = [one for one in columns if one.probes and one.run is None]
        for number, one in enumerate(one for one in others if column.rival in (one.name, one.rival)):
            values = one.probes["linear", "clean"].auroc[0][order]
            left.plot(values, range(len(order)), "x+1"[number % 3], color=f"C{number + 1}", label=one.name)
        left.set_yticks(range(len(order)), [labels.names[i] for i in order])
        left.axvline(CHANCE, color="grey", linewidth=1)
        left.grid(alpha=0.3)
        left.set(title="linear probes of held-out codes", xlabel="AUROC")
        left.legend()
    right.plot(range(1, len(column.spectrum) + 1), column.spectrum.numpy())
    right.axhline(1, color="grey", linewidth=1, label="N(0, I)")
    right.grid(alpha=0.3)
    rank, dimensions = column.latent["effective_rank"], column.latent["dimensions"]
    right.set(
        title=f"spread of the codes: effective rank {rank:.1f} of {dimensions}",
        xlabel="principal direction",
        ylabel="standard deviation",
        ylim=(0, None),
    )
    right.legend()
    return figure


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "RUN", nargs="+")
    parser.add_argument("--train-images", type=int, default=10_000, help="that probes are fitted to [%(default)s]")
    parser.add_argument("--held-out", type=int, default=20_000, help="images of the test split [%(default)s]")
    share = "of the labels in the probes' second setting [%(default)s]"
    parser.add_argument("--label-share", type=float, default=0.05, help=share)
    parser.add_argument("--perceptual", action="store_true", help="LPIPS and FID as well")
    chosen = parser.parse_args()
    require_whole(100, **{"--train-images": chosen.train_images, "--held-out": chosen.held_out})
    require(0 < chosen.label_share <= 1, "--label-share", chosen.label_share, "above 0 and at most 1, say 0.05")
    device = find_device(chosen.device)
    runs = open_runs(chosen.runs, chosen.checkpoint, device)
    views = views_for(runs[0], chosen.mask_ratio)
    perceptual = PerceptualFigures(device) if chosen.perceptual else None
    dataset = open_data(runs[0])

    train, test = dataset.images["train"][: chosen.train_images], dataset.images["test"][: chosen.held_out]
    labels, why_none = None, f"{dataset.title} come without attributes"
    if dataset.attribute_names:
        labels = Labels.of(dataset, len(train), len(test), chosen.label_share)
        if not labels.names:
            labels, why_none = None, f"no attribute has {LEAST} images with it and as many without, in both splits"
    print(
        f"{dataset.title}: {len(train):,} training and {len(test):,} held-out images; mask ratio {views.mask_ratio:g}"
    )
    columns = columns_for(runs, train, device)
    for column in columns:
        measure(column, train, test, labels, views, perceptual, device)

    print(table(columns, labels, why_none))
    options = {
        "mask_ratio": views.mask_ratio,
        "train_images": len(train),
        "held_out": len(test),
        "label_share": chosen.label_share,
    }
    for column in columns[: len(runs)]:
        folder = column.run.run.folder
        with whole_file(folder / "evaluation.json") as file:
            json.dump(record(column, columns, labels, options), file, indent=2)
        with whole_file(folder / "evaluation.png", "wb") as file:
            draw(column, columns, labels).savefig(file, format="png", dpi=100)
    print(f"figures: evaluation.json and evaluation.png in {', '.join(str(run.run.folder) for run in runs)}")


if __name__ == "__main__":
    run_command(main)
