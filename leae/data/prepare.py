"""Data sets as prepared uint8 arrays, and batches of them on the training device.

    uv run --extra celeba -m leae prepare celeba              fetch CelebA if it is not here, and prepare it
    uv run -m leae prepare path/to/images                     prepare a folder of images
    uv run -m leae prepare faces --faces 20000                render and prepare faces
    uv run -m leae prepare mnist --image-size 32              fetch and prepare MNIST; also fashion-mnist, cifar10

A data set is read once, on all cores, and kept under data/prepared/ as one uint8 array per split
[N, S, S, C] beside its attributes and a manifest; afterwards the arrays are mapped into memory. It is prepared
again when its source has changed.
"""

import argparse
import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from leae.data import celeba, faces, small_sets
from leae.data.images import FORMATS, SUFFIXES, UNREADABLE, TooSmall, read_square
from leae.distributed import first_before_others, rank
from leae.errors import UsageError, run_command
from leae.files import alone, whole_file, whole_folder
from leae.randomness import generator
from leae.training.settings import Parser, require, require_images

DATA = Path("data")
FORMAT = 2  # of the prepared folder; another number is prepared again
CHECKED = 2**26  # bytes of a prepared file under one checksum
CHECKED_AT_ONCE = 2**22  # of these, bytes that a thread has in memory
CELEBA_CROP = 128  # side in pixels of the square cut out of CelebA's 178×218, whatever size it is scaled to
HELD_OUT = 10  # one in so many images is held out where the source says nothing
FIRST_HELD_OUT_FACE = 1_000_000_000  # so that however many are trained on, the same are held out
BAD_SHARE = 0.01  # more unusable images than this are an error
CHUNK = 32  # images that a worker reads at a time
MAPPED_BYTES = 2**30  # a prepared array of more is read image by image, so that it does not fill the memory
SERIAL_SECONDS = 10.0  # of work for one process below which starting others would take longer


# --- sources: what there is to read, and how to read a part of it ----------------------------------------------


@dataclass(frozen=True)
class Source:
    """A data set before it is prepared.

    `read` takes some of a split's items and returns, for each, uint8 [S, S, C] with its attributes, or the reason
    why it cannot be used. It is called in other processes.
    """

    name: str  # what `find_source` is asked for to get this very source
    key: str  # the prepared folder's name
    title: str
    image_size: int  # side in pixels that images are cut and scaled to
    fingerprint: str  # changes when the source does
    splits: dict[str, list]
    read: Callable[[list], list]
    attribute_names: tuple[str, ...] = ()
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # by split; empty if `read` brings them
    channels: int = 3

    @property
    def identity(self) -> dict[str, str]:
        """What a run keeps of the data set that it is trained on."""
        return {"name": self.name, "title": self.title, "fingerprint": self.fingerprint}

    def require_batch(self, batch_size: int) -> None:
        """Refuse a batch of more images than there are to train on.

        Raises:
            UsageError: there are fewer.
        """
        count = len(self.splits.get("train", ()))
        require(count >= batch_size, "BATCH_SIZE", batch_size, f"at most the number of training images, {count}")


def read_files(root: Path, size: int, crop: int | None, items: list[str]) -> list:
    """Images below a folder: for each an array, or the reason why there is none."""
    return [_read(root / item, size, crop) for item in items]


def read_members(archive: Path, size: int, crop: int | None, items: list[str]) -> list:
    """Images in a zip, read without unpacking it: for each an array, or the reason why there is none."""
    results, opened = [], _open_zip(archive, archive.stat().st_mtime_ns)
    for item in items:
        try:
            with opened.open(item) as file:
                results.append(_read(file, size, crop))
        except (*celeba.UNREADABLE, *UNREADABLE) as error:
            results.append(_reason(error))
    return results


@lru_cache(maxsize=1)
def _open_zip(archive: Path, changed: int) -> zipfile.ZipFile:
    """An open zip. Its table of contents takes seconds to read at CelebA's size, so a process reads it once."""
    return zipfile.ZipFile(archive)


def _read(file, size: int, crop: int | None):
    try:
        return read_square(file, size, crop)
    except UNREADABLE as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"unreadable: none of {', '.join(FORMATS)}"
    kind = "" if isinstance(error, TooSmall) else "unreadable: "
    return f"{kind}{str(error).splitlines()[0] if str(error) else type(error).__name__}"


def render(seed: int, size: int, items: list[int]) -> list:
    """Faces by their numbers, each with its attributes."""
    return [faces.render_face(seed, item, size) for item in items]


def faces_source(size: int, count: int, seed: int = 0) -> Source:
    """Rendered faces: the first `count` for training, a tenth as many from FIRST_HELD_OUT_FACE on held out."""
    held_out = range(FIRST_HELD_OUT_FACE, FIRST_HELD_OUT_FACE + max(1, count // HELD_OUT))
    splits = {"train": list(range(count)), "test": list(held_out)}
    renderer = Path(faces.__file__).read_bytes()
    return Source(
        name="faces",
        key=f"faces-{count}-{size}",
        title="rendered faces",
        image_size=size,
        fingerprint=_digest(renderer, seed, splits),
        splits=splits,
        read=partial(render, seed, size),
        attribute_names=faces.ATTRIBUTES,
    )


def small_source(name: str, size: int) -> Source:
    """MNIST, Fashion-MNIST, CIFAR-10 or scikit-learn's digits; downloaded if it is not here. See `leae.data.small_sets`."""
    small = small_sets.SMALL_SETS[name]
    with first_before_others():  # which may download it
        parts, classes = small_sets.load(name, DATA)
    contents = [array.tobytes() for part in parts.values() for array in (part.images, part.labels)]
    return Source(
        name=name,
        key=f"{name}-{size}",
        title=small.title,
        image_size=size,
        fingerprint=_digest(*(hashlib.sha256(content).hexdigest() for content in contents)),
        splits={split: [(split, number) for number in range(len(part.images))] for split, part in parts.items()},
        read=partial(small_sets.read, name, DATA, size),
        attribute_names=classes,
        channels=small.channels,
    )


def celeba_source(root: Path, size: int) -> Source:
    """CelebA, or photographs in its layout; see `leae.data.celeba`. Nothing is scaled up."""
    most = f"at most {CELEBA_CROP} for CelebA, of whose images the central {CELEBA_CROP}×{CELEBA_CROP} pixels are used"
    require(size <= CELEBA_CROP, "IMAGE_SIZE", size, most)
    layout = celeba.find(root)
    splits = celeba.read_splits(layout)
    names, table = celeba.read_attributes(layout)
    attributes = {}
    if names:
        without = [name for members in splits.values() for name in members if name not in table]
        if without:
            raise UsageError(
                f"{layout.lists[celeba.ATTRIBUTES][1]} has no row for {len(without)} images, say {without[0]}"
            )
        attributes = {split: np.stack([table[name] for name in members]) for split, members in splits.items()}
    if layout.archive:
        sources = {
            layout.archive,
            *(root / path if archive is None else archive for archive, path in layout.lists.values()),
        }
        read = partial(read_members, layout.archive, size, CELEBA_CROP)
    else:
        sources = {root / path for path in layout.images.values()} | {root / path for _, path in layout.lists.values()}
        read = partial(read_files, root, size, CELEBA_CROP)
    return Source(
        name="celeba" if root == DATA / "celeba" else str(root),
        key=f"{_slug(root)}-{size}",
        title=f"CelebA's layout in {root}" if root != DATA / "celeba" else "CelebA",
        image_size=size,
        fingerprint=_digest(_state(root, sources), CELEBA_CROP),
        splits={split: [layout.images[name] for name in members] for split, members in splits.items()},
        read=read,
        attribute_names=names,
        attributes=attributes,
    )


def folder_source(root: Path, size: int) -> Source:
    """Any folder of images, searched recursively; every tenth in the order of a hash of its name is held out.

    Hidden files and folders, whose names begin with a dot, are left out.
    """
    paths = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    if not paths:
        raise UsageError(f"{root} has no images; expected files that end in {', '.join(SUFFIXES)}, at any depth")
    # The order of the hashes is arbitrary but fixed, so that neighbouring names do not fall into one split.
    names = sorted((path.relative_to(root).as_posix() for path in paths), key=_digest)
    splits = {
        "train": sorted(name for number, name in enumerate(names) if number % HELD_OUT),
        "test": sorted(names[::HELD_OUT]),
    }
    return Source(
        name=str(root),
        key=f"{_slug(root)}-{size}",
        title=f"images in {root}",
        image_size=size,
        fingerprint=_digest(_state(root, paths)),
        splits={split: members for split, members in splits.items() if members},
        read=partial(read_files, root, size, None),
    )


def find_source(name: str, image_size: int, face_count: int = 50_000) -> Source:
    """The source that a data set's name means. Nothing is prepared yet.

    Args:
        name: "celeba", "faces", "auto" (CelebA if it lies under data/celeba, else faces), one of the small sets
            "mnist", "fashion-mnist", "cifar10" and "digits", or a folder's path. A folder that has CelebA's layout is
            read as such, any other as a plain folder of images.
        image_size: side in pixels that images are to be cut and scaled to.
        face_count: how many faces to render for training, should it come to that.

    Raises:
        UsageError: there is no such data set, or a part of it is missing; the message says what to do.
    """
    root = DATA / "celeba"
    if name == "auto":
        name = "celeba" if celeba.looks_like_celeba(root) else "faces"
        if name == "faces":
            print(
                "data: rendered faces, as there is no CelebA; to get it: uv run --extra celeba -m leae prepare celeba"
            )
        else:
            print(f"data: CelebA from {root}")
    if name == "faces":
        return faces_source(image_size, face_count)
    if name == "celeba":
        if not celeba.looks_like_celeba(root):
            raise UsageError(
                f"there is no CelebA in {root}; fetch it with uv run --extra celeba -m leae prepare celeba, or put "
                f"{celeba.IMAGES}.zip, {celeba.PARTITION}.txt and {celeba.ATTRIBUTES}.txt there"
            )
        return celeba_source(root, image_size)
    if name in small_sets.SMALL_SETS:
        return small_source(name, image_size)
    path = Path(name)
    if not name or not path.is_dir():
        known = ", ".join(("auto", "celeba", "faces", *small_sets.SMALL_SETS))
        raise UsageError(f"there is no data set {name!r}; choose {known}, or the path of a folder of images")
    return celeba_source(path, image_size) if celeba.looks_like_celeba(path) else folder_source(path, image_size)


def channels_of(name: str) -> int:
    """How many channels the images of a data set have: 1 for the grey small sets, 3 for everything else."""
    return small_sets.SMALL_SETS[name].channels if name in small_sets.SMALL_SETS else 3


def _slug(root: Path) -> str:
    """A folder name for a source: readable, and different for different places."""
    return "celeba" if root == DATA / "celeba" else f"{root.resolve().name}-{_digest(str(root.resolve()))[:8]}"


def _state(root: Path, paths) -> list:
    """Name, size and time of change of every file, in order.

    Raises:
        UsageError: one of them has just vanished.
    """
    try:
        return sorted((str(p.relative_to(root)), (s := p.stat()).st_size, s.st_mtime_ns) for p in paths)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror}); leave {root} as it is") from error


