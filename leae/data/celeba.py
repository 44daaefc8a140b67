"""CelebA as it is distributed: the official download, a mirror's archive, or an extracted folder.

    img_align_celeba.zip, any other .zip with the images inside, or the folder img_align_celeba (also nested twice)
    list_eval_partition.txt or .csv     which image belongs to train (0), valid (1), test (2)
    list_attr_celeba.txt or .csv        forty attributes of every image, 1 or -1

The lists lie beside the images, one folder further down, or in the same archive.
"""

import csv
import re
import shutil
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leae.data.images import UNREADABLE
from leae.errors import UsageError
from leae.files import atomic_write

SPLITS = {"0": "train", "1": "valid", "2": "test"}
PARTITION, ATTRIBUTES, IMAGES = "list_eval_partition", "list_attr_celeba", "img_align_celeba"
BY_HAND = f"{IMAGES}.zip, {PARTITION}.txt and {ATTRIBUTES}.txt from the official download"
COMMAND = "uv run --extra celeba -m leae prepare celeba"  # which fetches it
MOST_BYTES = 2**28  # of a list; CelebA's have 26 MB
MIRROR = "flwrlabs/celeba"  # on Hugging Face: the same images as parquet files


@dataclass(frozen=True)
class CelebA:
    """What lies where in a CelebA. Images are known by their path below the folder, or the name of the zip's member."""

    archive: Path | None  # the zip that has the images; None if they lie in a folder
    splits: dict[str, list[str]]  # images by split, in the list's order; "valid" only if there are any
    attribute_names: tuple[str, ...]  # none if there is no such list
    attributes: dict[str, np.ndarray]  # by image, bool [A]
    files: set[Path]  # every file that is read


def has_celeba(root: Path) -> bool:
    """Whether a folder has CelebA's images or archive right inside it, whatever else may be missing."""
    usual = (root / IMAGES).is_dir() or (root / f"{IMAGES}.zip").is_file()
    return usual or bool(_search(root, f"{IMAGES}/", ".jpg")[1])


def find(root: Path) -> CelebA:
    """Find the images of a CelebA below `root`, and read its lists; `UsageError` if these lack, or do not fit them."""
    archive, paths = _search(root, f"{IMAGES}/", ".jpg", f"{IMAGES}/*", f"{IMAGES}/{IMAGES}/*")
    if not paths:
        raise UsageError(f"{root} has no CelebA images; expected {IMAGES}.zip or the folder {IMAGES} with .jpg files")
    images = {path.rpartition("/")[2]: path for path in paths}
    partition, _, codes = _read_list(root, PARTITION, SPLITS)
    if partition is None:
        raise UsageError(f"{root} lacks {PARTITION}.txt or .csv; put it beside the images, or name their folder itself")
    if missing := [name for name in codes if name not in images]:
        found = f"{len(codes)} images, of which {len(missing)} are not in {archive or root}, such as {missing[0]}"
        raise UsageError(f"{PARTITION} names {found}; complete the images or take these lines out")
    splits = {split: [images[name] for name in codes if codes[name] == [code]] for code, split in SPLITS.items()}
    if not splits["valid"]:
        del splits["valid"]
    table, names, rows = _read_list(root, ATTRIBUTES, ("1", "-1", "0"))
    if table and (missing := [name for name in codes if name not in rows]):
        raise UsageError(f"{ATTRIBUTES} has no row for {len(missing)} images, for example {missing[0]}; get it again")
    if table and not 0 < len(names) == len(set(names)):
        raise UsageError(f"{ATTRIBUTES} must name its columns, each differently; get it again")
    attributes = {images[name]: np.array(row) == "1" for name, row in rows.items() if name in images}
    files = {archive} if archive else {root / path for path in paths}
    return CelebA(archive, splits, tuple(names), attributes, files | {partition, table} - {None})


