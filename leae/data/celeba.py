"""CelebA as it is distributed, by the official download or in a mirror's archive, unpacked or not.

    img_align_celeba.zip, or the folder img_align_celeba    the images; a mirror's archive is a .zip of any name, and
                                                            has the folder nested in itself
    list_eval_partition.txt or .csv     which image belongs to train (0), valid (1), test (2)
    list_attr_celeba.txt or .csv        forty attributes of every image, 1 or -1; it may be left out

The lists lie beside the zip or the folder, or in the zip.
"""

import io
import re
import shutil
import zipfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from leae.errors import UsageError
from leae.files import atomic_write, fetch_snapshot, read_bytes
from leae.progress import progress_bar

SPLITS = {"0": "train", "1": "valid", "2": "test"}
PARTITION, ATTRIBUTES, IMAGES = "list_eval_partition", "list_attr_celeba", "img_align_celeba"
MEMBER = rf"({IMAGES}[/\\]){{1,2}}[^/\\]+\.jpg"  # of a zip: an image; some made on Windows have backslashes
BY_HAND = f"{IMAGES}.zip, {PARTITION}.txt and {ATTRIBUTES}.txt from the official download"
COMMAND = "uv run --extra celeba -m leae prepare celeba"  # which fetches it
MIRROR = "flwrlabs/celeba"  # on Hugging Face: the same images as parquet files


@dataclass(frozen=True)
class CelebA:
    """What lies where in a CelebA. Images are known by their path below the folder, or the name of the zip's member."""

    archive: Path | None  # the zip that has the images; None if they lie in a folder
    splits: dict[str, list[str]]  # images by split, in the list's order; "valid" only if there are any
    attribute_names: tuple[str, ...]  # none if there is no such list
    attributes: dict[str, np.ndarray]  # by image, bool [A]
    files: list[Path]  # every file that is read


def has_celeba(root: Path) -> bool:
    """Whether a folder has CelebA's images or archive right inside it, whatever else may be missing."""
    return (root / IMAGES).is_dir() or (root / f"{IMAGES}.zip").is_file() or bool(_find_images(root)[1])


def find(root: Path) -> CelebA:
    """Find the images of a CelebA below `root`, and read its lists; `UsageError` if these lack, or do not fit them."""
    archive, paths = _find_images(root)
    if not paths:
        advice = f"move away what is there and run {COMMAND}, or put {BY_HAND} there"
        raise UsageError(f"{root} has no CelebA images that can be read; {advice}")
    images = {re.split(r"[/\\]", path)[-1]: path for path in paths}
    partition, attributes = (_find_list(root, archive, name) for name in (PARTITION, ATTRIBUTES))
    if partition is None:
        raise UsageError(f"{root} lacks {PARTITION}.txt or .csv; put it beside {IMAGES}")
    _, codes = _read_list(partition, SPLITS)
    names, rows = _read_list(attributes, ("1", "-1")) if attributes else ([], {name: [] for name in codes})
    for known, where in ((images, archive or root / IMAGES), (rows, attributes)):
        if missing := [name for name in codes if name not in known]:
            said = f"{partition} names {len(missing)} images that are not in {where}, such as {missing[0]}"
            raise UsageError(f"{said}; complete that, or take these lines out")
    splits = {split: [images[name] for name in codes if codes[name] == [code]] for code, split in SPLITS.items()}
    if not splits["valid"]:
        del splits["valid"]
    signs = {images[name]: np.array(rows[name]) == "1" for name in codes}
    lists = [path for path in (partition, attributes) if isinstance(path, Path)]  # others are in the archive
    files = [archive] if archive else [root / path for path in paths]
    return CelebA(archive, splits, tuple(names), signs, files + lists)


def _find_images(root: Path) -> tuple[Path | None, list[str]]:
    """The zip that has the images, or None if a folder does, and their paths in it; no paths if there are none."""
    folders = (IMAGES, f"{IMAGES}/{IMAGES}")
    paths = [f"{folder}/{path.name}" for folder in folders for path in sorted((root / folder).glob("*.jpg"))]
    if paths:
        return None, paths
    for archive in filter(Path.is_file, sorted(root.glob("*.zip"))):
        with suppress(Exception):  # it need not be CelebA's, or a zip
            paths = [name for name in zipfile.ZipFile(archive).namelist() if re.fullmatch(MEMBER, name)]
        if paths:
            return archive, paths
    return None, []