def _digest(*parts) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


# --- preparing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A prepared data set. Arrays are memory-mapped and read-only.

    Attributes:
        title: what it is, for people.
        images: uint8 [N, S, S, C] by split; "train" and "test" are always there, CelebA has "valid" as well.
        attributes: bool [N, A] by split, empty if the source has none.
        attribute_names: the names of the A attributes.
    """

    title: str
    images: dict[str, np.ndarray]
    attributes: dict[str, np.ndarray]
    attribute_names: tuple[str, ...]


def open_dataset(source: Source) -> Dataset:
    """A source as a data set, prepared first if it is not, if the source has changed since, or if it is damaged.

    Raises:
        UsageError: it cannot be prepared; the message says what is wrong.
    """
    folder = DATA / "prepared" / source.key
    with first_before_others():
        if not _is_prepared(source, folder):
            with alone(folder.with_name(f".{source.key}.lock")):
                if not _is_prepared(source, folder, quiet=False):  # another process may just have done it
                    _prepare(source, folder)
    return _open(folder, _read_manifest(folder))


def _is_prepared(source: Source, folder: Path, quiet: bool = True) -> bool:
    """Whether a folder holds the source as it is, to the byte as it was prepared."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return False
    if manifest["fingerprint"] != source.fingerprint:
        outdated = "changed since it was prepared"
    elif damaged := _first_damaged(folder, manifest["files"]):
        outdated = f"{damaged} is damaged"
    else:
        return True
    if not quiet:
        print(f"{source.title}: {outdated}; preparing it again")
    return False


def _prepare(source: Source, folder: Path) -> None:
    """Read every split of a source into a new prepared folder, which appears only once it is complete."""
    if "train" not in source.splits or "test" not in source.splits:
        count = sum(map(len, source.splits.values()))
        raise UsageError(f"{source.title}: {count} images make no train and test split; at least two are needed")
    total = sum(map(len, source.splits.values()))
    bad = []
    _require_room(folder, total * source.image_size**2 * source.channels)
    with (
        whole_folder(folder) as temporary,
        tqdm(total=total, desc=f"preparing {source.title}", unit="img") as bar,
    ):
        for split, items in source.splits.items():
            attributes = source.attributes.get(split)
            kept, kept_attributes = 0, []
            # Written, not mapped: on a full disk a mapped file ends the process without a word.
            with whole_file(temporary / f"{split}.npy", "wb") as file:
                _write_header(file, len(items), source)
                for number, (item, result) in enumerate(zip(items, _read_all(source.read, items), strict=True)):
                    bar.update()
                    if isinstance(result, str):
                        bad.append((item, result))
                        if len(bad) > BAD_SHARE * total:
                            raise UsageError(f"{source.title}: {_shown(bad, total)}; at most {BAD_SHARE:.0%} may be")
                        continue
                    image, known = result if isinstance(result, tuple) else (result, None)
                    file.write(np.ascontiguousarray(image))
                    kept += 1
                    if source.attribute_names:
                        kept_attributes.append(known if attributes is None else attributes[number])
                if kept == 0:
                    raise UsageError(
                        f"{source.title}: none of the {len(items)} {split} images can be used: {bad[-1][1]}"
                    )
                file.seek(0)
                _write_header(file, kept, source)  # as long as the one before: NumPy leaves room for the count
            if source.attribute_names:
                with whole_file(temporary / f"{split}-attributes.npy", "wb") as file:
                    np.save(file, np.array(kept_attributes, dtype=bool))
        if bad:
            bar.write(f"warning: {source.title}: {_shown(bad, total)} and left out", file=sys.stderr)
        manifest = {
            "format": FORMAT,
            "title": source.title,
            "fingerprint": source.fingerprint,
            "splits": list(source.splits),
            "files": {path.name: _checksums(path) for path in sorted(temporary.glob("*.npy"))},
            "attribute_names": list(source.attribute_names),
            "skipped": [[str(item), reason] for item, reason in bad],
        }
        with whole_file(temporary / "manifest.json") as file:
            json.dump({**manifest, "checksum": _digest(manifest)}, file, indent=2)


