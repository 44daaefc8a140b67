"""Anomaly scores for a folder of images: how unlike a run's training data they are.

    uv run -m leae score runs/self-teaching-001 path/to/images
    uv run -m leae score runs/self-teaching-001 path/to/images --positive defective

Writes into latents/scores-images/ of the run's folder, images being the folder's name, or scores-images-2: scores.csv,
every image with its reconstruction's error and its code's distance from the training codes; scores.png, the highest and
the lowest; and with --positive roc.png: how well the scores tell the images of that sub-folder from all others.
"""

import argparse
import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from torch import Tensor

from leae.analysis import maps
from leae.analysis.embed import Embedding, embed_folder, hashes_of, read_for
from leae.analysis.latents import FEWEST_IMAGES, MOST_IMAGES, TRAINING_CODES, LatentSpace
from leae.analysis.probes import PROBE_DIMS
from leae.analysis.trained import add_run_arguments, free_path, require_own, runs_of
from leae.checkpoints import read_checkpoint, write_checkpoint
from leae.data.batches import to_float
from leae.data.sources import image_names
from leae.errors import UsageError, require, require_whole
from leae.files import as_utf8, digest, short_name, write_csv
from leae.training.pictures import cut, save_picture

LETTERS = 15  # of a file's name below its image
USUAL = "latents/usual.safetensors"  # in a run's folder: what its images are like
FLOOR = 1e-30  # of what a logarithm is taken of
LEAST_DEVIATION = 1e-3  # of held-out images' logarithms


def axes_of(training: Tensor) -> Tensor:
    """The principal axes of training codes [M, D] along which these vary, each over their deviation: [D, d], d ≤ 256.

    By them the Mahalanobis distance is Euclidean. Without, nearest neighbours would hardly see the weak directions, in
    which unusual images leave the usual ones, as the spectrum falls steeply.
    """
    pca = maps.fit_pca(training, PROBE_DIMS)
    variances = torch.from_numpy(pca.explained_variance_)
    vary = variances > variances.max() * len(variances) * torch.finfo(torch.float32).eps
    return (torch.from_numpy(pca.components_)[vary] / variances[vary, None].sqrt()).T


