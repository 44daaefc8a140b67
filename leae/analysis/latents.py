"""Pictures of what a run's codes mean, in latents/ of the run's folder.

    uv run -m leae latents runs/self-teaching-001
    uv run -m leae latents runs/self-teaching-001 --attribute Smiling --images 6 --checkpoint 040
    uv run --extra umap -m leae latents runs/self-teaching-001 --map umap

    map-pca.png, map-tsne.png   held-out codes on a plane, coloured by an attribute, images at their places
    interpolations.png          linear interpolations between the codes of pairs of held-out images
    attribute-walks.png         steps along attributes' directions from held-out images' codes, decoded
    neighbours.png              held-out images and their nearest neighbours by code
    samples.png                 codes drawn from N(0, I), and from a Gaussian like the training codes', decoded
    extremes.png                the held-out images that are reconstructed best and worst

Directions and components are those of training images' codes; t-SNE and UMAP lay out the held-out codes themselves,
without their attributes.
"""

import argparse
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leae.analysis.embed import embed_images
from leae.analysis.maps import MAPS, MOST_CLASSES, draw_map, make_map
from leae.analysis.trained import TrainedRun, add_run_arguments, encode_all, require_extra, require_own, runs_of
from leae.codes import sigreg_statistics
from leae.data.batches import to_float
from leae.data.prepare import Dataset
from leae.errors import require, require_whole
from leae.progress import progress_bar
from leae.randomness import generator
from leae.training.evaluation import decibels, evaluation_mode, sample_images
from leae.training.pictures import draw_grid, save_picture

TRAINING_CODES = 8_192  # that stand for the codes of all training images
MAPPED = 2_000  # held-out images on a map
FEWEST_IMAGES = 4  # held-out images that the pictures need
MOST_IMAGES = 50  # in a picture, or pairs of them
BETWEEN = 9  # images on a line, its ends included
WALKS = """held-out images' codes moved along attributes' directions, decoded. Above, how far: 1 is the difference
between the mean codes of training images with and without the attribute, or of a class and of all others"""
WALK = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # differences between the class means
WALKED = 4  # attributes, the best separated
NEIGHBOURS_SHOWN = 8  # of a query
ROWS_OF_EACH = 2  # of either distribution
RARE = 0.02  # an attribute that fewer training images have, or lack, is chosen only by name


class LatentSpace:
    """A run's codes, flat and on the CPU; the seed draws the training images and the order of the held-out ones.

    Codes of either, [M, D] and [N, D], and `errors`, float64 [N], are computed when they are asked for.
    """

    def __init__(self, run: TrainedRun, dataset: Dataset, seed: int, device: torch.device):
        self.run, self.dataset, self.device = run, dataset, device
        drawn = torch.randperm(len(dataset.images["train"]), generator=generator(seed, "selection", 1))
        self.drawn = drawn[:TRAINING_CODES].sort().values.numpy()
        shuffle = generator(seed, "selection")
        self.order = torch.randperm(len(dataset.images["test"]), generator=shuffle)  # the first of these are shown

    def has_label(self, name: str) -> Tensor:
        """Which of the training images have an attribute, or are of a class: bool [M]."""
        return torch.from_numpy(self.dataset.has_label(name, "train")[self.drawn])

    @cached_property
    def training(self) -> Tensor:
        images = self.dataset.images["train"].take(self.drawn, axis=0)
        return encode_all(self.run.model, images, None, self.device, "training codes").flatten(1)

    @cached_property
    def _embedded(self) -> tuple[Tensor, Tensor]:
        return embed_images(self.run.model, self.dataset.images["test"], "held-out codes")

    @cached_property
    def held_out(self) -> Tensor:
        return self._embedded[0].flatten(1)

    @cached_property
    def errors(self) -> Tensor:
        return self._embedded[1]

    def images(self, indices: Tensor) -> Tensor:
        """Held-out images: float [n, C, S, S] in [0, 1] on the CPU."""
        return to_float(self.dataset.images["test"][indices.numpy()])

    def decode(self, codes: Tensor) -> Tensor:
        """Images from flat codes: [n, D] → float [n, C, S, S] in [0, 1] on the CPU."""
        model = self.run.model
        with evaluation_mode(model):
            return model.decode(codes.unflatten(1, model.latent_shape).to(self.device)).cpu()

    def grid(self, rows: dict[str, Tensor], said: str, **options) -> Image.Image:
        """A picture of rows under the run's title and what is said of them."""
        return draw_grid(rows, f"{self.run.title}\n{said}", **options)


def class_difference(codes: Tensor, labels: Tensor) -> Tensor:
    """An attribute's direction, the mean code with it less the mean code without it: [N, D] and bool [N] → [D]."""
    return codes[labels].mean(dim=0) - codes[~labels].mean(dim=0)


def separation(codes: Tensor, labels: Tensor) -> float:
    """How well an attribute's direction separates codes [N, D] with it from those without it (labels bool [N]).

    This is the AUROC of every second code along the direction of the others, chance being 0.5; NaN where either half
    lacks one of the classes.
    """
    fitted, judged = labels[::2], labels[1::2]
    if not all(half.any() and not half.all() for half in (fitted, judged)):
        return float("nan")
    return float(roc_auc_score(judged.numpy(), (codes[1::2] @ class_difference(codes[::2], fitted)).numpy()))


def separations(space: LatentSpace) -> dict[str, float]:
    """How well each attribute, or class, that is common enough is separated on training images, the best first."""
    areas = {}
    for name in space.dataset.label_names:
        labels = space.has_label(name)
        if RARE <= labels.float().mean() <= 1 - RARE and not np.isnan(area := separation(space.training, labels)):
            areas[name] = area
    return dict(sorted(areas.items(), key=lambda item: -item[1]))


def colours_of(space: LatentSpace, asked: str | None, attributes: list[str]) -> tuple[np.ndarray, list[str]]:
    """A label for each held-out image, int64 [N], by which it is coloured, and the labels' names.

    The labels are classes, unless one was asked for or they are too many; else the first of the attributes, if any.
    """
    dataset = space.dataset
    if dataset.class_names and len(dataset.class_names) <= MOST_CLASSES and not asked:
        return dataset.classes["test"], list(dataset.class_names)
    if not attributes:
        return np.zeros(len(space.held_out), int), ["held-out images"]
    name = attributes[0]
    return dataset.has_label(name, "test").astype(int), [f"not {name}", name]


def draw_codes_map(space: LatentSpace, kind: str, seed: int, labels: np.ndarray, names: list[str]) -> Figure:
    """A map of held-out codes; `kind` is one of MAPS, labels and their names are from `colours_of`."""
    shown = space.order[:MAPPED]
    points, method = make_map(kind, space.training, space.held_out[shown], seed)
    title = f"{space.run.title}\n{len(shown):,} held-out codes by {method}"
    return draw_map(points, space.images(shown), labels[shown.numpy()], names, title)


def draw_interpolations(space: LatentSpace, count: int) -> Image.Image:
    """Straight lines between the codes of pairs of held-out images, decoded, the originals at either end."""
    pairs = min(count, len(space.order) // 2)
    starts, ends = space.order[:pairs], space.order[pairs : 2 * pairs]
    shares, rows = torch.linspace(0, 1, BETWEEN), {}
    for pair, (start, end) in enumerate(zip(starts, ends, strict=True)):
        line = torch.lerp(space.held_out[start], space.held_out[end], shares[:, None])
        originals = space.images(torch.stack([start, end]))
        rows[f"pair {pair + 1}"] = torch.cat([originals[:1], space.decode(line), originals[1:]])
    columns = ["original", *(f"{share:g}" for share in shares.tolist()), "original"]
    said = "straight lines between the codes of two held-out images, decoded; above, the share of the way"
    return space.grid(rows, said, columns=columns)


def draw_walks(space: LatentSpace, attributes: list[str], count: int) -> Image.Image:
    """Walks from the codes of `count` held-out images along each attribute's direction on training codes, decoded."""
    walkers = space.order[:count]
    originals, rows = space.images(walkers), {}
    for name in attributes:
        direction = class_difference(space.training, space.has_label(name))
        for number, walker in enumerate(walkers):
            codes = space.held_out[walker] + torch.tensor(WALK)[:, None] * direction
            label = f"{name}\nimage {number + 1}"
            rows[label] = torch.cat([originals[number][None], space.decode(codes)])
    columns = ["original", *(f"{step:+g}" for step in WALK)]
    return space.grid(rows, WALKS, columns=columns)


def draw_neighbours(space: LatentSpace, count: int) -> Image.Image:
    """Held-out images, and those others of them whose codes are nearest, with their distances."""
    queries, others = space.order[:count], len(space.order) - 1
    # By differences: products would lose what is small beside the codes' own length.
    distances = torch.cdist(space.held_out[queries], space.held_out, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(queries)), queries] = torch.inf
    distances, indices = distances.topk(min(NEIGHBOURS_SHOWN, others), largest=False)
    rows, captions = {}, {}
    for row, query in enumerate(queries):
        label = f"query {row + 1}"
        rows[label] = space.images(torch.cat([query[None], indices[row]]))
        captions[label] = ["", *(f"{distance:#.3g}" for distance in distances[row].tolist())]
    columns = ["query", *(f"neighbour {number + 1}" for number in range(indices.shape[1]))]
    said = f"nearest neighbours of held-out images among the {others:,} other held-out images, by the distance of codes"
    return space.grid(rows, said, columns=columns, captions=captions)