def _require_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        UsageError: fewer bytes are free.
    """
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UsageError(
            f"{folder} would take {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; make room, or choose fewer "
            f"or smaller images"
        )


def _write_header(file: IO[bytes], count: int, source: Source) -> None:
    """What precedes the pixels of `count` images in an .npy file."""
    shape = (count, source.image_size, source.image_size, source.channels)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _shown(bad: list[tuple], total: int) -> str:
    """What is wrong with the first of the images that cannot be used."""
    names = [item if str(item).isprintable() else repr(item) for item, _ in bad[:5]]
    shown = "; ".join(f"{name} ({reason})" for name, (_, reason) in zip(names, bad, strict=False))
    return f"{len(bad)} of {total} images cannot be used: {shown}{'; …' if len(bad) > 5 else ''}"


def _read_all(read: Callable[[list], list], items: list) -> Iterator:
    """Results of reading all items, in order, on all cores if that pays."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), len(chunks))
    started = time.perf_counter()
    yield from read(chunks.pop(0))
    if workers < 2 or (time.perf_counter() - started) * len(chunks) < SERIAL_SECONDS:
        for chunk in chunks:
            yield from read(chunk)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        pending = deque()
        for chunk in chunks:
            pending.append(executor.submit(read, chunk))
            if len(pending) > 4 * workers:  # bounds what waits in memory
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise UsageError("a process that read images was ended from outside, for want of memory perhaps") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave interrupts to the process that started this one, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _read_manifest(folder: Path) -> dict | None:
    """What a prepared folder says of itself; None if there is none, or it is damaged or of another format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        checksum = manifest.pop("checksum")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return manifest if checksum == _digest(manifest) and manifest["format"] == FORMAT else None


def _checksums(path: Path) -> list[int]:
    """The CRC-32 of every CHECKED bytes of a file, by several threads."""
    starts = range(0, max(path.stat().st_size, 1), CHECKED)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(partial(_checksum, path), starts))


def _checksum(path: Path, start: int) -> int:
    checksum, stop = 0, start + CHECKED
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < stop and (block := file.read(min(CHECKED_AT_ONCE, stop - file.tell()))):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _first_damaged(folder: Path, files: dict[str, list[int]]) -> Path | None:
    """The first of the files that is gone, or not what it was when the checksums were taken."""
    for name, checksums in files.items():
        path = folder / name
        if not path.is_file() or _checksums(path) != checksums:
            return path
    return None


def _open(folder: Path, manifest: dict) -> Dataset:
    splits, names = manifest["splits"], tuple(manifest["attribute_names"])
    return Dataset(
        title=manifest["title"],
        images={split: np.load(folder / f"{split}.npy", mmap_mode="r") for split in splits},
        attributes={split: np.load(folder / f"{split}-attributes.npy") for split in splits} if names else {},
        attribute_names=names,
    )


# --- batches ---------------------------------------------------------------------------------------------------


def to_float(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, S, S, C] → float32 [N, C, S, S] in [0, 1] on the device, channels-last in memory."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=("C", "W")))  # copies what is mapped read-only
    return images.to(device).permute(0, 3, 1, 2).float() / 255


class Batches:
    """Shuffled training batches, cut on the device. A step's batch is a function of (seed, step) alone.

    Every epoch goes through all images once, in an order drawn from (seed, epoch); the last images that do not
    fill a batch are left out of that epoch. Where several processes share a batch, each cuts its own rows.

    The whole array is kept on a GPU that has room for it. Otherwise batches are read from its file, for a GPU one step
    ahead and by another thread; of a file beyond `mapped_bytes` nothing but the batches is in memory.

    Args:
        images: uint8 [N, S, S, C].
        batch_size: images per batch, of all processes together.
        seed: of the order.
        device: where batches are wanted.
        mapped_bytes: larger arrays than this are read image by image.

    Raises:
        UsageError: fewer images than one batch, or a batch that the processes cannot share evenly.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device,
        mapped_bytes: int = MAPPED_BYTES,
    ):
        if len(images) < batch_size:
            raise UsageError(f"{len(images)} training images do not fill one batch of {batch_size}; lower BATCH_SIZE")
        if batch_size % world_size():
            raise UsageError(
                f"BATCH_SIZE is {batch_size}, which {world_size()} processes cannot share evenly; make it a multiple"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.steps_per_epoch = len(images) // batch_size
        resident = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self.images = torch.from_numpy(np.array(images)).to(device) if resident else images
        self.epoch, self.order = None, None
        self.ahead = ThreadPoolExecutor(1) if device.type == "cuda" and not resident else None
        self.reading = {}  # step → what the other thread reads for it
        streamed = isinstance(images.base, mmap.mmap) and images.nbytes > mapped_bytes and hasattr(os, "preadv")
        self.file = open(images.filename, "rb", buffering=0) if streamed and not resident else None  # noqa: SIM115

    def at(self, step: int) -> Tensor:
        """The batch of a step, or this process's rows of it: float32 [n, C, S, S] in [0, 1] on the device."""
        if isinstance(self.images, Tensor):
            return to_float(self.images[self._chosen(step)], self.device)
        if self.ahead is None:
            return to_float(self.read(step), self.device)
        rows = self.reading.pop(step, None) or self.ahead.submit(self._read_pinned, self._chosen(step))
        self.reading = {step + 1: self.ahead.submit(self._read_pinned, self._chosen(step + 1))}
        return to_float(rows.result().to(self.device, non_blocking=True), self.device)

    def read(self, step: int) -> np.ndarray:
        """The same as it lies in the file: uint8 [n, S, S, C]."""
        return self._read(self._chosen(step))

    def _chosen(self, step: int) -> np.ndarray | Tensor:
        """The numbers of the images of a step, as the array wants them."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            order = torch.randperm(len(self.images), generator=generator(self.seed, "order", epoch))
            self.order = order.to(self.device) if isinstance(self.images, Tensor) else order.numpy()
            self.epoch = epoch
        size = self.batch_size // world_size()
        first = batch * self.batch_size + rank() * size
        return self.order[first : first + size]

    def _read(self, chosen: np.ndarray) -> np.ndarray:
        if self.file is None:
            return self.images[chosen]
        rows = np.empty((len(chosen), *self.images.shape[1:]), np.uint8)
        for row, number in zip(rows, chosen.tolist(), strict=True):
            if os.preadv(self.file.fileno(), [row], self.images.offset + number * row.nbytes) < row.nbytes:
                raise UsageError(f"{self.images.filename} has become shorter; delete its folder to prepare it again")
        return rows

    def _read_pinned(self, chosen: np.ndarray) -> Tensor:
        """Rows in memory that the GPU can copy by itself."""
        return torch.from_numpy(self._read(chosen)).pin_memory()


def main() -> None:
    gpu = torch.cuda.is_available()  # the defaults are those of main.py
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "dataset", help="celeba, faces, mnist, fashion-mnist, cifar10, digits, or the path of a folder of images"
    )
    parser.add_argument("--image-size", type=int, default=128 if gpu else 64, help="side in pixels [%(default)s]")
    parser.add_argument("--faces", type=int, default=50_000 if gpu else 8_192, help="faces to train on [%(default)s]")
    chosen = parser.parse_args()
    require_images(chosen.image_size, chosen.faces, ("--image-size", "--faces"))
    if chosen.dataset == "celeba" and not celeba.looks_like_celeba(DATA / "celeba"):
        with alone(DATA / ".celeba.lock"):
            if not celeba.looks_like_celeba(DATA / "celeba"):  # another process may just have fetched it
                celeba.fetch(DATA / "celeba")
    dataset = open_dataset(find_source(chosen.dataset, chosen.image_size, chosen.faces))
    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.images.items())
    print(f"{dataset.title}: {counts}; {len(dataset.attribute_names)} attributes; prepared under {DATA / 'prepared'}")


if __name__ == "__main__":
    run_command(main)
