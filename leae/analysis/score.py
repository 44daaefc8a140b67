"""Scores for a folder of images by how badly a model reconstructs them: what it was trained on counts as normal."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from tqdm import tqdm

from leae.analysis.maps import DPI, WITH, WITHOUT, legend_text
from leae.autoencoder import BaseAutoencoder
from leae.data.prepare import Source, folder_source, to_float
from leae.errors import UsageError
from leae.training.evaluation import BATCH, reconstruct
from leae.training.pictures import draw_grid

LEGEND_LETTERS = 24  # of a sub-folder's name
COLUMNS = ("file", "score", "above_held_out", "reason")


class ImageFolder:
    """The images of a folder, at any depth, as a model takes them. Nothing is read yet.

    They are found, and cut, as those of a data set are: the central square, scaled to the model's size. For a model
    of grey images they are turned grey.

    Args:
        root: the folder.
        image_shape: (C, S, S) of the model.

    Attributes:
        names: the files' paths below the folder, in order.
        labels: where the folder has nothing but two sub-folders with images, these; else none.

    Raises:
        UsageError: there is no such folder, or there are no images in it, or the model's images have another number of
            channels than 1 or 3.
    """

    def __init__(self, root: Path, image_shape: tuple[int, ...]):
        if not root.is_dir():
            raise UsageError(f"--score is {root}, which is not a folder; name one with images")
        if image_shape[0] not in (1, 3):
            raise UsageError(f"the model takes images of {image_shape[0]} channels; only grey and RGB can be scored")
        self.source: Source = folder_source(root, image_shape[1])
        self.channels = image_shape[0]
        self.names = sorted(name for members in self.source.splits.values() for name in members)
        tops = sorted({self.label_of(name) for name in self.names})
        self.labels = tuple(tops) if len(tops) == 2 and "" not in tops else ()

    @staticmethod
    def label_of(name: str) -> str:
        """The sub-folder that a file is in; "" for one that is in none."""
        return name.split("/")[0] if "/" in name else ""

    def read(self, names: list[str]) -> list[np.ndarray | str]:
        """Images by their names: for each uint8 [S, S, C], or the reason why there is none."""
        return [read if isinstance(read, str) else self._channelled(read) for read in self.source.read(names)]

    def _channelled(self, image: np.ndarray) -> np.ndarray:
        return image if self.channels == 3 else np.asarray(Image.fromarray(image).convert("L"))[..., None]


@dataclass(frozen=True)
class Scores:
    """What came of a folder.

    Attributes:
        names: of the images that could be used, in order of their score, the highest first.
        errors: float64 [N], their scores: the mean squared error of the reconstruction.
        unusable: the others, each with the reason.
    """

    names: list[str]
    errors: np.ndarray
    unusable: list[tuple[str, str]]


def squared_errors(model: BaseAutoencoder, images: Tensor) -> Tensor:
    """Mean squared error of each image's reconstruction: float [N, C, S, S] in [0, 1] → float64 [N] on the CPU."""
    return (reconstruct(model, images) - images).cpu().double().square().mean(dim=(1, 2, 3))


def score_images(folder: ImageFolder, model: BaseAutoencoder, device: torch.device) -> Scores:
    """Scores of all images of a folder, behind a progress bar.

    Raises:
        UsageError: none of them can be used.
    """
    names, errors, unusable = [], [], []
    with tqdm(total=len(folder.names), desc="scoring", unit="img", leave=False, dynamic_ncols=True) as bar:
        for first in range(0, len(folder.names), BATCH):
            members = folder.names[first : first + BATCH]
            results = dict(zip(members, folder.read(members), strict=True))
            unusable += [(name, result) for name, result in results.items() if isinstance(result, str)]
            images = {name: result for name, result in results.items() if not isinstance(result, str)}
            if images:
                names += images
                errors += squared_errors(model, to_float(np.stack(list(images.values())), device)).tolist()
            bar.update(len(members))
    if not names:
        raise UsageError(f"none of the {len(unusable)} images can be scored; {unusable[0][0]}: {unusable[0][1]}")
    order = np.argsort(-np.array(errors), kind="stable")
    return Scores([names[number] for number in order], np.array(errors)[order], unusable)