def draw_fitted(training: Tensor, count: int, seed: int) -> Tensor:
    """Codes of the Gaussian with the mean and the covariance of training codes [M, D]: float [count, D].

    Random sums of the M centred codes have exactly that covariance, and no matrix [D, D] is needed.
    """
    mean = training.mean(dim=0)
    weights = torch.randn(count, len(training), generator=generator(seed, "samples", 1))
    return mean + weights @ (training - mean) / max(len(training) - 1, 1) ** 0.5


def draw_samples(space: LatentSpace, count: int, seed: int) -> Image.Image:
    """Images decoded from N(0, I) codes, and from codes of a Gaussian fitted to training codes, below reconstructions.

    The title says how far the codes are from N(0, I).
    """
    model = space.run.model
    codes = space.held_out[space.order].unflatten(1, model.latent_shape)
    found, true, used = sigreg_statistics(codes, seed)
    rows = {"held-out images,\nreconstructed": space.decode(space.held_out[space.order[:count]])}
    standard = sample_images(model, ROWS_OF_EACH * count, seed, space.device).cpu()
    fitted = space.decode(draw_fitted(space.training, ROWS_OF_EACH * count, seed))
    for name, decoded in (("N(0, I)", standard), ("the fitted Gaussian", fitted)):
        for row, images in enumerate(decoded.split(count)):
            rows[f"codes {row * count + 1} to {(row + 1) * count}\nof {name}"] = images
    said = "images decoded from codes of N(0, I), and of a Gaussian with the mean and covariance of training codes\n"
    said += f"SIGReg statistic (the lower, the more Gaussian): {found:.3g} of {used:,} held-out codes, "
    said += f"{true:.3g} of as many N(0, I) codes"
    return space.grid(rows, said)


def draw_extremes(space: LatentSpace, count: int) -> Image.Image:
    """The held-out images with the lowest and with the highest reconstruction error, and their reconstructions."""
    count = min(count, len(space.errors) // 2)
    ascending = space.errors.sort(stable=True).indices
    rows, captions = {}, {}
    for which, indices in (("lowest", ascending[:count]), ("highest", ascending.flip(0)[:count])):
        label = f"{which} error:\nreconstruction"
        rows[f"{which} error:\noriginal"] = space.images(indices)
        rows[label] = space.decode(space.held_out[indices])
        captions[label] = [f"{value:.1f} dB" for value in decibels(space.errors[indices]).tolist()]
    said = f"lowest and highest error of {len(space.errors):,} held-out images; below, PSNR"
    return space.grid(rows, said, captions=captions)


def pictures(space: LatentSpace, options: argparse.Namespace) -> Iterator[tuple[str, Image.Image | Figure]]:
    """The pictures by their files' names, each drawn when it is asked for."""
    attributes = [options.attribute] if options.attribute else list(separations(space))[:WALKED]
    labels, names = colours_of(space, options.attribute, attributes)
    count = min(options.images, len(space.order))
    for kind in [options.map] if options.map else ["pca", "tsne"]:
        yield f"map-{kind}.png", draw_codes_map(space, kind, options.seed, labels, names)
    yield "interpolations.png", draw_interpolations(space, count)
    if attributes:
        yield "attribute-walks.png", draw_walks(space, attributes, max(1, count // len(attributes)))
    yield "neighbours.png", draw_neighbours(space, count)
    yield "samples.png", draw_samples(space, count, options.seed)
    yield "extremes.png", draw_extremes(space, count)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("--attribute", help="or class, for the maps' colours and the walks [the best separated]")
    parser.add_argument("--map", choices=MAPS, help="draw only this map [pca and tsne]")
    parser.add_argument("--images", type=int, default=8, help="images, or pairs, in a picture [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="for the images, t-SNE and samples [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, MOST_IMAGES, **{"--images": options.images})
    require_whole(0, **{"--seed": options.seed})
    if options.map == "umap":
        require_extra("--map umap", "umap", "umap")
    [run], device = runs_of(options)
    dataset = run.open_data()
    if (name := options.attribute) is not None:
        names = dataset.label_names
        known = f"an attribute or a class of {dataset.title}; these are: {', '.join(names) or 'none'}"
        require(name in names, "--attribute", name, known)
    require_whole(FEWEST_IMAGES, **{"the number of held-out images": len(dataset.images["test"])})
    space = LatentSpace(run, dataset, options.seed, device)
    if name is not None:
        share, of = space.has_label(name).float().mean(), f"the {len(space.drawn):,} training images that are looked at"
        require(0 < share < 1, "--attribute", name, f"one that some of {of} have and some lack")
    folder = run.folder / "latents"
    folder.mkdir(exist_ok=True)
    for name, picture in progress_bar(pictures(space, options), "drawing"):
        require_own(folder / name)
        save_picture(picture, folder / name)
    print(f"pictures: {folder}")
