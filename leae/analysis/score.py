"""Scores for a folder of images by how badly a run's model reconstructs them: its training data count as normal.

    uv run -m leae score runs/self-teaching-001 path/to/images
    uv run -m leae score runs/self-teaching-001 path/to/images --positive defective

Writes into latents/ of the run's folder: scores.csv, every image with its reconstruction's mean squared error;
scores.png, the highest and the lowest; and with --positive roc.png: how well the scores tell the images of that
sub-folder from all others.
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
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from tqdm import tqdm

from leae.analysis import maps, trained
from leae.analysis.trained import add_run_arguments
from leae.autoencoder import BaseAutoencoder
from leae.data.batches import to_float
from leae.data.sources import folder_source, read_images
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.evaluation import BATCH, reconstruct
from leae.training.pictures import draw_grid
from leae.training.settings import Parser

MOST_IMAGES = 50  # in a row of the picture
LETTERS = 24  # of a sub-folder's name in a legend


def image_names(root: Path) -> list[str]:
    """A folder's images, at any depth, as paths below it; `UsageError` if it has none."""
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one with images")
    return sorted(name for names in folder_source(root, size=0).splits.values() for name in names)


def read_for(model: BaseAutoencoder, root: Path, names: list[str]) -> list[np.ndarray | str]:
    """Images below a folder as a model takes them: for each uint8 [S, S, C], or the reason why there is none."""
    channels, size, _ = model.image_shape
    images = read_images(root, size, None, names)
    if channels == 1:
        images = [i if isinstance(i, str) else np.array(Image.fromarray(i).convert("L"))[..., None] for i in images]
    return images


def sub_folder(name: str) -> str:
    """The first folder of a relative path; "" for a file in none."""
    return name.split("/")[0] if "/" in name else ""


def score_images(
    root: Path, names: list[str], model: BaseAutoencoder, device: torch.device
) -> tuple[dict[str, float], dict[str, str]]:
    """Each image's mean squared error by name, the highest first; why others are unusable; `UsageError` if all are."""
    errors, unusable = {}, {}
    for first in tqdm(range(0, len(names), BATCH), desc="scoring", leave=False, dynamic_ncols=True):
        members = names[first : first + BATCH]
        results = dict(zip(members, read_for(model, root, members), strict=True))
        unusable |= {name: result for name, result in results.items() if isinstance(result, str)}
        images = {name: result for name, result in results.items() if name not in unusable}
        if images:
            batch = to_float(np.stack(list(images.values())), device)
            errors |= zip(images, trained.squared_errors(model, batch).tolist(), strict=True)
    if not errors:
        name, reason = next(iter(unusable.items()))
        raise UsageError(f"none of the {len(unusable)} images can be scored; {name}: {reason}")
    return dict(sorted(errors.items(), key=lambda item: -item[1])), unusable


def write_scores(errors: dict[str, float], unusable: dict[str, str], held_out: np.ndarray, file: IO[str]) -> None:
    """CSV of scores, then of unusable files; above_held_out is the share of the errors `held_out`, float [M], below."""
    writer = csv.writer(file)
    writer.writerow(("file", "score", "above_held_out", "reason"))
    for name, error in errors.items():
        writer.writerow((printable(name), f"{error:.6g}", f"{(held_out < error).mean():.4f}", ""))
    for name, reason in unusable.items():
        writer.writerow((printable(name), "", "", printable(reason)))