def write_scores(scores: Scores, held_out: np.ndarray, file: IO[str]) -> None:
    """The scores as CSV, the highest first, then the files that could not be used.

    Columns: file, its path below the folder; score, the mean squared error; above_held_out, the share of held-out
    images of the training data that are reconstructed better; reason, why there is no score. Bytes of a name that are
    not UTF-8 are written as \\xNN.

    Args:
        scores: what is written.
        held_out: float [M], the errors of the held-out images.
        file: open for text without translation of line ends.
    """
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    shares = np.searchsorted(np.sort(held_out), scores.errors, side="left") / len(held_out)
    for name, error, share in zip(scores.names, scores.errors, shares, strict=True):
        writer.writerow((printable(name), f"{error:.6g}", f"{share:.4f}", ""))
    for name, reason in scores.unusable:
        writer.writerow((printable(name), "", "", printable(reason)))


def printable(name: str) -> str:
    """A file's name with \\xNN for bytes that are not UTF-8, which no text file takes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def draw_scores(
    folder: ImageFolder, scores: Scores, model: BaseAutoencoder, count: int, title: str, device: torch.device
) -> Image.Image:
    """The images with the highest and those with the lowest scores, each above its reconstruction.

    Args:
        folder: the images.
        scores: theirs.
        model: whose reconstructions are shown.
        count: of images in a row, of which there are fewer where there are not twice as many.
        title: the picture's first line.
        device: where the model is.

    Raises:
        UsageError: an image cannot be read any more.
    """
    total = len(scores.names)
    count = max(1, min(count, total // 2))
    rows, captions = {}, {}
    for which, places in (("highest", range(count)), ("lowest", range(total - 1, total - 1 - count, -1))):
        names = [scores.names[place] for place in places]
        read = folder.read(names)
        gone = next((name for name, image in zip(names, read, strict=True) if isinstance(image, str)), None)
        if gone is not None:
            raise UsageError(f"{printable(gone)} has changed while the folder was scored; score it again")
        images = to_float(np.stack(read), device)
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above], rows[below] = images.cpu(), reconstruct(model, images).cpu()
        captions[above] = [printable(name).rpartition("/")[2] for name in names]
        captions[below] = [f"{place + 1}.  {scores.errors[place]:#.3g}" for place in places]
    said = f"{total:,} images by the mean squared error of their reconstructions; 1. has the highest"
    return draw_grid(rows, f"{title}\n{said}", captions=captions)


@dataclass(frozen=True)
class Detection:
    """How well the scores tell one sub-folder's images, the positive ones, from the other's.

    Attributes:
        positive, negative: names of the sub-folders.
        labels: bool [N], which of the scores are of positive images.
        auroc: area under the ROC curve.
    """

    positive: str
    negative: str
    labels: np.ndarray
    auroc: float


def detect(scores: Scores, labels: tuple[str, str], positive: str | None) -> Detection | None:
    """How well scores tell two sub-folders apart.

    Args:
        scores: of both.
        labels: the sub-folders' names.
        positive: which of them is to have the higher scores; None for the one with the higher mean.

    Returns:
        None where one of them has no image that could be used.
    """
    owners = np.array([ImageFolder.label_of(name) for name in scores.names])
    if len(set(owners)) < 2:
        return None
    if positive is None:
        positive = max(labels, key=lambda label: scores.errors[owners == label].mean())
    negative = next(label for label in labels if label != positive)
    return Detection(positive, negative, owners == positive, roc_auc_score(owners == positive, scores.errors))


def draw_detection(scores: Scores, detection: Detection, limit: float, title: str) -> Figure:
    """The ROC curve, and the scores of both sub-folders as histograms.

    Args:
        scores: of both.
        detection: from `detect`.
        limit: what 95 % of the held-out images score at most.
        title: one line.
    """
    figure = Figure(figsize=(12, 5.2), dpi=DPI, layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    false, true, _ = roc_curve(detection.labels, scores.errors)
    curve.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance: 0.5")
    curve.plot(false, true, color=WITH, linewidth=2, label=f"score: {detection.auroc:.3f}")
    curve.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve", aspect="equal")
    curve.legend(title="area under the curve", loc="lower right")
    edges = np.histogram_bin_edges(scores.errors, bins=20)
    for label, name, colour in ((False, detection.negative, WITHOUT), (True, detection.positive, WITH)):
        errors = scores.errors[detection.labels == label]
        name = f"{legend_text(printable(name), LEGEND_LETTERS)} ({len(errors):,})"
        weights = np.full(len(errors), 1 / len(errors))
        histogram.hist(errors, edges, weights=weights, color=colour, alpha=0.6, label=name)
    histogram.axvline(limit, color="black", linestyle="--", linewidth=1, label="95% of held-out images are below")
    histogram.set(xlabel="mean squared error", ylabel="share of the images")
    histogram.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure
