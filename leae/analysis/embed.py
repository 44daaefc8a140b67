"""Codes of a folder's images, or of a split of the run's data set, in a file that NumPy reads.

    uv run -m leae embed runs/self-teaching-001 path/to/images --output codes.npz
    uv run -m leae embed runs/self-teaching-001 test --output codes.csv

A .npz file, for `numpy.load`, has `codes`, float32 [N, *latent_shape]; `errors`, float64 [N], the mean squared errors
of the reconstructions; of a folder `files`, the N images' paths in it; of a split, if there are any, `attributes`, bool
[N, A], and `attribute_names`, or `classes`, int64 [N], and `class_names`. A .csv file has the same in a row for each
image; a name that begins with =, +, -, @ or an apostrophe stands behind an apostrophe, so that no spreadsheet runs it.
train, valid and test are splits, ./test is a folder.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from leae.analysis.trained import add_run_arguments, output_path, require_file, require_finite, runs_of
from leae.autoencoder import BaseAutoencoder, require_pixels
from leae.data.batches import Images, chunk_size, chunks_of
from leae.data.images import reason, with_channels
from leae.data.prepare import list_unusable
from leae.data.sources import image_names, read_images
from leae.errors import UsageError, require
from leae.files import as_utf8, write_arrays, write_csv
from leae.layers import float64_device
from leae.progress import progress_bar
from leae.training.evaluation import evaluation_mode

SPLITS = ("train", "valid", "test")


def embed_images(model: BaseAutoencoder, images: Images | Tensor, title: str) -> tuple[Tensor, Tensor]:
    """Codes float32 [N, *latent_shape] and the reconstructions' mean squared errors float64 [N], both on the CPU.

    The images are uint8 [N, S, S, C] or a float tensor [N, C, S, S] in [0, 1]. `UsageError` if codes are not finite.
    """
    codes, errors, weights = [], [], next(model.parameters())
    with evaluation_mode(model):
        for _, chunk in chunks_of(images, weights.device, title):
            chunk = chunk.to(weights.dtype)
            code = model.encode(chunk)
            codes.append(code.float().cpu())
            difference = (model.decode(code) - chunk).to(float64_device(chunk.device), torch.float64)
            errors.append(difference.square().mean(dim=(1, 2, 3)).cpu())
    return require_finite(torch.cat(codes), title), torch.cat(errors)


@dataclass(frozen=True)
class Embedding:
    """What a model makes of the N images of a folder that can be used."""

    root: Path  # the folder
    files: list[str]  # the images' paths in it
    codes: np.ndarray  # float32 [N, *latent_shape]
    errors: np.ndarray  # float64 [N], the mean squared errors of the reconstructions
    hashes: list[int]  # see `hashes_of`
    unusable: dict[str, str]  # the other images' paths, and why they could not be used


def read_for(model: BaseAutoencoder, root: Path, names: list[str], upscale: bool) -> list[np.ndarray | str]:
    """Images below a folder as a model takes them: for each uint8 [S, S, C], or the reason why there is none."""
    channels, size, _ = model.image_shape
    images = read_images(root, size, names, upscale)
    whys = (reason(image) if isinstance(image, OSError) else image for image in images)
    return [image if isinstance(image, str) else with_channels(image, channels) for image in whys]


def hashes_of(images: Images) -> list[int]:
    """A hash for each of the images uint8 [N, S, S, C], by which this process finds equal ones."""
    return [hash(images[number].tobytes()) for number in range(len(images))]


def embed_folder(model: BaseAutoencoder, root: Path, names: list[str], upscale: bool = False) -> Embedding:
    """What a model makes of images below a folder. What cannot be used is warned of; `UsageError` if none can."""
    files, hashes, found, unusable = [], [], [], {}
    size = chunk_size(model.image_shape[-1])
    for first in progress_bar(range(0, len(names), size), "embedding"):
        members = names[first : first + size]
        read = dict(zip(members, read_for(model, root, members, upscale), strict=True))
        usable = {name: image for name, image in read.items() if not isinstance(image, str)}
        unusable |= {name: reason for name, reason in read.items() if isinstance(reason, str)}
        if usable:
            images = np.stack([*usable.values()])
            files.extend(usable)
            hashes.extend(hashes_of(images))
            found.append(embed_images(model, images, "encoding"))
    said = f"{root}: {list_unusable([*unusable.items()], len(names))}"
    if not files:
        raise UsageError(said)
    if unusable:
        tqdm.write(f"warning: {said}", file=sys.stderr)
    codes, errors = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return Embedding(root, files, codes, errors, hashes, unusable)


def embed(model: BaseAutoencoder, images: str | Path | Images | Tensor, upscale: bool = False) -> np.ndarray:
    """Codes, float32 [N, *latent_shape], of a folder's images in the order of their paths, or of an array of images.

    An array, or tensor, is uint8 [N, S, S, C] or float [N, C, S, S] in [0, 1], N > 0. There are no gradients. Files
    that cannot be used, as small ones unless `upscale`, are left out, with a warning. A model of your own needs
    `encode` and `decode`, for a folder `image_shape`, (C, S, S). `UsageError` if no image can be used, or for others.
    """
    if isinstance(images, str | Path):
        require(images != "", "images", "", "a folder's path")
        require(hasattr(model, "image_shape"), "the model's image_shape", None, "(C, S, S), to which images are cut")
        return embed_folder(model, Path(images), image_names(Path(images)), upscale).codes
    if isinstance(images, np.ndarray):  # of either byte order
        images = images.astype(images.dtype.newbyteorder("="), copy=False)
    kind, shape = str(getattr(images, "dtype", type(images))), [*getattr(images, "shape", ())]
    usable = ("float" in kind or "uint8" in kind) and len(shape) == 4 and shape[0] > 0
    require(usable, "images", f"{kind} {shape}", "uint8 [N, S, S, C] or float [N, C, S, S], N > 0")
    if "float" in kind:
        images = images.float() if isinstance(images, Tensor) else torch.from_numpy(np.array(images, np.float32))
        require_pixels(images)
    return embed_images(model, images, "encoding")[0].numpy()


def write_table(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The arrays of the .npz file as a .csv file; float32 is written with as many digits as bring it back."""
    codes = arrays["codes"].reshape(len(arrays["codes"]), -1)
    attributes = arrays.get("attributes", np.zeros((len(codes), 0), bool)).astype(int)
    labels = arrays.get("attribute_names", ())
    if "classes" in arrays:
        attributes, labels = arrays["class_names"][arrays["classes"]][:, None], ["class"]
    first, names = ("file", arrays["files"]) if "files" in arrays else ("image", range(len(codes)))
    header = (first, "error", *labels, *(f"code_{n}" for n in range(codes.shape[1])))
    images = zip(names, arrays["errors"], attributes, codes, strict=True)
    write_csv(path, header, ((name, float(e), *has, *(f"{x:.9g}" for x in code)) for name, e, has, code in images))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("images", metavar="FOLDER|SPLIT", help="images, at any depth; or train, valid, test of the run")
    parser.add_argument("--output", type=Path, help="a .npz or .csv file [runs/codes.npz, or -2, …]")


