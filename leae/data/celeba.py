"""CelebA as people have it on their disks: the official download, a mirror's archive, or an extracted folder.

    img_align_celeba.zip, any other .zip with the images inside, or the folder img_align_celeba (also nested twice)
    list_eval_partition.txt or .csv     which image belongs to train (0), valid (1), test (2)
    list_attr_celeba.txt or .csv        forty attributes of every image, 1 or -1

The lists lie beside the images, one folder further down, or in the same archive.
"""

import csv
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leae.errors import UsageError
from leae.files import atomic_write

SPLITS = {"0": "train", "1": "valid", "2": "test"}
PARTITION, ATTRIBUTES, IMAGES = "list_eval_partition", "list_attr_celeba", "img_align_celeba"
BY_HAND = f"{IMAGES}.zip, {PARTITION}.txt and {ATTRIBUTES}.txt from the official download"
COMMAND = "uv run --extra celeba -m leae prepare celeba"  # which fetches it
MOST_BYTES = 2**28  # of a list; CelebA's have 26 MB
MIRROR = "flwrlabs/celeba"  # on Hugging Face: the same images as parquet files

# What reading a list, or a zip, raises if it is damaged or encrypted.
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, csv.Error)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a CelebA lie."""

    root: Path
    archive: Path | None  # the zip that holds the images; None if they lie in a folder
    images: dict[str, str]  # file name as the lists have it → path below the root, or the zip's member
    lists: dict[str, tuple[Path | None, str]]  # list's name → (the zip it is in or None, its path or member)

    @property
    def files(self) -> set[Path]:
        """Every file that is read."""
        images = {self.archive} if self.archive else {self.root / path for path in self.images.values()}
        return images | {archive or self.root / path for archive, path in self.lists.values()}


def has_celeba(root: Path) -> bool:
    """Whether a folder has CelebA's images or archive right inside it, whatever else may be missing."""
    if (root / IMAGES).is_dir() or (root / f"{IMAGES}.zip").is_file():
        return True
    return bool(_search(root, f"{IMAGES}/", ".jpg")[1])


def find(root: Path) -> Layout:
    """Find the parts of CelebA below `root`.

    Raises:
        UsageError: no images, or no list of the splits, with what is expected where.
    """
    archive, images = _search(root, f"{IMAGES}/", ".jpg", f"{IMAGES}/*", f"{IMAGES}/{IMAGES}/*")
    if not images:
        raise UsageError(f"{root} has no CelebA images; expected {IMAGES}.zip or the folder {IMAGES} with .jpg files")
    lists = {}
    for name in (PARTITION, ATTRIBUTES):
        patterns = [f"{folder}{name}.{end}" for folder in ("", "*/") for end in ("txt", "csv")]
        where, found = _search(root, f"{name}.", (".txt", ".csv"), *patterns)
        if found:
            lists[name] = where, found[0]
    if PARTITION not in lists:
        raise UsageError(
            f"{root} has CelebA's images but no {PARTITION}.txt or .csv, which says what is train and what is test; "
            f"put it beside the images, or name the image folder itself to have it split 90/10"
        )
    return Layout(root, archive, {path.rpartition("/")[2]: path for path in images}, lists)


def _search(root: Path, part: str, ends: str | tuple[str, ...], *patterns: str) -> tuple[Path | None, list[str]]:
    """What is called so below a folder, at the patterns, or else in the first of its zips that has any."""
    zips = [path for path in sorted(root.glob("*.zip")) if path.stem == IMAGES or zipfile.is_zipfile(path)]
    for archive in (None, *zips):
        if archive:
            paths = _members(archive)
        else:
            paths = [path.relative_to(root).as_posix() for pattern in patterns for path in sorted(root.glob(pattern))]
        found = [path for path in paths if f"/{part}" in f"/{path}" and path.endswith(ends)]
        if found:
            return archive, found
    return None, []


