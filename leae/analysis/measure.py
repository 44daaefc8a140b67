"""What `evaluate` measures of models: reconstruction, representation, health of the latent."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import recall_score
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from leae.analysis import probes
from leae.analysis.trained import TrainedRun, encode_all
from leae.checkpoints import MODELS
from leae.codes import dead_dimensions, drift, effective_rank, sigreg_statistics
from leae.data.batches import Images, chunks_of, to_float
from leae.data.prepare import Dataset
from leae.errors import UsageError, require
from leae.files import describe, read_arrays, server_timeout, write_arrays
from leae.masking import inside_squares
from leae.training.evaluation import MaskedViews, decibels, mean_image, psnr

CODES = ("train", "test", "train_masked", "test_masked")  # float [N, *latent_shape]
MOST_NUMBERS = 2**28  # of pixels in memory
LARGEST_CODE = 1e9  # that another program's file may have
CODES_FILE = "evaluation-codes.npz"  # in a run's folder, if they are saved
VIEWS = ("clean", "masked")
SCORES = {"auroc": probes.auroc, "balanced_accuracy": probes.balanced_accuracy}
# Probes of classes and of attributes, "few" by few labels; the latter's scores: few votes make no ranking.
METHODS = {
    "linear": (probes.linear_classes, probes.linear_scores, ("auroc", "balanced_accuracy")),
    "few": (probes.linear_classes, probes.linear_scores, ("auroc", "balanced_accuracy")),
    "neighbours": (probes.neighbour_classes, probes.neighbour_scores, ("balanced_accuracy",)),
}


def mean_inside(values: Tensor, inside: Tensor) -> Tensor:
    """The mean of values [N, C, S, S] over each image's square: float [N]."""
    return (values.mean(dim=1, keepdim=True) * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3))