def main(options: argparse.Namespace) -> None:
    require_file(options.output, "--output", ".npz", ".csv")
    [run], _ = runs_of(options)
    if (split := options.images) in SPLITS:
        dataset = run.open_data()
        require(split in dataset.images, "the split", split, f"one of {', '.join(dataset.images)}, or a folder")
        codes, errors = embed_images(run.model, dataset.images[split], f"{split} codes")
        arrays = {"codes": codes.numpy(), "errors": errors.numpy()}
        if dataset.attribute_names:
            names = np.array(dataset.attribute_names)
            arrays |= {"attributes": dataset.attributes[split], "attribute_names": names}
        if dataset.class_names:
            arrays |= {"classes": dataset.classes[split], "class_names": np.array(dataset.class_names)}
    else:
        root = Path(options.images)
        found = embed_folder(run.model, root, image_names(root), run.upscale)
        arrays = {"codes": found.codes, "errors": found.errors, "files": np.array([*map(as_utf8, found.files)])}
    with output_path(options.output, "codes", ".npz") as output:
        if output.suffix.lower() == ".csv":
            write_table(output, arrays)
        else:
            write_arrays(output, **arrays)
    print(f"codes of {len(arrays['codes']):,} images, {list(arrays['codes'].shape[1:])} each: {output}")