def _members(archive: Path) -> list[str]:
    """The names of the members of a zip."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except UNREADABLE as error:
        raise UsageError(f"{archive} cannot be read as a zip ({error}); download it again") from error


def read_splits(layout: Layout) -> dict[str, list[str]]:
    """The file names of each split, in the list's order.

    Raises:
        UsageError: a row that is none, a split other than 0, 1, 2, or names of images that are not there.
    """
    split_of = {}
    where = layout.lists[PARTITION][1]
    for number, row in enumerate(_rows(layout, PARTITION), start=1):
        if number == 1 and not row[0].endswith(".jpg"):
            continue  # the header of a .csv
        if len(row) != 2 or row[1] not in SPLITS:
            raise UsageError(f"{where}, line {number}: {' '.join(row)!r}; expected a file name and 0, 1 or 2")
        if row[0] in split_of:
            raise UsageError(f"{where} names {row[0]} twice; take one of the lines out")
        split_of[row[0]] = SPLITS[row[1]]
    missing = [name for name in split_of if name not in layout.images]
    if missing:
        place = layout.archive or layout.root / IMAGES
        raise UsageError(
            f"{where} names {len(split_of)} images, of which {len(missing)} are not in {place}, for example "
            f"{missing[0]}; complete the images or take these lines out"
        )
    splits = {split: [name for name, its in split_of.items() if its == split] for split in SPLITS.values()}
    return {split: names for split, names in splits.items() if names or split != "valid"}


def read_attributes(layout: Layout, splits: dict[str, list[str]]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The attributes' names, and by split bool [N, A]. Nothing if there is no such list.

    Raises:
        UsageError: a row that does not have one value, 1 or -1, per attribute, or images without a row.
    """
    if ATTRIBUTES not in layout.lists:
        return (), {}
    where, rows = layout.lists[ATTRIBUTES][1], _rows(layout, ATTRIBUTES)
    header = next(rows, [])
    if len(header) == 1 and header[0].isdigit():  # the .txt's first line counts the rows
        header = next(rows, [])
    names = tuple(header[1:] if header and header[0] == "image_id" else header)
    table = {}
    for row in rows:
        if row[0] in table:
            raise UsageError(f"{where} names {row[0]} twice; take one of the lines out")
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"1", "-1", "0"}:
            raise UsageError(f"{where}: the row of {row[0]!r} has not {len(names)} values of 1 or -1")
        table[row[0]] = np.array(row[1:]) == "1"
    missing = [name for members in splits.values() for name in members if name not in table]
    if missing:
        raise UsageError(f"{where} has no row for {len(missing)} images, for example {missing[0]}; get it again")
    return names, {split: np.array([table[name] for name in members]) for split, members in splits.items()}


def _rows(layout: Layout, name: str) -> Iterator[list[str]]:
    """The rows of a list, split at commas (.csv) or at white space (.txt), empty lines left out."""
    archive, path = layout.lists[name]
    where = f"{path} in {archive}" if archive else layout.root / path
    try:
        with zipfile.ZipFile(archive).open(path) if archive else open(where, "rb") as file:
            content = file.read(MOST_BYTES + 1)  # whatever size it claims
        if len(content) > MOST_BYTES:
            raise UsageError(f"{where} has more than {MOST_BYTES:,} bytes; that is no list of CelebA's")
        lines = re.split(r"\r\n|\r|\n", content.decode("utf-8-sig", errors="replace"))
        rows = list(csv.reader(lines)) if path.endswith(".csv") else [line.split() for line in lines]
    except UNREADABLE as error:
        raise UsageError(f"{where} cannot be read ({error}); get it again") from error
    return (row for row in rows if row)


def fetch(root: Path) -> None:
    """Download CelebA from its Hugging Face mirror into `root`, in the official download's layout.

    Raises:
        UsageError: the client is not installed, or the mirror cannot be reached; the message says what to do.
    """
    by_hand = f"or put {BY_HAND} into {root} by hand"
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; run {COMMAND}, {by_hand}") from error
    try:
        folder = huggingface_hub.snapshot_download(
            MIRROR, repo_type="dataset", allow_patterns="*.parquet", local_dir=root / "mirror"
        )
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"CelebA's mirror {MIRROR} cannot be reached ({reason}); try again online, {by_hand}"
        ) from error
    files = {code: sorted(Path(folder).glob(f"**/{split}-*.parquet")) for code, split in SPLITS.items()}
    if not all(files.values()):
        raise UsageError(f"{folder} lacks parquet files of train, valid or test; delete it and try again, {by_hand}")

    partition, attributes, names = [], [], None
    opened = [(code, ParquetFile(path)) for code, paths in files.items() for path in paths]
    total = sum(file.metadata.num_rows for _, file in opened)
    rows = ((code, row) for code, file in opened for some in file.iter_batches(256) for row in some.to_pylist())
    with atomic_write(root / f"{IMAGES}.zip", "wb") as zipped, zipfile.ZipFile(zipped, "w") as archive:
        for code, row in tqdm(rows, total=total, desc="repacking CelebA", unit="img"):
            name = f"{len(partition) + 1:06d}.jpg"
            names = names or [key for key, value in row.items() if isinstance(value, bool)]
            archive.writestr(f"{IMAGES}/{name}", row["image"]["bytes"])
            partition.append(f"{name} {code}\n")
            attributes.append(" ".join([name, *("1" if row[key] else "-1" for key in names)]) + "\n")
        with atomic_write(root / f"{ATTRIBUTES}.txt") as table:
            table.writelines([f"{total}\n", " ".join(names) + "\n", *attributes])
        with atomic_write(root / f"{PARTITION}.txt") as table:
            table.writelines(partition)
    shutil.rmtree(folder)
