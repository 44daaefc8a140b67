"""Pictures of what a run's codes mean, in latents/ of the run's folder; or scores for images of your own.

    uv run -m leae latents runs/self-teaching-001
    uv run -m leae latents runs/self-teaching-001 --attribute Smiling --images 6 --checkpoint 040
    uv run --extra umap -m leae latents runs/self-teaching-001 --map umap
    uv run -m leae latents runs/self-teaching-001 --score path/to/images

    map-pca.png, map-tsne.png   held-out codes on a plane, coloured by an attribute, images at their places
    interpolations.png          straight lines between the codes of pairs of held-out images, decoded
    attribute-walks.png         steps along attributes' directions from held-out images' codes, decoded
    neighbours.png              held-out images and those others of them whose codes are nearest
    samples.png                 codes drawn from N(0, I), decoded
    extremes.png                the held-out images that are reconstructed best and worst

Directions and components are those of training images' codes; t-SNE and UMAP lay out the held-out codes themselves,
without their attributes.

--score FOLDER draws none of these. It writes scores.csv, every image of the folder with its reconstruction's mean
squared error, and scores.png, the highest and the lowest; and where the folder has nothing but two sub-folders,
"normal" and "defective" say, how well the scores tell them apart: roc.png.
"""

import argparse
import difflib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from leae.analysis.geometry import (
    class_difference,
    deviation_along,
    nearest_others,
    separation,
    straight_lines,
)
from leae.analysis.maps import MANY, MAPS, draw_map, make_map, require_umap
from leae.analysis.score import (
    ImageFolder,
    detect,
    draw_detection,
    draw_scores,
    printable,
    score_images,
    squared_errors,
    write_scores,
)
from leae.analysis.trained import FinishedRun, add_options, batches_of, encode_all, open_data, open_runs
from leae.data.prepare import Dataset, to_float
from leae.errors import UsageError, run_command
from leae.files import whole_file
from leae.randomness import generator
from leae.training.device import find_device
from leae.training.evaluation import BATCH, evaluating, samples
from leae.training.monitoring import gaussianity
from leae.training.pictures import draw_grid
from leae.training.settings import Parser, require, require_whole

LATENTS = "latents"  # the pictures' folder in the run's
TRAINING = 8_192  # training images whose codes say where attributes and components point
MAPPED = 2_000  # held-out images on a map
FEWEST = 4  # held-out images that the pictures need
IMAGES, MOST_IMAGES = 8, 50  # in a picture, or pairs of them, if nobody asks for another number; and at most
BETWEEN = 9  # images on a line, its ends included
WALK = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # differences between the class means
NEIGHBOURS = 8  # of a query
PAIRED = 500  # held-out codes whose distances from each other tell what is usual
SAMPLE_ROWS = 4
RARE = 0.02  # an attribute that fewer training images have, or lack, is chosen only by name


# --- what the pictures are drawn from --------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentSpace:
    """A run's codes.

    Attributes:
        finished: the run.
        dataset: what it was trained on.
        device: where its model is.
        training: float32 [M, D], codes of training images, flat, on the CPU.
        training_labels: bool [M, A], their attributes; None if there are none.
        held_out: float32 [N, D], codes of the held-out images, flat, on the CPU.
        errors: float64 [N], mean squared errors of their reconstructions.
        order: int64 [N], the held-out images' numbers as drawn: the first are shown.
    """

    finished: FinishedRun
    dataset: Dataset
    device: torch.device
    training: Tensor
    training_labels: Tensor | None
    held_out: Tensor
    errors: Tensor
    order: Tensor

    def images(self, numbers: Tensor) -> Tensor:
        """Held-out images by their numbers: float [n, C, S, S] in [0, 1] on the CPU."""
        return to_float(self.dataset.images["test"][numbers.numpy()])

    def decode(self, codes: Tensor) -> Tensor:
        """Images from flat codes: [n, D] → float [n, C, S, S] in [0, 1] on the CPU."""
        model = self.finished.model
        with evaluating(model):
            parts = codes.unflatten(1, model.latent_shape).split(BATCH)
            return torch.cat([model.decode(part.to(self.device)).cpu() for part in parts])

    def title(self, text: str) -> str:
        """A picture's title, the run in its first line."""
        return f"{run_title(self.finished)}\n{text}"


