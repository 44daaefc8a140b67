"""Prepare a data set for training: `uv run -m leae prepare faces --faces 20000`.

A prepared folder, below data/prepared/, has one array per split, [N, S, S, C], its labels and a manifest. It is
prepared again when its source has changed, or when an array is damaged.
"""

import argparse
import ctypes
import glob
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from leae.autoencoder import LARGEST_IMAGE
from leae.data import celeba
from leae.data.batches import ImageFile
from leae.data.images import FACE, TOO_SMALL, with_channels
from leae.data.sources import CELEBA, DATA, DATA_SETS, MAX_FACES, Source, find_source
from leae.errors import UsageError, require, require_whole, signals_to_end
from leae.files import (
    TEMPORARY,
    atomic_write,
    describe,
    digest,
    one_at_a_time,
    read_arrays,
    read_bytes,
    read_json,
    remove,
    says_empty,
    temporary_of,
    write_csv,
    write_json,
)
from leae.progress import progress_bar

FORMAT = 4  # of the prepared folder; another number is prepared again
SKIPPED = "skipped.csv"  # in it, the images that cannot be used and why; not part of the data
# What is in manifest.json.
SHAPE = {"format": int, "title": str, "fingerprint": str, "splits": [str], "checksums": {str: int}, "checksum": str}
SHAPE |= {"attribute_names": [str], "class_names": [str]}
# What may be known of images, and in SHAPE its names.
LABELS = {"attributes": "attribute_names", "classes": "class_names"}
# Files with these names where they are a person's own, so that other names are another identity.
NAMES = {of: f"{of.replace('_', '-')}.json" for of in LABELS.values()}
SERIAL = 500  # fewer images than this are read by one process, as starting others would take longer
CORES = min(64, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
DAMAGED = "damaged"  # ends the name of a folder that cannot be opened any more
READ_AT_A_TIME = 32  # images, by each process
DEFAULTS = {True: {"image_size": 128, "faces": 50_000}, False: {"image_size": 64, "faces": 8_192}}  # main.py's, by GPU
BLOCK = 2**22  # bytes of a file that are in memory while its checksum is computed


@dataclass(frozen=True)
class Dataset:
    """A prepared data set."""

    name: str  # what opens it again: "faces", "celeba", "mnist", a folder's path; never "auto"
    title: str  # what it is, for people
    identity: str  # sha256, in hex, of its files' checksums: what is in it, not where it is or when it was made
    images: dict[str, ImageFile]  # uint8 [N, S, S, C] by split: "train", "test" and, where there is one, "valid"
    attributes: dict[str, np.ndarray]  # bool [N, A] by split, empty if the source has none
    attribute_names: tuple[str, ...]
    classes: dict[str, np.ndarray] = field(default_factory=dict)  # int64 [N] by split, likewise
    class_names: tuple[str, ...] = ()  # a data set has attributes or classes, or neither

    @property
    def validation_split(self) -> str:
        """What a training run is evaluated on: "valid" where there is one, else "test"."""
        return "valid" if "valid" in self.images else "test"

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its attributes or classes."""
        return self.attribute_names or self.class_names

    @property
    def label_count(self) -> str:
        """How many attributes or classes it has, for people."""
        kind = "classes" if self.class_names else "attributes"
        return f"{len(self.label_names):,} {kind}" if self.label_names else "no labels"

    def has_label(self, name: str, split: str) -> np.ndarray:
        """Which images of a split have one of `label_names`; a class is one against the others: bool [N]."""
        number = self.label_names.index(name)
        return self.classes[split] == number if self.class_names else self.attributes[split][:, number]


def open_dataset(
    name: str,
    image_size: int,
    face_count: int = 50_000,
    identity: str | None = None,
    at_least: int = 1,
    **reading: bool | int,
) -> Dataset:
    """A data set by its name, prepared first if it is not, if its source has changed since, or if it is damaged.

    Of the processes that call this at once, the first prepares it and the others wait. `identity` is that of the data
    set that a run was trained on: a prepared folder that has it is opened, and the source is not asked for. `reading`
    are other options of `find_source`. A `UsageError` if the source cannot be prepared, has fewer than `at_least`
    training images, or another identity.
    """
    for folder in sorted((DATA / "prepared").glob("[!.]*")) if identity else ():
        manifest = _read_manifest(folder)
        if manifest and digest(manifest["checksums"]) == identity:
            with one_at_a_time(folder):
                if _is_whole(folder, manifest):
                    return _open(folder, manifest, name)
    try:
        source = find_source(name, image_size, face_count, **reading)
    except UsageError as error:
        if not identity:
            raise
        advice = "bring back what the run was trained on, or copy it, as it was prepared, from where it was trained"
        raise UsageError(f"{error}; nor is it in {DATA / 'prepared'}: {advice}") from error
    train, test = len(source.splits["train"]), len(source.splits["test"])
    if train < at_least or test < 1:  # before anything is written
        raise UsageError(f"{source.title}: {train:,} training and {test:,} test images; {at_least:,} and 1 are needed")
    folder = DATA / "prepared" / source.key
    with one_at_a_time(folder):
        manifest = _read_manifest(folder)
        same = manifest is not None and manifest["fingerprint"] == source.fingerprint
        whole = manifest and _is_whole(folder, manifest)
        if not (same and whole):
            known_as = digest(manifest["checksums"])[:8] if whole else DAMAGED
            manifest = _prepare(source, folder, identity, known_as, same)
        _require_identity(source, manifest["checksums"], identity)
        return _open(folder, manifest, source.name)


def _require_identity(source: Source, checksums: dict[str, int], identity: str | None) -> None:
    older = {name: checksum for name, checksum in checksums.items() if name not in NAMES.values()}  # which had none
    if identity not in (None, digest(checksums), digest(older)):
        raise UsageError(f"{source.title}: has changed since the run was trained; bring it back or start a new run")


def _read_manifest(folder: Path) -> dict | None:
    """What a prepared folder says of itself; None if there is none, or it is damaged or of another format."""
    try:
        manifest = read_json(folder / "manifest.json", SHAPE)
    except (OSError, ValueError, RecursionError):
        return None
    checksum = manifest.pop("checksum")
    endings = ["", *(f"-{kind}" for kind, names in LABELS.items() if manifest[names])]
    files = {f"{split}{ending}.npy" for split in manifest["splits"] for ending in endings}
    complete = {"train.npy", "test.npy"} <= files <= manifest["checksums"].keys()
    return manifest if complete and checksum == digest(manifest) and manifest["format"] == FORMAT else None


def _is_whole(folder: Path, manifest: dict) -> bool:
    """Whether all arrays have their checksums; those of verified size and modification time are not read."""
    record, checksums = folder / "verified.json", manifest["checksums"]
    states = [(folder / name).stat() for name in checksums if (folder / name).is_file()]
    verified = [checksums, [[state.st_size, state.st_mtime_ns] for state in states]]
    with suppress(OSError, ValueError, RecursionError):
        if json.loads(read_bytes(record)) == verified:
            return True
    for name, checksum in checksums.items():
        if not (folder / name).is_file() or says_empty(folder / name) or _checksum(folder / name) != checksum:
            print(f"{folder / name} is damaged")
            return False
    with suppress(OSError):  # a read-only folder is verified each time
        write_json(record, verified)
    return True


def _checksum(path: Path) -> int:
    checksum = 0  # CRC-32
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _open(folder: Path, manifest: dict, name: str) -> Dataset:
    images = {split: ImageFile(folder / f"{split}.npy") for split in manifest["splits"]}
    names, labels = {of: tuple(manifest[of]) for of in LABELS.values()}, {kind: {} for kind in LABELS}
    for kind, of in LABELS.items():
        for split in images if names[of] else ():
            labels[kind][split] = _read_labels(folder / f"{split}-{kind}.npy", len(images[split]), names[of])
    return Dataset(name, manifest["title"], digest(manifest["checksums"]), images, **labels, **names)


def _read_labels(path: Path, count: int, names: tuple[str, ...]) -> np.ndarray:
    """The attributes, or the classes, of so many images, of those names; `UsageError` if they are not."""
    labels = read_arrays(path).get("images", np.empty(0))
    if path.stem.endswith("attributes"):
        fits = labels.dtype == bool and labels.shape == (count, len(names))
    else:
        fits = labels.dtype == np.int64 and labels.shape == (count,) and np.isin(labels, range(len(names))).all()
    require(fits, str(path), describe(labels), f"labels of {count:,} images; delete its folder to prepare it anew")
    return labels


def _prepare(source: Source, folder: Path, identity: str | None, known_as: str, same: bool) -> dict:
    """Read a source into a prepared folder, which appears only once it is complete; its manifest.

    What is there gets the name that it is `known_as` behind its own, or is replaced if it is of the same source or has
    the same data. A `UsageError`, and nothing has changed, if the source turns out to have another identity than is
    wanted.
    """
    total = sum(map(len, source.splits.values()))
    temporary, bad, hashes = temporary_of(folder), [], {}  # of images, by split
    killed = folder.parent.glob(TEMPORARY.format(glob.escape(folder.name)))
    for left in (*killed, folder.with_name(f".{folder.name}.tmp")):  # the latter by an older version
        remove(left)
    others = {*multiprocessing.active_children()}  # no readers
    temporary.mkdir(parents=True)
    try:
        need, free = total * source.image_size**2 * source.channels, shutil.disk_usage(temporary).free
        if need > free:
            raise UsageError(f"{folder} would take {need:,} bytes, and {free:,} are free; make room")
        for note in source.notes:
            print(note)
        with progress_bar(total=total, title=f"preparing {source.title}", unit="img", leave=True) as bar:
            if bar.disable:
                print(f"preparing {source.title}: {total:,} images", flush=True)
            for split in source.splits:
                hashes[split] = _write_split(temporary, source, split, bar, bad)
        seen = set(hashes.pop("train"))
        for split, of in hashes.items():
            if shared := sum(image in seen for image in of):
                print(f"{source.title}: {shared:,} of {len(of):,} {split} images are training images as well")
        for of, name in NAMES.items():
            if (names := getattr(source, of)) and source.name not in DATA_SETS:
                write_json(temporary / name, list(names))
        if bad:
            said = f"{list_unusable(bad, total)}; left out, and all named in {folder / SKIPPED}"
            tqdm.write(f"warning: {source.title}: {said}", file=sys.stderr)
        manifest = {
            "format": FORMAT,
            "title": source.title,
            "fingerprint": source.fingerprint,
            "splits": list(source.splits),
            "checksums": {path.name: _checksum(path) for path in sorted(temporary.iterdir())},
            "attribute_names": list(source.attribute_names),
            "class_names": list(source.class_names),
        }
        if bad:
            write_csv(temporary / SKIPPED, ("file", "reason"), bad)
        _require_identity(source, manifest["checksums"], identity)
        write_json(temporary / "manifest.json", {**manifest, "checksum": digest(manifest)})
        same = same or known_as == digest(manifest["checksums"])[:8]  # of files whose times have changed
        replaced = same and not folder.is_symlink()  # what a link leads to stays
        older = folder if replaced else folder.with_name(f"{folder.name}-{known_as}")
        remove(older)
        if os.path.lexists(folder):
            purpose = "" if older.name.endswith(DAMAGED) else " for runs on it"
            print(f"{source.title}: what was prepared has changed or is damaged; it stays in {older}{purpose}")
            folder.rename(older)
        temporary.rename(folder)
        return manifest
    except BaseException as error:
        with signals_held(getattr(signal, "SIGCHLD", signal.SIGINT)):  # by which PyTorch hears of killed readers
            for reader in {*multiprocessing.active_children()} - others:
                reader.kill()
                reader.join()
            remove(temporary)
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            raise UsageError("a process that reads images was killed, perhaps for lack of memory") from error
        raise


@contextmanager
def signals_held(*others: int) -> Iterator[None]:
    """A block, in the main thread, in which the signals to end, and others, wait; what is forked in it ignores them."""
    waiting, before = [], {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in {signal.SIGINT, *signals_to_end(), *others}:
                before[number] = signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)


def _end_with_parent(worker: int) -> None:
    """A process that reads images leaves signals to its parent, which kills it, and on Linux ends if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    for number in (signal.SIGINT, *signals_to_end()):
        signal.signal(number, signal.SIG_IGN)


def _write_split(folder: Path, source: Source, split: str, bar: tqdm, bad: list) -> list[int]:
    """Write the arrays of a split; what cannot be used is added to `bad`. A hash of each image comes back."""
    items, shape = source.splits[split], (source.image_size, source.image_size, source.channels)
    rows, hashes = [], []
    workers = CORES if len(items) >= SERIAL else 0
    generator = torch.Generator()  # PyTorch's own is left as it is
    options = {"num_workers": workers, "worker_init_fn": _end_with_parent, "generator": generator}
    with signals_held():
        chunks = iter(DataLoader(items, READ_AT_A_TIME, collate_fn=source.read, **options))
    # Written, not mapped: on a full disk a mapped file ends the process without a word.
    with atomic_write(folder / f"{split}.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(items), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for item, result in zip(items, chain.from_iterable(chunks), strict=True):
            bar.update()
            if isinstance(result, OSError):  # left out, it would stay so when the system's trouble is over
                raise result
            if isinstance(result, str):
                bad.append([item, result])
            else:
                image, row = result if isinstance(result, tuple) else (result, source.labels.get(item))
                pixels = with_channels(image, source.channels).tobytes()
                file.write(pixels)
                hashes.append(hash(pixels))
                rows.append(row)
        if not rows:
            said = f"no {split} image can be used at --image-size {source.image_size}"
            raise UsageError(f"{source.title}: {said}; {list_unusable(bad, bar.total)}")
        file.seek(0)
        header["shape"] = (len(rows), *shape)
        np.lib.format.write_array_header_1_0(file, header)  # as long as the one before: NumPy leaves room
    for kind, names, dtype in (("attributes", source.attribute_names, bool), ("classes", source.class_names, np.int64)):
        if names:
            with atomic_write(folder / f"{split}-{kind}.npy", "wb") as file:
                np.save(file, np.array(rows, dtype))
    return hashes


def list_unusable(bad: list, total: int) -> str:
    """How many of so many images cannot be used, and the first of them; `bad` are pairs of a name and a reason."""
    shown, small = "; ".join(f"{name!r} ({why})" for name, why in bad[:5]), sum(TOO_SMALL in why for _, why in bad)
    advice = f"; {small} of them are too small: only what is prepared or trained with --upscale takes such"
    return f"{len(bad)} of {total} images cannot be used: {shown}{advice if small else ''}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help=f"{', '.join(DATA_SETS)}, a folder of images, or a .npy or .npz file")
    parser.add_argument("--image-size", type=int, help="side in pixels [main.py's: %(default)s]")
    parser.add_argument("--faces", type=int, help="faces to train on [main.py's: %(default)s]")
    parser.add_argument("--classes", action=argparse.BooleanOptionalAction, help="sub-folders are classes [yes]")
    parser.add_argument("--channels", type=int, default=0, help="1: grey, 3: in colour, 0: as the images are [0]")
    parser.add_argument("--upscale", action=argparse.BooleanOptionalAction, help="take smaller images as well [no]")
    parser.set_defaults(classes=True, **DEFAULTS[torch.cuda.is_available()])


def main(options: argparse.Namespace) -> None:
    largest = FACE if options.dataset == "celeba" else LARGEST_IMAGE
    require_whole(1, largest, **{"--image-size": options.image_size})
    require_whole(1, MAX_FACES, **{"--faces": options.faces})
    if options.dataset == "celeba":
        with one_at_a_time(CELEBA):
            if not celeba.has_celeba(CELEBA):  # another process may just have fetched it
                celeba.fetch(CELEBA)
    how = {name: getattr(options, name) for name in ("classes", "channels", "upscale")}
    dataset = open_dataset(options.dataset, options.image_size, options.faces, **how)
    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.images.items())
    print(f"{dataset.title}: {counts}; {dataset.label_count}; prepared under {DATA / 'prepared'}")
