"""Anomaly scores for a folder of images: how unlike a run's training data they are.

    uv run -m leae score runs/self-teaching-001 path/to/images
    uv run -m leae score runs/self-teaching-001 path/to/images --positive defective

Writes into latents/scores-images/ of the run's folder, images being the folder's name: scores.csv, every image with its
reconstruction's error and its code's distance from the training codes; scores.png, the highest and the lowest; and with
--positive roc.png: how well the scores tell the images of that sub-folder from all others.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from torch import Tensor

from leae.analysis import maps, trained
from leae.analysis.embed import embed_folder, image_names, keys_of, printable, read_for
from leae.analysis.probes import PROBE_DIMS
from leae.analysis.trained import add_run_arguments
from leae.data.batches import to_float
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.evaluation import reconstruct
from leae.training.pictures import draw_grid
from leae.training.settings import Parser

MOST_IMAGES = 50  # in a row of the picture
LETTERS = 24  # of a sub-folder's name in a legend
LEAST = 1e-30  # of an error or a distance, before its logarithm is taken


def sub_folder(name: str) -> str:
    """The first folder of a relative path; "" for a file in none."""
    return name.split("/")[0] if "/" in name else ""


def distance_from(training: Tensor) -> Callable[[np.ndarray], np.ndarray]:
    """The Mahalanobis distance from training codes [M, …], as a function of codes, float32 [N, …] → float64 [N].

    The codes' spectrum falls steeply, so that Euclidean nearest neighbours hardly see the weak directions, in which
    unusual images leave the usual ones. Of codes with more than PROBE_DIMS dimensions, the principal components are
    taken.
    """
    training = training.flatten(1).numpy()
    pca = PCA(min(PROBE_DIMS, *training.shape), random_state=0).fit(training)
    normal = EmpiricalCovariance().fit(pca.transform(training))
    return lambda codes: np.sqrt(normal.mahalanobis(pca.transform(codes.reshape(len(codes), -1))).clip(min=0))


def scores_of(measures: dict[str, np.ndarray], held_out: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors and distances of N images, float64 [N] by name, and their "score", beside those of held-out images [M].

    Each measure's logarithm becomes the number of standard deviations above the mean of held-out images. The score is
    the largest: an image is unusual if one of them says so.
    """
    raised = []
    for name, values in measures.items():
        logs, usual = np.log(values.clip(min=LEAST)), np.log(held_out[name].clip(min=LEAST))
        raised.append((logs - usual.mean()) / max(usual.std(), LEAST))
    return {"score": np.max(raised, axis=0), **measures}


def write_scores(
    files: list[str], scores: dict, held_out: dict, seen: np.ndarray, unusable: dict[str, str], file: IO[str]
) -> None:
    """CSV of images, the highest score first, then of unusable files; `seen`, bool [N], are those trained on.

    Behind each measure of `scores`, float64 [N] by name, is the share of held-out images, float64 [M], that are below.
    """
    writer = csv.writer(file)
    columns = [column for name in scores for column in (name, f"{name}_above_held_out")]
    writer.writerow(("file", *columns, "trained_on", "reason"))
    for n in np.argsort(-scores["score"], kind="stable"):
        pairs = ((values[n], (held_out[name] < values[n]).mean()) for name, values in scores.items())
        figures = [figure for value, share in pairs for figure in (f"{value:.6g}", f"{share:.4f}")]
        writer.writerow((printable(files[n]), *figures, "yes" if seen[n] else "no", ""))
    for name, reason in unusable.items():
        writer.writerow((printable(name), *[""] * len(columns), "", printable(reason)))