def _find_list(root: Path, archive: Path | None, name: str) -> Path | zipfile.Path | None:
    """The file that a list is in, below the folder or in the zip, if there is one."""
    places = [root, zipfile.Path(archive)] if archive else [root]
    files = [place / f"{name}{suffix}" for place in places for suffix in (".txt", ".csv")]
    return next((file for file in files if file.is_file()), None)


def _read_list(path: Path | zipfile.Path, values: Collection[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The names of a list's columns, if it has any, and its rows by image; `UsageError` if other values are in them."""
    names, table = [], {}
    try:
        lines = io.TextIOWrapper(io.BytesIO(read_bytes(path)), "utf-8-sig", errors="replace")
        for row in filter(None, (line.replace(",", " ").split() for line in lines)):
            width = len(names) or 1
            if not table and not row[0].endswith(".jpg"):  # the names; in a .txt the number of rows stands above them
                names = row[1:] if row[0] == "image_id" else row
            elif row[0] in table or len(row) != 1 + width or not set(row[1:]) <= set(values):
                expected = f"a file name that occurs once, then {width} out of {', '.join(values)}"
                raise ValueError(f"{' '.join(row)[:80]!r}; expected {expected}")
            else:
                table[row[0]] = row[1:]
        if not table:
            raise ValueError("no .jpg files are named")
    except Exception as error:  # what a damaged zip's decompressors raise, too
        raise UsageError(f"{path} cannot be used: {error}; correct it or get it again") from error
    return names, table


def fetch(root: Path) -> None:
    """Download CelebA from its mirror into `root`, as a zip with images and lists; `UsageError` if that cannot be."""
    by_hand = f"or put {BY_HAND} into {root} by hand"
    for list_ in (root / f"{name}{suffix}" for name in (PARTITION, ATTRIBUTES) for suffix in (".txt", ".csv")):
        if list_.exists():
            raise UsageError(f"{list_} is there, but no images; put these beside it, or move it away to download all")
    try:
        import huggingface_hub  # noqa: F401, which `fetch_snapshot` takes
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; run {COMMAND}, {by_hand}") from error
    folder = root / f".{MIRROR.replace('/', '-')}"
    try:
        fetch_snapshot(MIRROR, repo_type="dataset", allow_patterns="*.parquet", local_dir=folder)
    except Exception as error:  # whatever a network, a proxy or their libraries may raise
        raise UsageError(f"{MIRROR} cannot be reached ({str(error).strip():.200}); try online, {by_hand}") from error
    files = [(code, path) for code, split in SPLITS.items() for path in sorted(folder.glob(f"**/{split}-*.parquet"))]
    if {code for code, _ in files} != set(SPLITS):
        raise UsageError(f"{folder} lacks parquet files of train, valid or test; delete it and try again, {by_hand}")

    partition, attributes, names = [["image_id", "partition"]], [], []
    with atomic_write(root / f"{IMAGES}.zip", "wb") as zipped, zipfile.ZipFile(zipped, "w") as archive:
        for code, path in progress_bar(files, "repacking CelebA", unit="file"):
            for row in chain.from_iterable(batch.to_pylist() for batch in ParquetFile(path).iter_batches(256)):
                name = f"{len(partition):06d}.jpg"
                names = names or [key for key, value in row.items() if isinstance(value, bool)]
                archive.writestr(f"{IMAGES}/{name}", row["image"]["bytes"])
                partition.append([name, code])
                attributes.append([name, *("1" if row[key] else "-1" for key in names)])
        for list_, rows in ((PARTITION, partition), (ATTRIBUTES, [["image_id", *names], *attributes])):
            archive.writestr(f"{list_}.csv", "\n".join(map(",".join, rows)))
    shutil.rmtree(folder)
