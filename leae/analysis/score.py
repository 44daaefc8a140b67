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
    TrainedRun,
    add_run_arguments,
    held_out_errors,
    open_runs,
    save_picture,
    squared_errors,
)
from leae.data.batches import to_float
from leae.data.sources import folder_source
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.evaluation import BATCH, reconstruct
from leae.training.pictures import draw_grid
from leae.training.settings import Parser

MOST_IMAGES = 50  # in a row of the picture
LETTERS = 24  # of a sub-folder's name in a legend


class ImageFolder:
    """The images of a folder, at any depth, as uint8 [S, S, C] for a model's (C, S, S); `UsageError` if none."""

    def __init__(self, root: Path, image_shape: tuple[int, ...]):
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder; name one with images")
        self.source = folder_source(root, image_shape[1])
        self.grey = image_shape[0] == 1
        self.names = sorted(name for members in self.source.splits.values() for name in members)  # paths below it
        tops = {sub_folder(name) for name in self.names}
        # The sub-folders, where there are two and these have all images.
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


def score_images(folder: ImageFolder, model: nn.Module, device: torch.device) -> tuple[dict, dict]:
    """Each image's mean squared error by name, the highest first; why others are unusable; `UsageError` if all are."""
    errors, unusable = {}, {}
    for first in tqdm(range(0, len(folder.names), BATCH), desc="scoring", leave=False, dynamic_ncols=True):
        members = folder.names[first : first + BATCH]
        results = dict(zip(members, folder.read(members), strict=True))
        unusable |= {name: result for name, result in results.items() if isinstance(result, str)}
        images = {name: result for name, result in results.items() if name not in unusable}
        if images:
            batch = to_float(np.stack(list(images.values())), device)
            errors |= zip(images, squared_errors(model, batch).tolist(), strict=True)
    if not errors:
        name, reason = next(iter(unusable.items()))
        raise UsageError(f"none of the {len(unusable)} images can be scored; {name}: {reason}")
    return dict(sorted(errors.items(), key=lambda item: -item[1])), unusable


def write_scores(errors: dict[str, float], unusable: dict[str, str], held_out: np.ndarray, file: IO[str]) -> None:
    """CSV of scores, then of unusable files; above_held_out is the share of the errors `held_out`, float [M], below."""
    writer = csv.writer(file)
    writer.writerow(("file", "score", "above_held_out", "reason"))
    shares = np.searchsorted(np.sort(held_out), list(errors.values()), side="left") / len(held_out)
    for (name, error), share in zip(errors.items(), shares, strict=True):
        writer.writerow((printable(name), f"{error:.6g}", f"{share:.4f}", ""))
    for name, reason in unusable.items():
        writer.writerow((printable(name), "", "", printable(reason)))


def printable(name: str) -> str:
    """A file's name with \\xNN for bytes that are not UTF-8, which no text file takes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def draw_scores(folder: ImageFolder, errors: dict, run: TrainedRun, count: int, device: torch.device) -> Image.Image:
    """At most `count` images with the highest and with the lowest scores, each above its reconstruction."""
    ranked, total = list(errors), len(errors)
    count = max(1, min(count, total // 2))
    rows, captions = {}, {}
    for which, places in (("highest", range(count)), ("lowest", range(total - 1, total - 1 - count, -1))):
        names = [ranked[place] for place in places]
        read = folder.read(names)
        gone = [name for name, image in zip(names, read, strict=True) if isinstance(image, str)]
        if gone:
            raise UsageError(f"{printable(gone[0])} has changed while the folder was scored; score it again")
        images = to_float(np.stack(read), device)
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above], rows[below] = images.cpu(), reconstruct(run.model, images).cpu()
        captions[above] = [printable(name).rpartition("/")[2] for name in names]
        captions[below] = [f"{place + 1}.  {errors[name]:#.3g}" for place, name in zip(places, names, strict=True)]
    said = f"{total:,} images by the mean squared error of their reconstructions; 1. has the highest"
    return draw_grid(rows, f"{run.title}\n{said}", captions=captions)


def draw_roc(errors: np.ndarray, positives: np.ndarray, names: dict[bool, str], limit: float, title: str) -> Figure:
    """The ROC curve of scores, float64 [N], and histograms of both sub-folders' scores.

    Of the sub-folders' names the one at True is that of the `positives`, bool [N], which should score higher; 95 % of
    the held-out images score at most `limit`.
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
    dataset = run.open_data()
    output = run.latents_folder()

    held_out = held_out_errors(run.model, dataset.images["test"], device).numpy()
    errors, unusable = score_images(folder, run.model, device)
    with atomic_write(output / "scores.csv") as file:
        write_scores(errors, unusable, held_out, file)
    scores, limit = np.array(list(errors.values())), float(np.quantile(held_out, 0.95))
    print(f"scores: {output / 'scores.csv'}; {len(scores):,} images, {len(unusable):,} that cannot be used")
    said = f"as 5% of the {len(held_out):,} held-out images of {dataset.title} do"
    print(f"{(scores > limit).sum():,} score above {limit:.3g}, {said}")
    save_picture(draw_scores(folder, errors, run, options.images, device), output / "scores.png")
    print(f"highest and lowest: {output / 'scores.png'}")

    (output / "roc.png").unlink(missing_ok=True)  # another folder's would lie beside these scores
    owners = np.array([sub_folder(name) for name in errors])
    if not folder.labels or len(set(owners)) < 2:
        reason = "one of the two sub-folders has no image that can be used"
        if not folder.labels:
            reason = "the folder has not two sub-folders that hold all of its images"
        print(f"no ROC curve: {reason}")
        return
    positive = options.positive or max(folder.labels, key=lambda label: scores[owners == label].mean())
    positives, names = owners == positive, {label == positive: printable(label) for label in folder.labels}
    reason = "as --positive says" if options.positive else "which has the higher mean score; --positive says otherwise"
    area = roc_auc_score(positives, scores)
    print(f"AUROC {area:.4f} of {names[True]!r} ({reason}) against {names[False]!r}: {output / 'roc.png'}")
    save_picture(draw_roc(scores, positives, names, limit, run.title), output / "roc.png")