def ssim(images: Tensor, references: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity of each image, and of its square: the means of its map over either. Two of float [N].

    Wang et al. (2004), with their Gaussian window of σ 1.5, by torchmetrics.
    """
    # Its convolutions are several times as fast on a CPU where memory is channels last.
    pair = [part.contiguous(memory_format=torch.channels_last) for part in (images, references)]
    options = {"data_range": 1.0, "reduction": "none", "return_full_image": True}
    whole, similarity = structural_similarity_index_measure(*pair, **options)
    return whole, mean_inside(similarity, inside)


def gradient_energy(images: Tensor, inside: Tensor) -> Tensor:
    """The sum of squared differences between neighbouring pixels of each image, where both are inside: float [N].

    The ratio of a reconstruction's energy to its original's is its sharpness: 1 is as sharp, a blurry average is far
    below, and noise is above.
    """
    down = images.diff(dim=2).square() * (inside[:, :, 1:] & inside[:, :, :-1])
    right = images.diff(dim=3).square() * (inside[..., 1:] & inside[..., :-1])
    return down.sum(dim=(1, 2, 3)) + right.sum(dim=(1, 2, 3))


def reconstruction_figures(
    model, images: Images, views: MaskedViews, weights: np.ndarray, device: torch.device, title: str
) -> dict[str, np.ndarray]:
    """Means over images uint8 [N, S, S, C] of how well a model reconstructs them, from clean and from masked views.

    They are float64 [B], by `weights`, float [B, N], which say how often each image counts: "psnr", "psnr_square" (dB),
    "ssim", "ssim_square" and "sharpness_square", each of them once with "_clean" and once with "_masked" behind it.
    Sharpness is the ratio of the sums over all images, so that flat squares do not count for much; it is NaN where all
    of them are flat or have one pixel.
    """
    by_image = defaultdict(list)
    for first, batch in chunks_of(images, device, title):
        inside = inside_squares(views.corners(len(batch), first).to(device), views.side, images.shape[1])
        by_image["energy"].append(gradient_energy(batch, inside))  # of the original images
        for view, shown in (("clean", batch), ("masked", views(batch, first))):
            reconstruction = model(shown)
            whole, square = ssim(reconstruction, batch, inside)
            figures = {
                "psnr": psnr(reconstruction, batch),
                "psnr_square": decibels(mean_inside((reconstruction - batch).square(), inside)),
                "ssim": whole,
                "ssim_square": square,
                "sharpness_square": gradient_energy(reconstruction, inside),
            }
            for figure, values in figures.items():
                by_image[f"{figure}_{view}"].append(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        totals = {key: weights @ torch.cat(values).cpu().double().numpy() for key, values in by_image.items()}
        energy, count = totals.pop("energy"), weights.sum(axis=1)
        return {key: total / (energy if key.startswith("sharpness") else count) for key, total in totals.items()}


class PerceptualFigures:
    """LPIPS (AlexNet) and FID (Inception) of reconstructions, by torchmetrics; lower is nearer.

    FID depends on the number of images: only figures of as many compare. A `UsageError` if what they need is not
    installed, or the networks' weights cannot be fetched.
    """

    def __init__(self, device: torch.device):
        from torchmetrics.image.fid import FrechetInceptionDistance  # take seconds to import
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            with server_timeout():  # downloads of weights have none
                self.fid = FrechetInceptionDistance(normalize=True).to(device)
                self.lpips = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
        except (ModuleNotFoundError, OSError) as error:
            lacking = f"LPIPS and FID need torch-fidelity and two networks' weights ({' '.join(str(error).split())})"
            raise UsageError(f"{lacking}; go online once, with uv run --extra perceptual -m leae evaluate …") from error

    def __call__(self, model, images, views, device, title) -> dict[str, float]:
        """Takes what `reconstruction_figures` does: "lpips" and "fid", each with "_clean" and "_masked" behind it."""
        figures = {}
        for view in VIEWS:
            for first, batch in chunks_of(images, device, title):
                reconstruction = model(views(batch, first) if view == "masked" else batch).expand(-1, 3, -1, -1)
                original = batch.expand(-1, 3, -1, -1)  # the networks take colours
                self.lpips.update(reconstruction, original)
                self.fid.update(original, real=True)
                self.fid.update(reconstruction, real=False)
            for name, metric in (("lpips", self.lpips), ("fid", self.fid)):
                figures[f"{name}_{view}"] = metric.compute().item()
                metric.reset()
        return figures


def latent_figures(clean: Tensor, masked: Tensor | None) -> dict[str, float]:
    """The health of codes [N, *latent_shape] of clean views, and how far those of masked views, if any, are off."""
    statistic, gaussian, _ = sigreg_statistics(clean)
    return {
        "sigreg_statistic": statistic,
        "sigreg_statistic_gaussian": gaussian,
        "effective_rank": effective_rank(clean),
        "dimensions": clean.shape[1],
        "dead_dimensions": dead_dimensions(clean),
        "drift": math.nan if masked is None else drift(clean, masked),
    }


@dataclass
class Measured:
    """A model, and what is measured of it."""

    name: str
    model: Callable[[Tensor], Tensor] | None  # reconstructs images; has `encode` if it has codes; in evaluation mode
    run: TrainedRun | None = None  # that it is of; None for a baseline
    reconstructs: bool = True  # False where only an encoder is compared, an untrained one say
    codes: dict[str, Tensor] = field(default_factory=dict)  # by name in CODES, if there is no model
    # Figures by name, such as "linear_clean_auroc": float64 [1 + RESAMPLES], or [1] if they are not resampled.
    values: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, dict[str, float]] = field(default_factory=dict)  # a probe's figure of each attribute
    recall: dict[str, dict[str, float]] = field(default_factory=dict)  # a probe's of each class: "linear_clean", say

    def figure(self, name: str) -> np.ndarray:
        """Its values; NaN if it was not measured."""
        return self.values.get(name, np.array([math.nan]))


class Sample:
    """What every model is measured on: images, masks, and classes, or those A of the attributes that can be probed."""

    def __init__(self, dataset: Dataset, views: MaskedViews, train: int, test: int, label_share: float):
        self.train, self.test = dataset.images["train"][:train], dataset.images["test"][:test]  # uint8 [N, S, S, C]
        self.views, self.label_share = views, label_share
        self.about = f"{dataset.identity}, mask ratio {views.mask_ratio:g}"  # of which codes say that they are
        counts = {"train": len(self.train), "test": len(self.test)}
        self.counts = {split: (n, len(dataset.images[split])) for split, n in counts.items()}  # of these and of all
        labels = [dataset.attributes.get(split, np.zeros((n, 0), bool))[:n] for split, n in counts.items()]
        probed = probes.probed_attributes(*labels)
        self.attributes = np.array(dataset.attribute_names)[probed]  # names [A]
        self.train_labels, self.test_labels = (part[:, probed] for part in labels)  # bool [N, A]
        order = np.random.default_rng(0).permutation(len(self.train))
        self.few = order[: max(1, round(label_share * len(order)))]  # indices of training images
        self.probed_by_few = probes.probed_attributes(self.train_labels[self.few])  # bool [A], which have enough
        self.weights = probes.resample_weights(len(self.test))
        self.class_names = np.array(dataset.class_names)
        if dataset.class_names:
            self.train_labels, self.test_labels = (dataset.classes[split][:n] for split, n in counts.items())  # int [N]

    @property
    def options(self) -> dict[str, float]:
        """What figures depend on besides the model and the data set."""
        counts = {"train_images": len(self.train), "held_out": len(self.test)}
        return {"mask_ratio": self.views.mask_ratio, **counts, "label_share": self.label_share}


def pixel_shape(images: Images) -> tuple[int, int]:
    """How many of images uint8 [N, S, S, C] `PixelPCA` takes, MOST_NUMBERS together, and how many numbers each has."""
    numbers = images.shape[1] ** 2 * images.shape[3]
    return min(len(images), max(1, MOST_NUMBERS // numbers)), numbers


class PixelPCA:
    """The best linear autoencoder by squared error: principal components of images uint8 [N, S, S, C].

    There are at most as many as either number of their `pixel_shape`.
    """

    def __init__(self, images: np.ndarray, components: int):
        pixels = to_float(np.asarray(images[: pixel_shape(images)[0]])).flatten(1).numpy()
        self.pca = PCA(components, svd_solver="randomized", random_state=0).fit(pixels)

    def encode(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] in [0, 1] → [N, D] on the CPU"""
        return torch.from_numpy(self.pca.transform(images.flatten(1).cpu().numpy()))

    def __call__(self, images: Tensor) -> Tensor:
        """Reconstructions: float [N, C, S, S] in [0, 1] → the same."""
        pixels = torch.from_numpy(self.pca.inverse_transform(self.encode(images).numpy()))
        return pixels.to(images.device).view(images.shape).clamp(0, 1)


def with_baselines(runs: list[TrainedRun], train: np.ndarray, device: torch.device) -> list[Measured]:
    """The runs; for each latent size an untrained encoder and a PCA of images uint8 [N, S, S, C]; and chance."""
    baselines = {}
    for run in runs:
        name = f"untrained {run.model.latent_size}"
        if name not in baselines:
            kind = MODELS[type(run.model).__name__.removeprefix("Variational")]  # whose latent has no second half
            torch.manual_seed(0)
            untrained = kind(**run.model.settings).eval().to(device)
            baselines[name] = Measured(name, untrained, reconstructs=False)
        components = min(run.model.latent_size, probes.PROBE_DIMS, *pixel_shape(train))
        if (name := f"PCA {components}") not in baselines:
            baselines[name] = Measured(name, PixelPCA(train, components))
    mean = mean_image(train).to(device)
    chance = Measured("chance", lambda images: mean.expand_as(images))
    return [*(Measured(run.name, run.model, run) for run in runs), *baselines.values(), chance]


def probe(one: Measured, view: str, train: np.ndarray, test: np.ndarray, sample: Sample) -> None:
    """Fill in what a model's codes of one view, float [N, D] and [M, D], tell of the sample's classes or attributes."""
    codes = dict.fromkeys(METHODS, probes.reduced(train, test)) | {"neighbours": (train, test)}
    if len(sample.class_names):
        there = np.unique(sample.test_labels)
        for method, (classes_by, *_) in METHODS.items():
            images = sample.few if method == "few" else slice(None)
            train, test = codes[method]
            guesses = classes_by(train[images], sample.train_labels[images], test)
            one.values[f"{method}_{view}_top1"] = probes.accuracy(guesses, sample.test_labels, sample.weights)
            shares = recall_score(sample.test_labels, guesses, labels=there, average=None, zero_division=0)
            one.recall[f"{method}_{view}"] = dict(zip(sample.class_names[there].tolist(), shares.tolist(), strict=True))
        return
    for method, (_, scores_by, scores) in METHODS.items():
        attributes, images = np.ones(len(sample.attributes), bool), slice(None)
        if method == "few":
            attributes, images = sample.probed_by_few, sample.few
        if attributes.any():
            train, test = codes[method]
            scored = scores_by(train[images], sample.train_labels[images][:, attributes], test)
            for score in scores:
                values = SCORES[score](scored, sample.test_labels[:, attributes], sample.weights)
                name, names = f"{method}_{view}_{score}", sample.attributes[attributes].tolist()
                one.values[name] = np.nanmean(values, axis=1)  # without the attributes that lack a class in a resample
                one.attributes[name] = dict(zip(names, values[0].tolist(), strict=True))


def read_codes(text: str, sample: Sample, taken: list[str]) -> Measured:
    """By "NAME=FILE" a .npz file of CODES, masked ones or not, [N, D] or [N, D, H, W] of all images or the sample's."""
    name, _, path = text.partition("=")
    fits = re.fullmatch(r"[\w.+-]+", name) and path and name not in taken
    require(fits, "--codes", text, f"NAME=FILE.npz, NAME without spaces and none of {', '.join(taken)}")
    arrays, codes = read_arrays(Path(path), *CODES, "about"), {}
    about = arrays.get("about", np.array(sample.about))  # other programs do not say
    same = about.size == 1 and about.item() == sample.about
    require(same, "--codes", text, "of this data set and this mask ratio")
    for key in CODES if {*CODES[2:]} & {*arrays} else CODES[:2]:
        array, (count, whole) = arrays.get(key, np.empty(0)), sample.counts[key.partition("_")[0]]
        fits = array.dtype.kind == "f" and array.ndim in (2, 4) and array.size and len(array) in (count, whole)
        fits = fits and array.shape[1:] == arrays["train"].shape[1:] and float(np.abs(array).max()) <= LARGEST_CODE
        counts = " or ".join(map(str, sorted({count, whole})))
        expected = f"float [{counts}, D], D as of `train`, from -1e9 to 1e9"
        require(fits, f"`{key}` of {path}", describe(array), expected)
        codes[key] = torch.from_numpy(array[:count].astype(np.float32))
    return Measured(name, None, reconstructs=False, codes=codes)


def measure(
    one: Measured,
    sample: Sample,
    device: torch.device,
    perceptual: PerceptualFigures | None = None,
    save_codes: bool = False,
) -> None:
    """Fill in a model's figures; LPIPS and FID where they are wanted. A run's codes may be kept in its CODES_FILE."""
    name, model, views = one.name, one.model, sample.views
    if one.reconstructs:
        with torch.no_grad():
            title = f"{name}: reconstruction"
            one.values |= reconstruction_figures(model, sample.test, views, sample.weights, device, title)
            if perceptual:
                figures = perceptual(model, sample.test, views, device, f"{name}: LPIPS and FID")
                one.values |= {figure: np.array([value]) for figure, value in figures.items()}
    if not (one.codes or hasattr(model, "encode")):
        chance = np.bincount(sample.test_labels).max() / len(sample.test) if len(sample.class_names) else 0.5
        for method, (*_, scores) in METHODS.items():
            names = product([method], VIEWS, ["top1"] if len(sample.class_names) else scores)
            one.values |= {"_".join(name): np.array([chance]) for name in names}
        return
    codes = one.codes or {
        f"{split}{suffix}": encode_all(model, images, of, device, f"{name}: {split} codes")
        for suffix, of in (("", None), ("_masked", views))
        for split, images in (("train", sample.train), ("test", sample.test))
    }
    if save_codes and one.run:
        write_arrays(one.run.folder / CODES_FILE, about=np.array(sample.about), **codes)
    if one.run or one.codes:
        figures = latent_figures(codes["test"], codes.get("test_masked"))
        one.values |= {figure: np.array([value], float) for figure, value in figures.items()}
    flat = [part.flatten(1).numpy() for part in codes.values() if len(sample.attributes) + len(sample.class_names)]
    for view, train, test in zip(VIEWS, flat[::2], flat[1::2], strict=False):  # perhaps of clean views alone
        probe(one, view, train, test, sample)