def run_title(finished: FinishedRun) -> str:
    """A run in one line of a picture's title."""
    return f"{finished.name} ({finished.method}), step {finished.step:,}; {finished.size} compression"


def read_codes(finished: FinishedRun, dataset: Dataset, seed: int, device: torch.device) -> LatentSpace:
    """Encode training and held-out images, and reconstruct the latter.

    Args:
        finished: the run.
        dataset: what it was trained on.
        seed: of which training images, where there are more than TRAINING, and of which held-out images are shown.
        device: where its model is.

    Raises:
        UsageError: codes that are no numbers.
    """
    train, test = dataset.images["train"], dataset.images["test"]
    drawn = torch.randperm(len(train), generator=generator(seed, "selection", 1))[:TRAINING].sort().values.numpy()
    training = encode_all(finished.model, train[drawn], None, device, f"{finished.name}: training codes").flatten(1)
    held_out = encode_all(finished.model, test, None, device, f"{finished.name}: held-out codes").flatten(1)
    labels = torch.from_numpy(dataset.attributes["train"][drawn]) if dataset.attribute_names else None
    order = torch.randperm(len(test), generator=generator(seed, "selection"))
    errors = held_out_errors(finished, dataset, device)
    return LatentSpace(finished, dataset, device, training, labels, held_out, errors, order)


def held_out_errors(finished: FinishedRun, dataset: Dataset, device: torch.device) -> Tensor:
    """Mean squared errors of the held-out images' reconstructions: float64 [N] on the CPU."""
    batches = batches_of(dataset.images["test"], device, "reconstructing held-out images")
    return torch.cat([squared_errors(finished.model, batch) for _, batch in batches])


def separations(space: LatentSpace) -> dict[str, float]:
    """How well each attribute that is common enough is separated on training images, the best first."""
    found = {}
    for column, name in enumerate(space.dataset.attribute_names):
        labels = space.training_labels[:, column]
        if RARE <= labels.float().mean() <= 1 - RARE:
            found[name] = separation(space.training, labels)
    known = {name: value for name, value in found.items() if value == value}  # not NaN
    return dict(sorted(known.items(), key=lambda item: -item[1]))


# --- the pictures ----------------------------------------------------------------------------------------------


def colours_of(space: LatentSpace, attribute: str | None, best: dict[str, float]) -> tuple[np.ndarray, list[str], str]:
    """What a map is coloured by.

    Classes, of which every image has one, are coloured all at once where there are few; else one attribute is.

    Args:
        space: whose held-out images.
        attribute: one that was asked for, or None.
        best: from `separations`.

    Returns:
        A label for each held-out image, int64 [N]; the labels' names; and what to say of them.
    """
    names, labels = space.dataset.attribute_names, space.dataset.attributes.get("test")
    if attribute is None and 2 <= len(names) <= MANY and (space.training_labels.sum(dim=1) == 1).all():
        return labels.argmax(axis=1), list(names), "coloured by class"
    if not attribute and not best:
        return np.zeros(len(space.held_out), int), [], "no attribute to colour by"
    name = attribute or next(iter(best))
    reason = "asked for" if attribute else f"best separated on training images, AUROC {best[name]:.3f}"
    return labels[:, names.index(name)].astype(int), [f"not {name}", name], f"coloured by {name} ({reason})"


def draw_codes_map(space: LatentSpace, kind: str, seed: int, colours: tuple[np.ndarray, list[str], str]) -> Figure:
    """A map of held-out codes; `kind` is one of MAPS, `colours` are from `colours_of`."""
    shown = space.order[:MAPPED]
    plane = make_map(kind, space.training, space.held_out[shown], seed)
    labels, names, said = colours
    title = space.title(f"{len(shown):,} held-out codes by {plane.method}\n{said}")
    return draw_map(plane, space.images(shown), labels[shown.numpy()], names, title)