def draw_scores(
    root: Path, files: list[str], scores: dict, seen: np.ndarray, run: trained.TrainedRun, count: int
) -> Image.Image:
    """At most `count` images with the highest and with the lowest scores, each above its reconstruction."""
    ranked, total = np.argsort(-scores["score"], kind="stable"), len(files)
    count, device = max(1, min(count, total // 2)), next(run.model.parameters()).device
    rows, captions = {}, {}
    for which, places in (("highest", range(count)), ("lowest", range(total - 1, total - 1 - count, -1))):
        shown = [ranked[place] for place in places]
        read = read_for(run.model, root, [files[n] for n in shown])
        for n, image in zip(shown, read, strict=True):
            if isinstance(image, str):
                raise UsageError(f"{printable(files[n])} has changed while the folder was scored; score it again")
        images = to_float(np.stack(read), device)
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above], rows[below] = images.cpu(), reconstruct(run.model, images).cpu()
        captions[above] = [printable(files[n]).rpartition("/")[2] for n in shown]
        ranks = [f"#{place + 1}  {scores['score'][ranked[place]]:+.2f}".replace("-", "−") for place in places]
        captions[below] = [rank + (", seen" if seen[n] else "") for rank, n in zip(ranks, shown, strict=True)]
    said = f"{total:,} images by how unusual they are, #1 the most. The score is the larger of two, the error of the\n"
    said += "reconstruction and the distance of the code from training codes, in standard deviations above held-out\n"
    said += "images, in logarithms" + ("; seen: trained on" if seen.any() else "")
    return draw_grid(rows, f"{run.title}\n{said}", captions=captions)


def draw_roc(scores: dict, positives: np.ndarray, name: str, limit: float, title: str) -> Figure:
    """ROC curves of scores, float64 [N] by name, and histograms of "score" of positives, bool [N], and of the others.

    The positives, whose sub-folder has that name, should score higher; 95 % of held-out images score at most `limit`.
    """
    figure = Figure(figsize=(12, 5.2), dpi=maps.DPI, layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    for measure, values in scores.items():
        chance = measure == "distance"  # the last one
        RocCurveDisplay.from_predictions(positives, values, name=measure, ax=curve, plot_chance_level=chance)
    curve.set(xlabel="false positive rate", ylabel="true positive rate")
    values = scores["score"]
    edges = np.histogram_bin_edges(values, bins=20)
    for part, said, colour in ((values[~positives], "others", maps.WITHOUT), (values[positives], name, maps.WITH)):
        label = f"{maps.legend_text(said, LETTERS)} ({len(part):,})"
        histogram.hist(part, edges, weights=np.full(len(part), 1 / len(part)), color=colour, alpha=0.6, label=label)
    histogram.axvline(limit, color="black", linestyle="--", linewidth=1, label="95% of held-out images are below")
    histogram.set(xlabel="score", ylabel="share of the images")
    histogram.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the images to score, at any depth")
    parser.add_argument("--positive", metavar="NAME", help="sub-folder whose images should score higher than others")
    parser.add_argument("--images", type=int, default=8, help="images in a row of scores.png [%(default)s]")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write [latents/scores-… of the run]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, MOST_IMAGES, **{"--images": options.images})
    device = find_device(options.device)
    [run] = trained.open_runs(options.runs, options.checkpoint, device)
    names = image_names(options.folder)
    folders, positive = sorted({sub_folder(name) for name in names} - {""}), options.positive
    if positive is not None:
        expected = f"one of {', '.join(map(printable, folders))}" if folders else "left out: there is no sub-folder"
        require(positive in folders, "--positive", positive, expected)
    dataset = run.open_data()
    output = options.output or run.run.folder / "latents" / f"scores-{options.folder.resolve().name}"
    output.mkdir(parents=True, exist_ok=True)

    train, test = dataset.images["train"], dataset.images["test"]
    codes = trained.encode_all(run.model, train[trained.draw_training(dataset)], None, device, "training codes")
    distance = distance_from(codes)
    codes, errors = (part.numpy() for part in trained.codes_and_errors(run.model, test, device, "held-out codes"))
    usual = {"error": errors, "distance": distance(codes)}
    found = embed_folder(options.folder, names, run.model)
    scores = scores_of({"error": found.errors, "distance": distance(found.codes)}, usual)
    usual = scores_of(usual, usual)
    seen = np.isin(found.keys, keys_of(train))
    with atomic_write(output / "scores.csv") as file:
        write_scores(found.files, scores, usual, seen, found.unusable, file)
    print(f"scores: {output / 'scores.csv'}; {len(seen):,} images, {len(found.unusable):,} that cannot be used")
    limit = float(np.quantile(usual["score"], 0.95))
    said = f"as 5% of the {len(test):,} held-out images of {dataset.title} do"
    print(f"{(scores['score'] > limit).sum():,} score above {limit:.3g}, {said}")
    if seen.any():
        print(f"{seen.sum():,} are exact copies of training images, which lowers their scores")
    picture = draw_scores(options.folder, found.files, scores, seen, run, options.images)
    trained.save_picture(picture, output / "scores.png")
    print(f"highest and lowest: {output / 'scores.png'}")

    (output / "roc.png").unlink(missing_ok=True)  # an earlier one would lie beside these scores
    if positive is not None:
        positives = np.array([sub_folder(name) == positive for name in found.files])
        if positives.all() or not positives.any():
            print("no ROC curve: it needs usable images both in this sub-folder and elsewhere")
            return
        areas = ", ".join(f"{name} {roc_auc_score(positives, values):.4f}" for name, values in scores.items())
        print(f"AUROC of {printable(positive)!r} against all others: {areas}; {output / 'roc.png'}")
        trained.save_picture(draw_roc(scores, positives, printable(positive), limit, run.title), output / "roc.png")