def printable(name: str) -> str:
    """A file's name with \\xNN for bytes that are not UTF-8, which no text file takes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def draw_scores(root: Path, errors: dict, run: trained.TrainedRun, count: int, device: torch.device) -> Image.Image:
    """At most `count` images with the highest and with the lowest scores, each above its reconstruction."""
    ranked, total = list(errors), len(errors)
    count = max(1, min(count, total // 2))
    rows, captions = {}, {}
    for which, places in (("highest", range(count)), ("lowest", range(total - 1, total - 1 - count, -1))):
        names = [ranked[place] for place in places]
        read = read_for(run.model, root, names)
        for name, image in zip(names, read, strict=True):
            if isinstance(image, str):
                raise UsageError(f"{printable(name)} has changed while the folder was scored; score it again")
        images = to_float(np.stack(read), device)
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above], rows[below] = images.cpu(), reconstruct(run.model, images).cpu()
        captions[above] = [printable(name).rpartition("/")[2] for name in names]
        captions[below] = [f"{place + 1}.  {errors[name]:#.3g}" for place, name in zip(places, names, strict=True)]
    said = f"{total:,} images by the mean squared error of their reconstructions; 1. has the highest"
    return draw_grid(rows, f"{run.title}\n{said}", captions=captions)


def draw_roc(errors: np.ndarray, positives: np.ndarray, name: str, limit: float, title: str) -> Figure:
    """The ROC curve of scores, float64 [N], and histograms of the scores of positives, bool [N], and of the others.

    The positives, whose sub-folder has that name, should score higher; 95 % of held-out images score at most `limit`.
    """
    figure = Figure(figsize=(12, 5.2), dpi=maps.DPI, layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    RocCurveDisplay.from_predictions(positives, errors, name="score", ax=curve, plot_chance_level=True)
    area = roc_auc_score(positives, errors)
    curve.set(xlabel="false positive rate", ylabel="true positive rate", title=f"area under the curve: {area:.3f}")
    edges = np.histogram_bin_edges(errors, bins=20)
    for part, said, colour in ((errors[~positives], "others", maps.WITHOUT), (errors[positives], name, maps.WITH)):
        label = f"{maps.legend_text(said, LETTERS)} ({len(part):,})"
        histogram.hist(part, edges, weights=np.full(len(part), 1 / len(part)), color=colour, alpha=0.6, label=label)
    histogram.axvline(limit, color="black", linestyle="--", linewidth=1, label="95% of held-out images are below")
    histogram.set(xlabel="mean squared error", ylabel="share of the images")
    histogram.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the images to score, at any depth")
    parser.add_argument("--positive", metavar="NAME", help="sub-folder whose images should score higher than others")
    parser.add_argument("--images", type=int, default=8, help="images in a row of scores.png [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, MOST_IMAGES, **{"--images": options.images})
    device = find_device(options.device)
    [run] = trained.open_runs(options.runs, options.checkpoint, device)
    names = image_names(options.folder)
    folders, positive = sorted({sub_folder(name) for name in names} - {""}), options.positive
    if positive is not None:
        expected = f"one of {', '.join(map(printable, folders))}" if folders else "left out: there is no sub-folder"
        require(positive in folders, "--positive", positive, expected)
    dataset, output = run.open_data(), run.run.folder / "latents"
    output.mkdir(exist_ok=True)

    held_out = trained.held_out_errors(run.model, dataset.images["test"], device).numpy()
    errors, unusable = score_images(options.folder, names, run.model, device)
    with atomic_write(output / "scores.csv") as file:
        write_scores(errors, unusable, held_out, file)
    scores, limit = np.array(list(errors.values())), float(np.quantile(held_out, 0.95))
    print(f"scores: {output / 'scores.csv'}; {len(scores):,} images, {len(unusable):,} that cannot be used")
    said = f"as 5% of the {len(held_out):,} held-out images of {dataset.title} do"
    print(f"{(scores > limit).sum():,} score above {limit:.3g}, {said}")
    trained.save_picture(draw_scores(options.folder, errors, run, options.images, device), output / "scores.png")
    print(f"highest and lowest: {output / 'scores.png'}")

    (output / "roc.png").unlink(missing_ok=True)  # another folder's would lie beside these scores
    if positive is not None:
        positives = np.array([sub_folder(name) == positive for name in errors])
        if positives.all() or not positives.any():
            print("no ROC curve: it takes images that can be used both in this sub-folder and elsewhere")
            return
        area, name = roc_auc_score(positives, scores), printable(positive)
        print(f"AUROC {area:.4f} of {name!r} against all others: {output / 'roc.png'}")
        trained.save_picture(draw_roc(scores, positives, name, limit, run.title), output / "roc.png")
