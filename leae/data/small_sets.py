"""The small data sets of the textbooks: MNIST, Fashion-MNIST, CIFAR-10, and the digits that scikit-learn ships.

torchvision reads the first three, and downloads what is missing, in folders of its own.
"""

import http.client
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from leae.errors import UsageError


@dataclass(frozen=True)
class SmallSet:
    """What is known of a set without reading it."""

    title: str
    channels: int
    reader: str = ""  # torchvision's class
    place: str = ""  # where that class expects the files that it downloads, below the data folder
    files: str = ""  # what these are


_IDX = "the four files train-images-idx3-ubyte.gz, train-labels-…, t10k-images-… and t10k-labels-…"
SMALL_SETS = {
    # 60,000 + 10,000 images of 28×28 pixels, twice; 50,000 + 10,000 of 32×32; 1,618 + 179 of 8×8
    "mnist": SmallSet("MNIST", 1, "MNIST", "MNIST/raw", _IDX),
    "fashion-mnist": SmallSet("Fashion-MNIST", 1, "FashionMNIST", "FashionMNIST/raw", _IDX),
    "cifar10": SmallSet("CIFAR-10", 3, "CIFAR10", "", "cifar-10-python.tar.gz"),
    "digits": SmallSet("scikit-learn's digits", 1),
}

# What torchvision and what it reads with raise when files are missing, damaged or cannot be had.
UNREADABLE = (OSError, RuntimeError, EOFError, AssertionError, ValueError, tarfile.TarError, http.client.HTTPException)


@lru_cache(maxsize=1)
def load(name: str, data: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """By split, "train" and "test", uint8 images [N, s, s, C] and int labels [N]; and the names of the classes.

    What lies in the folder `data` is read without asking the network; what is missing is downloaded. `UsageError` if
    it cannot be downloaded, or is damaged; the message says what to put where.
    """
    if name == "digits":
        from sklearn.datasets import load_digits  # takes seconds to import, and only this set needs it

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # 16 is white
        cut = len(images) - len(images) // 10  # the last tenth is mostly by other writers than those of the first
        parts = {"train": (images[:cut], digits.target[:cut]), "test": (images[cut:], digits.target[cut:])}
        return parts, tuple(map(str, digits.target_names))
    from torchvision import datasets  # likewise

    small, parts = SMALL_SETS[name], {}
    try:
        for split in ("train", "test"):
            reader = getattr(datasets, small.reader)(data, train=split == "train", download=True)
            images, labels = np.asarray(reader.data), np.asarray(reader.targets)
            if images.shape[1] != images.shape[2] or len(images) != len(labels) or labels.max() >= len(reader.classes):
                raise ValueError(f"{split} images of shape {images.shape} and {len(labels)} labels do not fit")
            parts[split] = images.reshape(*images.shape[:3], small.channels), labels
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        where = f"can neither be read from {data / small.place} nor downloaded ({reason})"
        advice = f"delete what is damaged or not the official file; then try again online, or put {small.files}"
        raise UsageError(f"{small.title} {where}; {advice} into {data / small.place} by hand") from error
    return parts, tuple(name.split(" - ")[0] for name in reader.classes)  # MNIST's are "0 - zero" and so on


def read(name: str, data: Path, size: int, items: list[tuple[str, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images by split and number: for each uint8 [size, size, C], and its class as bool [number of classes]."""
    parts, classes = load(name, data)
    one_hot = np.eye(len(classes), dtype=bool)
    return [(fit(parts[split][0][i], size), one_hot[parts[split][1][i]]) for split, i in items]


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [s, s, C] → [size, size, C]: 28×28 is padded by 2 black pixels on every side, then all are scaled."""
    if len(image) == 28:
        image = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    scaled = Image.fromarray(image.squeeze()).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(scaled).reshape(size, size, -1)
