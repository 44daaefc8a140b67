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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leae.errors import UsageError
from leae.files import remove_empty, whole_file

SPLITS = {"0": "train", "1": "valid", "2": "test"}
PARTITION, ATTRIBUTES, IMAGES = "list_eval_partition", "list_attr_celeba", "img_align_celeba"
MOST_BYTES = 2**28  # of a list; CelebA's have 26 MB
MIRROR = "flwrlabs/celeba"  # on Hugging Face: the same images as parquet files


# What reading a list, or a zip, raises if it is damaged, encrypted or no longer there.
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, csv.Error)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a CelebA lie. Paths in `images` and `lists` are member names if `archive` is set."""

    root: Path
    archive: Path | None  # the zip that holds the images; None if they lie in a folder
    images: dict[str, str]  # file name as the lists have it → path below the root, or the member's name
    lists: dict[str, tuple[Path | None, str]]  # list's name → (the zip it is in or None, its path or member)


def looks_like_celeba(root: Path) -> bool:
    """Whether a folder has CelebA's images or archive right inside it, whatever else may be missing."""
    if not root.is_dir():
        return False
    if (root / IMAGES).is_dir() or (root / f"{IMAGES}.zip").is_file():
        return True
    return any(zipfile.is_zipfile(path) and _image_members(path) for path in root.glob("*.zip"))


def find(root: Path) -> Layout:
    """Look for the parts of CelebA below `root`.

    Raises:
        UsageError: no images, or no list of the splits, with what is expected where.
    """
    archives = [path for path in sorted(root.glob("*.zip")) if path.stem == IMAGES or zipfile.is_zipfile(path)]
    images, archive = {}, None
    for folder in (root / IMAGES, root / IMAGES / IMAGES):
        images = images or {path.name: str(path.relative_to(root)) for path in sorted(folder.glob("*.jpg"))}
    for candidate in archives:
        if not images and (members := _image_members(candidate)):
            images, archive = members, candidate
    if not images:
        raise UsageError(f"{root} has no CelebA images; expected {IMAGES}.zip or the folder {IMAGES} with .jpg files")

    lists = {}
    for name in (PARTITION, ATTRIBUTES):
        patterns = [f"{folder}{name}.{end}" for folder in ("", "*/") for end in ("txt", "csv")]
        found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
        if found:
            lists[name] = (None, str(found[0].relative_to(root)))
            continue
        for candidate in archives:
            ends = (f"{name}.txt", f"{name}.csv")
            inside = [member for member in _members(candidate) if Path(member).name in ends]
            if inside:
                lists[name] = (candidate, inside[0])
                break
    if PARTITION not in lists:
        raise UsageError(
            f"{root} has CelebA's images but no {PARTITION}.txt or .csv, which says what is train and what is test; "
            f"put it beside the images, or name the image folder itself to have it split 90/10"
        )
    return Layout(root, archive, images, lists)


def read_splits(layout: Layout) -> dict[str, list[str]]:
    """The file names of each split, in the list's order.

    Raises:
        UsageError: a row that is none, a split other than 0, 1, 2, or names of images that are not there.
    """
    splits = {split: [] for split in SPLITS.values()}
    where = layout.lists[PARTITION][1]
    for number, row in enumerate(_rows(layout, PARTITION), start=1):
        if number == 1 and not row[0].endswith(".jpg"):
            continue  # the header of a .csv
        if len(row) != 2 or row[1] not in SPLITS:
            raise UsageError(f"{where}, line {number}: {' '.join(row)!r}; expected a file name and 0, 1 or 2")
        splits[SPLITS[row[1]]].append(row[0])
    names = [name for split in splits.values() for name in split]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice:
        raise UsageError(f"{where} names {twice} twice; take one of the lines out")
    missing = [name for name in names if name not in layout.images]
    if missing:
        place = layout.archive or layout.root / IMAGES
        raise UsageError(
            f"{where} names {len(names)} images, of which {len(missing)} are not in {place}, for example {missing[0]}; "
            f"complete the images or take these lines out"
        )
    return {split: members for split, members in splits.items() if members}


def read_attributes(layout: Layout) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The attributes' names, and for every file name its attributes, bool [A]. Nothing if there is no such list.

    Raises:
        UsageError: a row that does not have one value, 1 or -1, per attribute.
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
    return names, table


