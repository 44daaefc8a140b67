"""Scores for a folder of images by how badly a run's model reconstructs them: its training data count as normal.

    uv run -m leae score runs/self-teaching-001 path/to/images
    uv run -m leae score runs/self-teaching-001 path/to/images --positive defective

Writes into latents/ of the run's folder: scores.csv, every image with its reconstruction's mean squared error;
scores.png, the highest and the lowest; and where the folder has nothing but two sub-folders, "normal" and "defective"
say, roc.png: how well the scores tell them apart.
"""

import argparse
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
from torch import nn
from tqdm import tqdm

from leae.analysis.maps import DPI, WITH, WITHOUT, legend_text
from leae.analysis.trained import (
    ANALYSIS_BATCH,
    LATENTS,
    TrainedRun,
    add_run_arguments,
    batches_of,
    open_data,
    open_runs,
    save_picture,
    squared_errors,
)
from leae.data.batches import to_float
from leae.data.sources import folder_source
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.evaluation import reconstruct
from leae.training.pictures import draw_grid
from leae.training.settings import Parser

MOST_IMAGES = 50  # in a row of the picture
LETTERS = 24  # of a sub-folder's name in a legend
COLUMNS = ("file", "score", "above_held_out", "reason")


class ImageFolder:
    """The images of a folder, at any depth, cut and scaled as those of a data set are; nothing is read yet.

    Args:
        root: the folder; a `UsageError` if it has no images.
        image_shape: (C, S, S) of the model; for C = 1 the images are turned grey.

    Attributes:
        names: the files' paths below the folder, in order.
        labels: the sub-folders where there are two, which hold all images; else none.
    """

    def __init__(self, root: Path, image_shape: tuple[int, ...]):
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder; name one with images")
        self.source = folder_source(root, image_shape[1])
        self.grey = image_shape[0] == 1
        self.names = sorted(name for members in self.source.splits.values() for name in members)
        tops = {sub_folder(name) for name in self.names}
        self.labels = tuple(sorted(tops)) if len(tops) == 2 and "" not in tops else ()

    def read(self, names: list[str]) -> list[np.ndarray | str]:
        """Images by their names: for each uint8 [S, S, C], or the reason why there is none."""
        images = self.source.read(names)
        if self.grey:
            images = [i if isinstance(i, str) else np.array(Image.fromarray(i).convert("L"))[..., None] for i in images]
        return images


def sub_folder(name: str) -> str:
    """The first folder of a relative path; "" for a file in none."""
    return name.split("/")[0] if "/" in name else ""


@dataclass(frozen=True)
class Scores:
    """Scores of a folder's images, and what could not be scored."""

    names: list[str]  # in order of their score, the highest first
    errors: np.ndarray  # float64 [N], their scores: the mean squared error of the reconstruction
    unusable: list[tuple[str, str]]  # the other files, each with the reason


def score_images(folder: ImageFolder, model: nn.Module, device: torch.device) -> Scores:
    """Scores of all images of a folder, behind a progress bar; a `UsageError` if none can be used."""
    errors, unusable = {}, []
    for first in tqdm(range(0, len(folder.names), ANALYSIS_BATCH), desc="scoring", leave=False, dynamic_ncols=True):
        members = folder.names[first : first + ANALYSIS_BATCH]
        results = dict(zip(members, folder.read(members), strict=True))
        unusable += [(name, result) for name, result in results.items() if isinstance(result, str)]
        images = {name: result for name, result in results.items() if not isinstance(result, str)}
        if images:
            batch = to_float(np.stack(list(images.values())), device)
            errors |= zip(images, squared_errors(model, batch).tolist(), strict=True)
    if not errors:
        raise UsageError(f"none of the {len(unusable)} images can be scored; {unusable[0][0]}: {unusable[0][1]}")
    names = sorted(errors, key=lambda name: -errors[name])
    return Scores(names, np.array([errors[name] for name in names]), unusable)


