"""Data sets in memory: what torchvision reads, the digits that scikit-learn ships, and anybody's arrays."""

import gzip
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from leae.data.folders import split_names
from leae.data.images import DIGIT, central_square
from leae.errors import UsageError, require
from leae.files import MAX_TEXT, as_utf8, atomic_write, describe, digest, read_arrays, read_bytes, server_timeout

MAX_IMAGES = 2**22  # in a file of arrays, as what is known of each takes memory


@dataclass(frozen=True)
class SmallSet:
    """A data set in memory."""

    images: dict[str, np.ndarray]  # uint8 [N, s, s, C] by split, "train" and "test"
    labels: dict[str, np.ndarray]  # int [N], by split; 0 where there are no classes
    classes: tuple[str, ...]  # their names

    def read(self, size: int, items: list[tuple[str, int]]) -> list[tuple[np.ndarray, int]]:
        """Images by split and number: for each uint8 [size, size, C], and its class's number."""
        return [(fit(self.images[split][i], size), self.labels[split][i]) for split, i in items]


def load_torchvision(reader: str, place: str, files: str, data: Path) -> SmallSet:
    """What a class of `torchvision.datasets` reads, by the class's name.

    What lies in the folder `place` below `data` is read without asking the network, and is never replaced; what is
    missing is downloaded, unless others than the official files, or unpacked ones, lie there. `UsageError` if it cannot
    be downloaded, or is damaged; the message says which `files` to put there.
    """
    from torchvision import datasets  # takes seconds to import, and only these sets need it

    kind, folder = getattr(datasets, reader), data / place
    official = getattr(kind, "resources", None) or [(kind.filename, kind.tgz_md5)]
    packed = [(folder / name, md5) for name, md5 in official if (folder / name).is_file()]
    base = getattr(kind, "base_folder", None)  # into which an archive is unpacked; else each file is, by itself
    unpacked = [folder / (base or name.removesuffix(".gz")) for name, _ in official]

    def others() -> list[Path]:
        """Those that are not the official ones; looked for only where it matters, as they are large."""
        return [path for path, md5 in packed if not datasets.utils.check_integrity(path, md5)]

    try:
        with server_timeout():  # torchvision sets none
            if not any(path.exists() for path in unpacked) and not others():
                _fetch(kind, folder, place, [path for path, _ in packed])
        for path, _ in () if base else packed:
            with gzip.open(path) as file:
                content = file.read(MAX_TEXT)  # they have 47 MB
            plain = path.with_suffix("")  # which is read
            if not plain.exists():
                with atomic_write(plain, "wb") as file:
                    file.write(content)
            elif read_bytes(plain) != content:
                raise ValueError(f"{plain.name} is not what is in {path.name}: delete one of the two")
        found = {split: kind(data, split == "train") for split in ("train", "test")}
        images, labels = {}, {}
        for split, some in found.items():
            pixels, numbers = np.asarray(some.data), np.asarray(some.targets)
            images[split], labels[split] = pixels.reshape(*pixels.shape[:3], -1), numbers
            if pixels.dtype != np.uint8 or images[split].shape[3] not in (1, 3):
                raise ValueError(f"its {split} images are {describe(pixels)}")
            if numbers.shape != pixels.shape[:1] or not np.isin(numbers, range(len(some.classes))).all():
                raise ValueError(f"its {split} labels do not fit its images or its classes")
    except Exception as error:  # what it reads with raises much, where files are missing, damaged or cannot be had
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        where = f"can neither be read from {folder} nor downloaded ({reason})"
        advice = f"delete what is damaged or not the official file; then try again online, or put {files}"
        besides = "".join(f"; {path.name} is another than the official one" for path in others()[:1])
        raise UsageError(f"{reader} {where}{besides}; {advice} into {folder} by hand") from error
    return SmallSet(images, labels, tuple(name.split(" - ")[0] for name in found["train"].classes))  # "0 - zero"


def _fetch(kind: type, folder: Path, place: str, packed: list[Path]) -> None:
    """Let a class of torchvision's download and unpack its files, but for the `packed` ones, into a folder of its own.

    From there they are moved into `folder`: it would replace what is there, and leave a part of a file where it is
    killed. `place` is where it puts them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder) as root:
        new = Path(root) / place
        new.mkdir(parents=True, exist_ok=True)
        for path in packed:
            shutil.copy(path, new)
        kind(root, download=True)
        for path in sorted(new.iterdir(), key=lambda path: path.suffix != ".gz"):  # from which others can be made
            if not (folder / path.name).exists():
                path.rename(folder / path.name)


def load_digits(data: Path) -> SmallSet:
    """1,797 digits of 8×8 pixels, the last tenth of them for testing."""
    from sklearn import datasets  # likewise

    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # 16 is white
    cut = len(images) - len(images) // 10  # the last tenth is mostly by other writers than those of the first
    train, test = slice(cut), slice(cut, None)
    labels = {"train": digits.target[train], "test": digits.target[test]}
    return SmallSet({"train": images[train], "test": images[test]}, labels, tuple(map(str, digits.target_names)))


def load_arrays(path: Path, classes: bool = True, least: int = 1) -> SmallSet:
    """Anybody's images, in a .npy file or as `images` in a .npz file, perhaps with `labels` [N] and their `names`.

    Images are [N, S, S] or [N, S, S, C], uint8 or float in [0, 1], which is rounded to 8 bits; S is at `least` so many
    pixels. Without `classes`, labels are left out. A tenth is held out as of a folder. `UsageError` for anything else.
    """
    arrays = read_arrays(path, "images", *(("labels", "names") if classes else ()))
    if "images" not in arrays:
        raise UsageError(f"{path} has no `images`; it must have these, and may have `labels` and `names`")
    images, where = arrays["images"], f"`images` of {path}"
    count, *sides = images.shape
    require(count <= MAX_IMAGES, f"the number of {where}", count, f"at most {MAX_IMAGES:,}")
    fits = images.size and len(sides) in (2, 3) and sides[0] == sides[1] and sides[2:] in ([], [1], [3])
    if fits and images.dtype == np.uint8:
        fits = images.max() > 1
    else:
        fits = fits and images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1
    expected = (
        "uint8 above 1, or float from 0 to 1 (scale others), [N, S, S] or [N, S, S, C] with 1 or 3 channels, the last"
    )
    require(fits, where, describe(images), expected)
    side = sides[0] + 4 * (sides[0] == DIGIT[0])  # as `fit` has it
    require(side >= least, "image_size", least, f"at most {side}, as {path} has, unless UPSCALE is set")
    images = images.reshape(count, *sides[:2], -1)
    pixels = images if images.dtype == np.uint8 else np.rint(images * np.float32(255)).astype(np.uint8)
    labels, where = arrays.get("labels", np.zeros(count, int)), f"`labels` of {path}"
    fits = labels.shape == (count,) and labels.dtype.kind in "iu"
    require(fits, where, describe(labels), f"whole numbers [{count}], one for each image")
    values, numbers = np.unique(labels, return_inverse=True)
    names = arrays.get("names") if "labels" in arrays else None
    if names is not None:
        fits = names.ndim == 1 and names.dtype.kind in "USiu" and len(names) <= MAX_IMAGES
        require(fits, f"`names` of {path}", f"{names.dtype.str} {list(names.shape)}", "texts [K], one for each class")
        names = np.char.decode(names, "utf-8", "backslashreplace") if names.dtype.kind == "S" else names
        known = values[0] >= 0 and values[-1] < len(names) == len({*names.tolist()})
        require(known, where, describe(labels), f"numbers of its {len(names)} `names`, no two of which are the same")
    shown = values if names is None else names[values]
    try:
        class_names = tuple(as_utf8(str(name)) for name in shown.tolist()) if "labels" in arrays else ()
    except UnicodeError as error:
        raise UsageError(f"`names` of {path} are no texts ({error}); write them anew") from error
    splits = split_names(map(str, range(count)))
    rows = {split: [*map(int, sorted(items, key=digest))] for split, items in splits.items()}  # as in a folder
    return SmallSet({s: pixels[of] for s, of in rows.items()}, {s: numbers[of] for s, of in rows.items()}, class_names)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [s, s, C] → [size, size, C]: 28×28 is padded by 2 black pixels on every side, then all are scaled."""
    if image.shape[:2] == DIGIT:
        image = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    pixels = image[..., 0] if image.shape[2] == 1 else image
    return central_square(Image.fromarray(pixels), min(pixels.shape[:2]), size).reshape(size, size, -1)