def _search(root: Path, part: str, ends: str | tuple[str, ...], *patterns: str) -> tuple[Path | None, list[str]]:
    """What is called so below a folder, at the patterns, or else in the first of its zips that has any."""
    zips = [path for path in sorted(root.glob("*.zip")) if path.stem == IMAGES or zipfile.is_zipfile(path)]
    files = [path.relative_to(root).as_posix() for pattern in patterns for path in sorted(root.glob(pattern))]
    for archive in (None, *zips):
        try:
            paths = zipfile.ZipFile(archive).namelist() if archive else files
        except UNREADABLE as error:
            if archive.stem != IMAGES:  # it need not be CelebA's
                continue
            raise UsageError(f"{archive} cannot be read as a zip ({error}); download it again") from error
        found = [path for path in paths if f"/{part}" in f"/{path}" and path.endswith(ends)]
        if found:
            return archive, found
    return None, []


def _read_list(root: Path, name: str, values: Collection[str]) -> tuple[Path | None, list[str], dict[str, list[str]]]:
    """The file that a list is in, the names of its columns, and its rows of such values by image; or nothing."""
    patterns = [f"{folder}{name}.{end}" for folder in ("", "*/") for end in ("txt", "csv")]
    archive, found = _search(root, f"{name}.", (".txt", ".csv"), *patterns)
    if not found:
        return None, [], {}
    path, where = found[0], f"{found[0]} in {archive}" if archive else root / found[0]
    names, table = [], {}
    try:
        with zipfile.ZipFile(archive).open(path) if archive else open(where, "rb") as file:
            content = file.read(MOST_BYTES + 1)  # whatever size it claims
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        lines = re.split(r"\r\n|\r|\n", content.decode("utf-8-sig", errors="replace"))
        rows = csv.reader(lines) if path.endswith(".csv") else map(str.split, lines)
        for number, row in enumerate(filter(None, rows), start=1):
            width = len(names) or 1
            if number <= 2 and not row[0].endswith(".jpg"):  # the header, or how many rows there are
                names = row[1:] if row[0] == "image_id" else row
            elif row[0] in table or len(row) != 1 + width or not set(row[1:]) <= set(values):
                expected = f"a file name that occurs once, then {width} out of {', '.join(values)}"
                raise ValueError(f"line {number}: {' '.join(row)[:80]!r}; expected {expected}")
            else:
                table[row[0]] = row[1:]
        if not table:
            raise ValueError("no .jpg files are named")
    except (*UNREADABLE, csv.Error) as error:
        raise UsageError(f"{where} cannot be used: {error}; correct it or get it again") from error
    return archive or root / path, names, table


def fetch(root: Path) -> None:
    """Download CelebA from its mirror into `root`, in the official layout; `UsageError` if that is not possible."""
    by_hand = f"or put {BY_HAND} into {root} by hand"
    try:
        from huggingface_hub import snapshot_download
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; run {COMMAND}, {by_hand}") from error
    folder = root / "mirror"
    try:
        snapshot_download(MIRROR, repo_type="dataset", allow_patterns="*.parquet", local_dir=folder)
    except OSError as error:
        raise UsageError(f"{MIRROR} cannot be reached ({str(error).strip():.200}); try online, {by_hand}") from error
    files = {code: sorted(folder.glob(f"**/{split}-*.parquet")) for code, split in SPLITS.items()}
    if not all(files.values()):
        raise UsageError(f"{folder} lacks parquet files of train, valid or test; delete it and try again, {by_hand}")

    partition, attributes, names = [], [], None
    opened = [(code, ParquetFile(path)) for code, paths in files.items() for path in paths]
    total = sum(file.metadata.num_rows for _, file in opened)
    rows = ((code, row) for code, file in opened for some in file.iter_batches(256) for row in some.to_pylist())
    with atomic_write(root / f"{IMAGES}.zip", "wb") as zipped, zipfile.ZipFile(zipped, "w") as archive:
        for number, (code, row) in enumerate(tqdm(rows, total=total, desc="repacking CelebA", unit="img"), start=1):
            name, image = f"{number:06d}.jpg", row["image"]["bytes"]
            names = names or [key for key, value in row.items() if isinstance(value, bool)]
            archive.writestr(f"{IMAGES}/{name}", image)
            partition.append(f"{name} {code}\n")
            attributes.append(" ".join([name, *("1" if row[key] else "-1" for key in names)]) + "\n")
        with atomic_write(root / f"{ATTRIBUTES}.txt") as table:
            table.writelines([f"{total}\n", " ".join(names) + "\n", *attributes])
        with atomic_write(root / f"{PARTITION}.txt") as table:
            table.writelines(partition)
    shutil.rmtree(folder)