def distances(codes: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """The Mahalanobis distances of codes, float [N, D], from training codes, along their `axes_of`: float64 [N]."""
    return ((codes - mean) @ axes).double().norm(dim=1)


def usual(space: LatentSpace) -> dict[str, Tensor]:
    """What scores are measured by: training codes' "mean" and "axes", held-out images' "error" and "distance" [N].

    They are kept with the run, in a file that names what it was made from: another model or data set makes it anew.
    """
    run, path = space.run, space.run.folder / USUAL
    weights = (hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest() for tensor in run.model.state_dict().values())
    made_from = digest(PROBE_DIMS, TRAINING_CODES, run.data["identity"], run.model.settings, *weights)
    with suppress(OSError, UsageError, LookupError):
        header, found = read_checkpoint(path)
        size, of_each = run.model.latent_size, (torch.float64, len(space.order))
        fits = {"mean": (torch.float32, size), "axes": (torch.float32, size, found["axes"].shape[1])}
        fits |= {"error": of_each, "distance": of_each}
        stored = {name: (tensor.dtype, *tensor.shape) for name, tensor in found.items()}
        if header["made_from"] == made_from and stored == fits:
            return found
    mean, axes = space.training.mean(dim=0), axes_of(space.training)
    found = {"mean": mean, "axes": axes, "error": space.errors, "distance": distances(space.held_out, mean, axes)}
    with suppress(OSError):  # what is read-only is measured each time
        path.parent.mkdir(exist_ok=True)
        write_checkpoint(path, run.model, run.step, found, made_from=made_from)
    return found


def scores_of(measures: dict[str, np.ndarray], held_out: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors and distances of N images, float64 [N] by name, and their "score", beside those of held-out images [M].

    Each measure's logarithm becomes the number of standard deviations above the mean of held-out images. The score is
    the largest: an image is unusual if one of them says so.
    """
    raised = []
    for name, values in measures.items():
        logs, usual = np.log(values.clip(min=FLOOR)), np.log(held_out[name].clip(min=FLOOR))
        raised.append((logs - usual.mean()) / max(usual.std(), LEAST_DEVIATION))
    return {"score": np.max(raised, axis=0), **measures}


def write_scores(path: Path, found: Embedding, scores: dict, held_out: dict, seen: np.ndarray) -> None:
    """A .csv file of images, the highest score first, then of unusable files; `seen`, bool [N], are those trained on.

    Behind each measure of `scores`, float64 [N] by name, is the share of held-out images, float64 [M], that are below.
    """
    columns = {"file": found.files}
    for name, values in scores.items():
        columns[name] = [f"{value:.6g}" for value in values]
        columns[f"{name}_above_held_out"] = [f"{(held_out[name] < value).mean():.4f}" for value in values]
    columns["trained_on"] = ["yes" if it else "no" for it in seen]
    images = list(zip(*columns.values(), strict=True))
    rows = [(*images[n], "") for n in np.argsort(-scores["score"], kind="stable")]
    rows += [(name, *[""] * (len(columns) - 1), why) for name, why in found.unusable.items()]
    write_csv(path, (*columns, "reason"), rows)


def draw_scores(space: LatentSpace, found: Embedding, scores: np.ndarray, count: int) -> Image.Image:
    """At most `count` images with the highest and with the lowest scores, float64 [N], above their reconstructions."""
    ranked = np.argsort(-scores, kind="stable")
    count = max(1, min(count, len(ranked) // 2))
    rows, captions = {}, {}
    for which, shown in (("highest", ranked[:count]), ("lowest", ranked[: -count - 1 : -1])):
        names = [found.files[n] for n in shown]
        images = read_for(space.run.model, found.root, names, space.run.upscale)
        if any(isinstance(image, str) for image in images):
            raise UsageError(f"{found.root} has changed while it was scored; score it again")
        above, below = f"{which} scores:\nimage", f"{which} scores:\nreconstruction"
        rows[above] = to_float(np.stack(images))
        rows[below] = space.decode(torch.from_numpy(found.codes[shown]).flatten(1))
        captions[above] = [cut(as_utf8(name).rpartition("/")[2], LETTERS) for name in names]
        captions[below] = [f"{score:+.2f}" for score in scores[shown]]
    said = f"{len(ranked):,} images by how unusual they are, in standard deviations above held-out images"
    return space.grid(rows, said, captions=captions)


def draw_roc(scores: dict, positives: np.ndarray, name: str, limit: float, title: str) -> Figure:
    """ROC curves of scores, float64 [N] by name, and histograms of "score" of positives, bool [N], and of the others.

    The positives, whose sub-folder has that name, should score higher; 95 % of held-out images score at most `limit`.
    """
    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    figure.suptitle(title)
    curve, histogram = figure.subplots(1, 2)
    for width, (measure, values) in zip((6, 3.5, 1.5), scores.items(), strict=True):  # of equal curves, all are seen
        RocCurveDisplay.from_predictions(positives, values, name=measure, ax=curve)
        curve.lines[-1].set_linewidth(width)
    curve.set(xlabel="false positive rate", ylabel="true positive rate")
    parts = [scores["score"][part].round(6) for part in (~positives, positives)]  # equal ones differ by roundings
    labels = [maps.legend_text(said, len(part)) for said, part in zip(("others", name), parts, strict=True)]
    histogram.hist(parts, bins=20, density=True, color=[maps.WITHOUT, maps.WITH], label=labels)
    histogram.axvline(limit, color="black", linestyle="--", label="95% of held-out images are below")
    histogram.set(xlabel="score", ylabel="density", ymargin=0.3)
    histogram.legend()
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the images to score, at any depth")
    parser.add_argument("--positive", metavar="NAME", help="sub-folder whose images should score higher than others")
    parser.add_argument("--images", type=int, default=8, help="images in a row of scores.png [%(default)s]")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write [latents/scores-… of the run]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, MOST_IMAGES, **{"--images": options.images})
    [run], device = runs_of(options)
    names = image_names(options.folder)
    inside = f"{options.positive}".rstrip("/") + "/"
    if options.positive is not None:
        there = {name.startswith(inside) for name in names} == {True, False}
        expected = f"a sub-folder of {options.folder} with images in it, and others outside"
        require(there, "--positive", options.positive, expected)
    dataset = run.open_data()
    require_whole(FEWEST_IMAGES, **{"the number of held-out images": len(dataset.images["test"])})
    output = options.output or free_path(run.folder / "latents", f"scores-{short_name(options.folder.resolve())}", "")
    written = [*(output / name for name in ("scores.csv", "scores.png", "roc.png")), run.folder / USUAL]
    require_own(*written)
    output.mkdir(parents=True, exist_ok=options.output is not None)

    space = LatentSpace(run, dataset, 0, device)
    of = usual(space)
    measures = {name: of[name].numpy() for name in ("error", "distance")}
    held_out = scores_of(measures, measures)
    found = embed_folder(run.model, options.folder, names, run.upscale)
    distance = distances(torch.from_numpy(found.codes).flatten(1), of["mean"], of["axes"]).numpy()
    scores = scores_of({"error": found.errors, "distance": distance}, held_out)
    seen = np.isin(found.hashes, hashes_of(dataset.images["train"]))
    require_own(*written)  # still
    write_scores(output / "scores.csv", found, scores, held_out, seen)
    print(f"scores: {output}; {len(seen):,} images, {len(found.unusable):,} that cannot be used")
    limit = float(np.quantile(held_out["score"], 0.95))
    print(f"{(scores['score'] > limit).sum():,} score above {limit:.3g}, as 5% of held-out images do")
    print(f"{seen.sum():,} are exact copies of training images")
    save_picture(draw_scores(space, found, scores["score"], options.images), output / "scores.png")
    (output / "roc.png").unlink(missing_ok=True)  # an earlier one would lie beside these scores
    if options.positive is not None:
        positives, name = np.array([name.startswith(inside) for name in found.files]), as_utf8(options.positive)
        if positives.all() or not positives.any():
            print("no ROC curve: it needs usable images both in this sub-folder and elsewhere")
            return
        areas = ", ".join(f"{key} {roc_auc_score(positives, values):.4f}" for key, values in scores.items())
        print(f"AUROC of {name!r} against all others: {areas}")
        save_picture(draw_roc(scores, positives, name, limit, run.title), output / "roc.png")