def draw_interpolations(space: LatentSpace, count: int) -> Image.Image:
    """Straight lines between the codes of pairs of held-out images, decoded, the originals at either end."""
    pairs = min(count, len(space.order) // 2)
    starts, ends = space.order[:pairs], space.order[pairs : 2 * pairs]
    lines = straight_lines(space.held_out[starts], space.held_out[ends], BETWEEN)
    rows = {}
    for pair, (first, last) in enumerate(zip(space.images(starts), space.images(ends), strict=True)):
        rows[f"pair {pair + 1}"] = torch.cat([first[None], space.decode(lines[pair]), last[None]])
    columns = ["original", *(f"{share:g}" for share in np.linspace(0, 1, BETWEEN)), "original"]
    said = "straight lines between the codes of two held-out images, decoded; above, the share of the way"
    return draw_grid(rows, space.title(said), columns=columns)


def draw_walks(space: LatentSpace, attributes: list[str], count: int) -> Image.Image:
    """Walks from held-out images' codes along attributes' directions, decoded.

    Args:
        space: the codes; the directions are those of its training codes.
        attributes: whose directions.
        count: how many held-out images walk along each.
    """
    walkers = space.order[:count]
    originals, rows = space.images(walkers), {}
    for name in attributes:
        column = space.dataset.attribute_names.index(name)
        direction = class_difference(space.training, space.training_labels[:, column])
        deviations = direction.norm().item() / deviation_along(space.training, direction)
        for number, walker in enumerate(walkers):
            codes = space.held_out[walker] + torch.tensor(WALK)[:, None] * direction
            has = "with" if space.dataset.attributes["test"][walker, column] else "without"
            label = f"{name}\nimage {number + 1}, {has} it\n1 is {deviations:.1f} σ"
            rows[label] = torch.cat([originals[number][None], space.decode(codes)])
    columns = ["original", *(f"{step:+g}".replace("-", "−") if step else "reconstruction" for step in WALK)]
    said = (
        "held-out images' codes moved along attributes' directions, decoded. Above, how far: 1 is the difference\n"
        "between the mean codes of training images with and without the attribute; beside, what that is in standard\n"
        "deviations σ of training codes along the direction"
    )
    return draw_grid(rows, space.title(said), columns=columns)


def draw_neighbours(space: LatentSpace, count: int) -> Image.Image:
    """Held-out images, and those others of them whose codes are nearest, with their distances."""
    queries = space.order[:count]
    distances, numbers = nearest_others(space.held_out, queries, min(NEIGHBOURS, len(space.order) - 1))
    usual = torch.pdist(space.held_out[space.order[:PAIRED]]).median().item()
    rows, captions = {}, {}
    for row, query in enumerate(queries):
        label = f"query {row + 1}"
        rows[label] = space.images(torch.cat([query[None], numbers[row]]))
        captions[label] = ["", *(f"{distance:#.3g}" for distance in distances[row].tolist())]
    columns = ["query", *(f"neighbour {number + 1}" for number in range(numbers.shape[1]))]
    said = (
        f"nearest neighbours of held-out images among the {len(space.order) - 1:,} other held-out images, by Euclidean "
        f"distance of codes,\nwhich stands below; between two held-out images it is {usual:.3g} in the median"
    )
    return draw_grid(rows, space.title(said), columns=columns, captions=captions)


def draw_samples(space: LatentSpace, count: int, seed: int) -> Image.Image:
    """Images decoded from N(0, I) codes, below reconstructions, with how far the codes are from Gaussian."""
    model = space.finished.model
    found, true, used = gaussianity(space.held_out[space.order].unflatten(1, model.latent_shape), seed)
    shown = space.order[:count]
    rows = {"held-out images,\nreconstructed": space.decode(space.held_out[shown])}
    decoded = samples(model, SAMPLE_ROWS * len(shown), seed, space.device).cpu()
    for row, images in enumerate(decoded.split(len(shown))):
        rows[f"codes {row * len(shown) + 1} to {(row + 1) * len(shown)}\nof N(0, I)"] = images
    drawn = "drawn from N(0, I)" + (", every position by itself" if len(model.latent_shape) > 1 else "")
    said = (
        f"images decoded from codes {drawn}. SIGReg statistic of {used:,} held-out codes {found:.3g},\n"
        f"of as many true N(0, I) codes {true:.3g}: the nearer the two, the more the codes are Gaussian"
    )
    if model.variational:
        said += "\nthe codes are the posteriors' means, which deviate less than what is drawn around them in training"
    return draw_grid(rows, space.title(said))


def draw_extremes(space: LatentSpace, count: int) -> Image.Image:
    """The held-out images with the lowest and with the highest reconstruction error, and their reconstructions."""
    count = min(count, len(space.errors) // 2)
    ascending = space.errors.sort(stable=True).indices
    rows, captions = {}, {}
    for which, numbers in (("lowest", ascending[:count]), ("highest", ascending.flip(0)[:count])):
        label = f"{which} error:\nreconstruction"
        rows[f"{which} error:\noriginal"] = space.images(numbers)
        rows[label] = space.decode(space.held_out[numbers])
        captions[label] = [f"{value:.1f} dB" for value in (-10 * space.errors[numbers].log10()).tolist()]
    median = -10 * space.errors.median().log10().item()
    said = (
        f"lowest and highest error of {len(space.errors):,} held-out images; PSNR below, {median:.1f} dB in the median"
    )
    return draw_grid(rows, space.title(said), captions=captions)


# --- scores ----------------------------------------------------------------------------------------------------


def score_folder(folder: ImageFolder, finished: FinishedRun, dataset: Dataset, options, device: torch.device) -> None:
    """Score a folder's images and write what came of it.

    Args:
        folder: the images.
        finished: the run whose model scores.
        dataset: what it was trained on; its held-out images say which scores are usual.
        options: the command line's.
        device: where the model is.
    """
    output = open_folder(finished)
    normal = held_out_errors(finished, dataset, device).numpy()
    scores = score_images(folder, finished.model, device)
    path = output / "scores.csv"
    with whole_file(path) as file:
        write_scores(scores, normal, file)
    limit = float(np.quantile(normal, 0.95))
    above = int((scores.errors > limit).sum())
    print(f"scores: {path}; {len(scores.names):,} images, {len(scores.unusable):,} that cannot be used")
    print(f"{above:,} score above {limit:.3g}, as 5% of the {len(normal):,} held-out images of {dataset.title} do")
    picture = draw_scores(folder, scores, finished.model, options.images, run_title(finished), device)
    save(picture, output / "scores.png")
    print(f"highest and lowest: {output / 'scores.png'}")
    (output / "roc.png").unlink(missing_ok=True)  # another folder's would lie beside these scores
    if not folder.labels:
        print("no ROC curve: the folder has not two sub-folders that hold all of its images")
        return
    detection = detect(scores, folder.labels, options.positive)
    if detection is None:
        print("no ROC curve: one of the two sub-folders has no image that can be used")
        return
    reason = "as --positive says" if options.positive else "which has the higher mean score; --positive says otherwise"
    positive, negative = printable(detection.positive), printable(detection.negative)
    print(f"AUROC {detection.auroc:.4f} of {positive!r} ({reason}) against {negative!r}: {output / 'roc.png'}")
    save(draw_detection(scores, detection, limit, run_title(finished)), output / "roc.png")


# --- the command -----------------------------------------------------------------------------------------------


def open_folder(finished: FinishedRun) -> Path:
    """The pictures' folder, made if it is not there.

    Raises:
        UsageError: nothing can be written there.
    """
    folder = finished.run.folder / LATENTS
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to ({error.strerror}); make it writable") from error
    return folder


def save(picture: Image.Image | Figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with whole_file(path, "wb") as file:
        if isinstance(picture, Figure):
            picture.savefig(file, format="png")
        else:
            picture.save(file, format="PNG", optimize=True)


def require_attribute(dataset: Dataset, name: str) -> None:
    """Refuse an attribute that the data set has not, or that says nothing.

    Raises:
        UsageError: with the attributes that there are.
    """
    names = dataset.attribute_names
    require(bool(names), "--attribute", name, f"left out, for {dataset.title} has no attributes")
    close = difflib.get_close_matches(name, names, n=1)
    advice = f"; did you mean {close[0]}?" if close else ""
    require(name in names, "--attribute", name, f"one of {', '.join(names)}{advice}")
    having = dataset.attributes["train"][:, names.index(name)]
    require(having.any() and not having.all(), "--attribute", name, "one that some training images have and some lack")


def draw_all(space: LatentSpace, options) -> dict[str, Callable[[], Image.Image | Figure]]:
    """How each picture is drawn, by its file's name.

    Args:
        space: the codes.
        options: the command line's.
    """
    best = separations(space) if space.dataset.attribute_names else {}
    colours = colours_of(space, options.attribute, best)
    count = min(options.images, len(space.order))
    walked = [options.attribute] if options.attribute else list(best)[: max(1, count // 2)]
    drawings = {
        f"map-{kind}.png": partial(draw_codes_map, space, kind, options.seed, colours)
        for kind in ([options.map] if options.map else ["pca", "tsne"])
    }
    drawings["interpolations.png"] = partial(draw_interpolations, space, count)
    if walked:
        walkers = count if options.attribute else min(2, count)
        drawings["attribute-walks.png"] = partial(draw_walks, space, walked, walkers)
    drawings["neighbours.png"] = partial(draw_neighbours, space, count)
    drawings["samples.png"] = partial(draw_samples, space, count, options.seed)
    drawings["extremes.png"] = partial(draw_extremes, space, count)
    return drawings


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "RUN", masks=False)
    parser.add_argument("--attribute", help="colours the maps and is walked along [the best separated]")
    parser.add_argument("--map", choices=MAPS, help="draw this map alone [pca and tsne]")
    parser.add_argument("--images", type=int, default=IMAGES, help="images, or pairs, in a picture [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of which images, t-SNE and samples [%(default)s]")
    parser.add_argument("--score", metavar="FOLDER", help="score the images in it instead")
    parser.add_argument("--positive", metavar="NAME", help="sub-folder to be flagged [the one of higher mean score]")
    options = parser.parse_args()
    require_whole(1, **{"--images": options.images})
    require(options.images <= MOST_IMAGES, "--images", options.images, f"at most {MOST_IMAGES}")
    require_whole(0, **{"--seed": options.seed})
    if options.score is None:
        require(options.positive is None, "--positive", options.positive, "left out without --score")
    else:
        for option in ("attribute", "map"):
            value = getattr(options, option)
            require(value is None, f"--{option}", value, "left out with --score, which draws none of these pictures")
    if options.map == "umap":
        require_umap()
    device = find_device(options.device)
    [finished] = open_runs([options.runs], options.checkpoint, device)
    if options.score is not None:
        folder = ImageFolder(Path(options.score), finished.model.image_shape)
        if options.positive is not None:
            names = " or ".join(map(printable, folder.labels)) or "left out, for the folder has not two sub-folders"
            require(options.positive in folder.labels, "--positive", options.positive, names)
        score_folder(folder, finished, open_data(finished), options, device)
        return
    dataset = open_data(finished)
    if options.attribute is not None:
        require_attribute(dataset, options.attribute)
    count = len(dataset.images["test"])
    if count < FEWEST:
        raise UsageError(f"{dataset.title} has {count} held-out images; these pictures need at least {FEWEST}")
    output = open_folder(finished)

    space = read_codes(finished, dataset, options.seed, device)
    drawings = draw_all(space, options)
    with tqdm(drawings.items(), leave=False, dynamic_ncols=True) as bar:
        for name, draw in bar:
            bar.set_description(f"drawing {name}")
            save(draw(), output / name)
    print(f"pictures: {', '.join(drawings)} in {output}")
    if "attribute-walks.png" not in drawings:
        why = (
            "has no attributes" if not dataset.attribute_names else "has none that enough training images have and lack"
        )
        print(f"no attribute-walks.png, and maps of one colour: {dataset.title} {why}")


if __name__ == "__main__":
    run_command(main)