def write_scores(scores: Scores, held_out: np.ndarray, file: IO[str]) -> None:
    """The scores as CSV, the highest first, then the files that could not be used, each with the reason.

    Args:
        scores: what is written; file is the path below the folder, score the mean squared error.
        held_out: float [M], the errors of held-out images; above_held_out is the share of them that is lower.
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


def draw_scores(folder: ImageFolder, scores: Scores, run: TrainedRun, count: int, device: torch.device) -> Image.Image:
    """At most `count` images with the highest and with the lowest scores, each above its reconstruction."""
    total = len(scores.names)
    count = max(1, min(count, total // 2))
    rows, captions = {}, {}
    for which, places in (("highest", range(count)), ("lowest", range(total - 1, total - 1 - count, -1))):
        names = [scores.names[place] for place in places]
        read = folder.read(names)
        gone = [name for name, image in zip(names, read, strict=True) if isinstance(image, str)]
        if gone:
            raise UsageError(f"{printable(gone[0])} has changed while the folder was scored; score it again")
        images = to_float(np.stack(read), device)
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above], rows[below] = images.cpu(), reconstruct(run.model, images).cpu()
        captions[above] = [printable(name).rpartition("/")[2] for name in names]
        captions[below] = [f"{place + 1}.  {scores.errors[place]:#.3g}" for place in places]
    said = f"{total:,} images by the mean squared error of their reconstructions; 1. has the highest"
    return draw_grid(rows, f"{run.title}\n{said}", captions=captions)


def positive_of(scores: Scores, labels: tuple[str, str], positive: str | None) -> tuple[str, np.ndarray] | None:
    """The sub-folder that should score higher, and which of the scores are of its images: bool [N].

    `labels` are both sub-folders; without a `positive` one it is the one with the higher mean score. None where one of
    them has no image that could be used.
    """
    owners = np.array([sub_folder(name) for name in scores.names])
    if len(set(owners)) < 2:
        return None
    positive = positive or max(labels, key=lambda label: scores.errors[owners == label].mean())
    return positive, owners == positive


def draw_roc(errors: np.ndarray, positives: np.ndarray, names: dict[bool, str], limit: float, title: str) -> Figure:
    """The ROC curve of scores, float64 [N], and both sub-folders' scores as histograms.

    Args:
        errors: the scores.
        positives: bool [N], which of them should be higher.
        names: of the sub-folder of positive images, and of the other.
        limit: what 95 % of the held-out images score at most.
        title: one line.
    """
    figure = Figure(figsize=(12, 5.2), dpi=DPI, layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    false, true, _ = roc_curve(positives, errors)
    curve.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance: 0.5")
    curve.plot(false, true, color=WITH, linewidth=2, label=f"score: {roc_auc_score(positives, errors):.3f}")
    curve.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve", aspect="equal")
    curve.legend(title="area under the curve", loc="lower right")
    edges = np.histogram_bin_edges(errors, bins=20)
    for positive, colour in ((False, WITHOUT), (True, WITH)):
        part = errors[positives == positive]
        label = f"{legend_text(names[positive], LETTERS)} ({len(part):,})"
        histogram.hist(part, edges, weights=np.full(len(part), 1 / len(part)), color=colour, alpha=0.6, label=label)
    histogram.axvline(limit, color="black", linestyle="--", linewidth=1, label="95% of held-out images are below")
    histogram.set(xlabel="mean squared error", ylabel="share of the images")
    histogram.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the images to score, at any depth")
    parser.add_argument("--positive", metavar="NAME", help="sub-folder to be flagged [the one of higher mean score]")
    parser.add_argument("--images", type=int, default=8, help="images in a row of scores.png [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, MOST_IMAGES, **{"--images": options.images})
    device = find_device(options.device)
    [run] = open_runs(options.runs, options.checkpoint, device)
    folder = ImageFolder(options.folder, run.model.image_shape)
    if options.positive is not None:
        names = " or ".join(map(printable, folder.labels)) or "left out, for the folder has not two sub-folders"
        require(options.positive in folder.labels, "--positive", options.positive, names)
    dataset = open_data(run)
    output = run.run.folder / LATENTS
    output.mkdir(exist_ok=True)

    batches = batches_of(dataset.images["test"], device, "reconstructing held-out images")
    held_out = torch.cat([squared_errors(run.model, batch) for _, batch in batches]).numpy()
    scores = score_images(folder, run.model, device)
    with atomic_write(output / "scores.csv") as file:
        write_scores(scores, held_out, file)
    limit = float(np.quantile(held_out, 0.95))
    above = (scores.errors > limit).sum()
    unusable = f"{len(scores.unusable):,} that cannot be used"
    print(f"scores: {output / 'scores.csv'}; {len(scores.names):,} images, {unusable}")
    print(f"{above:,} score above {limit:.3g}, as 5% of the {len(held_out):,} held-out images of {dataset.title} do")
    save_picture(draw_scores(folder, scores, run, options.images, device), output / "scores.png")
    print(f"highest and lowest: {output / 'scores.png'}")

    (output / "roc.png").unlink(missing_ok=True)  # another folder's would lie beside these scores
    if not folder.labels:
        print("no ROC curve: the folder has not two sub-folders that hold all of its images")
        return
    found = positive_of(scores, folder.labels, options.positive)
    if found is None:
        print("no ROC curve: one of the two sub-folders has no image that can be used")
        return
    positive, positives = found
    names = {label == positive: printable(label) for label in folder.labels}
    reason = "as --positive says" if options.positive else "which has the higher mean score; --positive says otherwise"
    area = roc_auc_score(positives, scores.errors)
    print(f"AUROC {area:.4f} of {names[True]!r} ({reason}) against {names[False]!r}: {output / 'roc.png'}")
    save_picture(draw_roc(scores.errors, positives, names, limit, run.title), output / "roc.png")
