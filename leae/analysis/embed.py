"""Codes of a folder's images, or of a split of the run's data set, in a file that NumPy reads.

    uv run -m leae embed runs/self-teaching-001 path/to/images --output codes.npz
    uv run -m leae embed runs/self-teaching-001 test --output codes.csv

A .npz file, for `numpy.load`, has `codes`, float32 [N, *latent_shape]; `errors`, float64 [N], the mean squared errors
of the reconstructions; of a folder `files`, the N images' paths in it; of a split `attributes`, bool [N, A], and
`attribute_names`, if there are any. A .csv file has the same in a row for each image. train, valid and test are splits,
./test is a folder.
"""

import argparse
import csv
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from leae.analysis import trained
from leae.analysis.trained import add_run_arguments
from leae.autoencoder import BaseAutoencoder
from leae.data import celeba
from leae.data.batches import CHUNK, Images
from leae.data.sources import CELEBA_CROP, folder_source, read_images
from leae.errors import UsageError, require
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.run import RUNS
from leae.training.settings import Parser

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Embedding:
    """What a model makes of a folder's N images."""

    files: list[str]  # the images' paths in the folder
    codes: np.ndarray  # float32 [N, *latent_shape]
    errors: np.ndarray  # float64 [N], the mean squared errors of the reconstructions
    keys: list[int]  # hashes of the images as the model takes them
    unusable: dict[str, str]  # other files, and why they could not be used


def image_names(root: Path) -> list[str]:
    """A folder's images, at any depth, as paths below it; `UsageError` if it has none."""
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one with images")
    return sorted(name for names in folder_source(root, size=0).splits.values() for name in names)


def read_for(model: BaseAutoencoder, root: Path, names: list[str]) -> list[np.ndarray | str]:
    """Images below a folder as a model takes them: for each uint8 [S, S, C], or the reason why there is none."""
    channels, size, _ = model.image_shape
    crop = CELEBA_CROP if (root / celeba.IMAGES).is_dir() else None  # as it is cut for training
    images = read_images(root, size, crop, names)
    if channels == 1:
        images = [i if isinstance(i, str) else np.array(Image.fromarray(i).convert("L"))[..., None] for i in images]
    return images


def embed_folder(root: Path, names: list[str], model: BaseAutoencoder) -> Embedding:
    """What a model makes of images below a folder. One that cannot be used is warned of; `UsageError` if none can."""
    device, parts, keys, reasons = next(model.parameters()).device, [], [], {}
    for first in tqdm(range(0, len(names), CHUNK), desc="embedding", leave=False, dynamic_ncols=True):
        members = names[first : first + CHUNK]
        results = dict(zip(members, read_for(model, root, members), strict=True))
        images = [result for result in results.values() if not isinstance(result, str)]
        reasons |= {name: result for name, result in results.items() if isinstance(result, str)}
        if images:
            parts.append(trained.codes_and_errors(model, np.stack(images), device, "encoding"))
            keys += keys_of(images)
    if not parts:
        name, reason = next(iter(reasons.items()))
        raise UsageError(f"none of the {len(reasons)} images can be used; {name}: {reason}")
    for name, reason in reasons.items():
        tqdm.write(f"warning: {printable(name)!r} is left out: {printable(reason)}", file=sys.stderr)
    codes, errors = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Embedding([name for name in names if name not in reasons], codes, errors, keys, reasons)


def keys_of(images: Images | list[np.ndarray]) -> list[int]:
    """A hash for each of the images uint8 [N, S, S, C], by which this process finds equal ones."""
    return [hash(images[number].tobytes()) for number in range(len(images))]


def printable(name: str) -> str:
    """A file's name with \\xNN for bytes that are not UTF-8, which no text file takes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def embed(model: BaseAutoencoder, images: str | Path | Images | torch.Tensor) -> np.ndarray:
    """Codes, float32 [N, *latent_shape], of a folder's images in the order of their paths, or of an array of images.

    An array, or tensor, is uint8 [N, S, S, C] or float [N, C, S, S] in [0, 1], N > 0. There are no gradients. Files
    that cannot be used are left out, and named in warnings. `UsageError` if no image can be used, or if images have
    another shape than the model's.
    """
    if isinstance(images, str | Path):
        return embed_folder(Path(images), image_names(Path(images)), model).codes
    require(len(images) > 0, "the number of images", 0, "at least 1")
    if isinstance(images, np.ndarray | torch.Tensor) and "float" in str(images.dtype):
        images = torch.as_tensor(images, dtype=torch.float32)
    return trained.codes_and_errors(model, images, next(model.parameters()).device, "encoding")[0].numpy()


def write_csv(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The arrays of the .npz file as a table; float32 is written with as many digits as bring it back."""
    codes = arrays["codes"].reshape(len(arrays["codes"]), -1)
    attributes = arrays.get("attributes", np.zeros((len(codes), 0), bool)).astype(int)
    with atomic_write(path) as file:
        writer = csv.writer(file)
        columns = [*arrays.get("attribute_names", ()), *(f"code_{number}" for number in range(codes.shape[1]))]
        writer.writerow(("file" if "files" in arrays else "image", "error", *columns))
        for number, code in enumerate(codes):
            name, error = arrays["files"][number] if "files" in arrays else number, arrays["errors"][number]
            writer.writerow((name, float(error), *attributes[number], *(f"{value:.9g}" for value in code)))


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("images", metavar="FOLDER|SPLIT", help="images, at any depth; or train, valid, test of the run")
    parser.add_argument("--output", type=Path, default=RUNS / "codes.npz", help="a .npz or .csv file [%(default)s]")


def main(options: argparse.Namespace) -> None:
    trained.require_file(options.output, "--output", ".npz", ".csv")
    device = find_device(options.device)
    [run] = trained.open_runs(options.runs, options.checkpoint, device)
    if (split := options.images) in SPLITS:
        dataset = run.open_data()
        require(split in dataset.images, "the split", split, f"one of {', '.join(dataset.images)}, or a folder")
        codes, errors = trained.codes_and_errors(run.model, dataset.images[split], device, f"{split} codes")
        arrays = {"codes": codes.numpy(), "errors": errors.numpy()}
        if dataset.attribute_names:
            names = np.array(dataset.attribute_names)
            arrays |= {"attributes": dataset.attributes[split], "attribute_names": names}
    else:
        root = Path(options.images)
        found = embed_folder(root, image_names(root), run.model)
        arrays = {"codes": found.codes, "errors": found.errors, "files": np.array([*map(printable, found.files)])}
    if options.output.suffix.lower() == ".csv":
        write_csv(options.output, arrays)
    else:
        with atomic_write(options.output, "wb") as file:
            np.savez(file, **arrays)
    print(f"codes of {len(arrays['codes']):,} images, {list(arrays['codes'].shape[1:])} each: {options.output}")