def fetch(root: Path) -> None:
    """Download CelebA from its Hugging Face mirror into `root`, in the official download's layout.

    Raises:
        UsageError: the client is not installed, or the mirror cannot be reached; the message says what to do.
    """
    by_hand = (
        f"or put {IMAGES}.zip, {PARTITION}.txt and {ATTRIBUTES}.txt from the official download into {root} by hand"
    )
    try:
        import huggingface_hub
        import pyarrow.parquet
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed; run uv run --extra celeba -m leae prepare celeba, {by_hand}"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            MIRROR, repo_type="dataset", allow_patterns="*.parquet", local_dir=root / "mirror"
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        if not any((root / "mirror").rglob("*.parquet*")):  # what has come is gone on from
            shutil.rmtree(root / "mirror", ignore_errors=True)
            remove_empty(root, root.parent)
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"CelebA's mirror {MIRROR} cannot be reached ({reason}); try again online, {by_hand}"
        ) from error
    files = {split: sorted(Path(folder).glob(f"**/{split}-*.parquet")) for split in SPLITS.values()}
    if not all(files.values()):
        raise UsageError(f"{folder} lacks parquet files of train, valid or test; delete it and try again, {by_hand}")

    partition, attributes, names = [], [], None
    total = sum(pyarrow.parquet.ParquetFile(path).metadata.num_rows for paths in files.values() for path in paths)
    with (
        tqdm(total=total, desc="repacking CelebA", unit="img") as bar,
        whole_file(root / f"{IMAGES}.zip", "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        for code, split in SPLITS.items():
            for row in (row for path in files[split] for row in _parquet_rows(path)):
                name = f"{len(partition) + 1:06d}.jpg"
                names = names or [key for key, value in row.items() if isinstance(value, bool)]
                archive.writestr(f"{IMAGES}/{name}", row["image"]["bytes"])
                names = names or [key for key, value in row.items() if isinstance(value, bool)]
                partition.append(f"{name} {code}\n")
                attributes.append(" ".join([name, *("1" if row[key] else "-1" for key in names)]) + "\n")
                bar.update()
        with whole_file(root / f"{ATTRIBUTES}.txt") as table:
            table.writelines([f"{total}\n", " ".join(names) + "\n", *attributes])
        with whole_file(root / f"{PARTITION}.txt") as table:
            table.writelines(partition)
    shutil.rmtree(folder)


def _parquet_rows(path: Path) -> Iterator[dict]:
    """The rows of a parquet file, a few at a time in memory."""
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=256):
        yield from batch.to_pylist()


def _members(archive: Path) -> list[str]:
    """The names of the members of a zip."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except UNREADABLE as error:
        raise UsageError(f"{archive} cannot be read as a zip ({error}); download it again") from error


def _image_members(archive: Path) -> dict[str, str]:
    """The members of a zip that are CelebA's images: file name → member name."""
    inside = (member for member in _members(archive) if IMAGES in Path(member).parts and member.endswith(".jpg"))
    return {Path(member).name: member for member in inside}


def _rows(layout: Layout, name: str) -> Iterator[list[str]]:
    """The rows of a list, split at commas (.csv) or at white space (.txt), empty lines left out."""
    archive, path = layout.lists[name]
    where = archive or layout.root / path
    try:
        if archive is None:
            if where.stat().st_size > MOST_BYTES:
                raise UsageError(f"{where} has more than {MOST_BYTES:,} bytes; that is no list of CelebA's")
            content = where.read_bytes()
        else:
            with zipfile.ZipFile(archive) as opened, opened.open(path) as file:
                content = file.read(MOST_BYTES + 1)  # whatever size it claims
            if len(content) > MOST_BYTES:
                raise UsageError(f"{path} in {where} has more than {MOST_BYTES:,} bytes; that is no list of CelebA's")
        text = content.decode("utf-8-sig", errors="replace")
        lines = re.split(r"\r\n|\r|\n", text)
        rows = list(csv.reader(lines)) if path.endswith(".csv") else [line.split() for line in lines]
    except UNREADABLE as error:
        raise UsageError(f"{path} of {where} cannot be read ({error}); get it again") from error
    return (row for row in rows if row)
