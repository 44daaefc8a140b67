"""What there is to prepare, and how to read it: CelebA, folders of images, small data sets and rendered faces."""

import errno
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from leae.data import celeba, faces, small_sets
from leae.data.folders import TEST_EVERY, read_layout
from leae.data.images import FACE, MAX_BYTES, SUFFIXES, is_grey, read_square, reason
from leae.data.small_sets import SmallSet, load_arrays
from leae.errors import UsageError, require, require_whole
from leae.files import as_utf8, digest, names_file, one_at_a_time, read_bytes, short_name

DATA = Path("data")
CELEBA = DATA / "celeba"
MAX_FACES = 10**6  # to train on
MAX_NAME = 2000  # letters of an attribute's or a class's name; what a folder may have, as UTF-8 escapes
ARRAYS = (".npy", ".npz")
OF_FILE = (None, errno.EINVAL)  # numbers of an OSError: of Pillow's, of a damaged zip
FACE_SEED = 0
FIRST_TEST_FACE = 1_000_000_000  # so that test faces begin alike, however many are trained on


@dataclass(frozen=True)
class Source:
    """A data set before it is prepared."""

    name: str  # what `find_source` takes to give this very source
    key: str  # the prepared folder's name
    title: str
    image_size: int  # S, side in pixels that images are cut and scaled to
    fingerprint: str  # changes when the source does
    splits: dict[str, list]
    # For each of some items: uint8 [S, S, 1 or 3], alone or with its labels, or why there is none, as a text or an
    # OSError of the system. Workers call it.
    read: Callable[[list], list]
    attribute_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # a source has attributes or classes, or neither
    # By item its attributes, bool [A], or its class's number, unless `read` brings them.
    labels: dict[str, np.ndarray | int] = field(default_factory=dict)
    channels: int = 3  # C, that images get
    notes: tuple[str, ...] = ()  # lines that are said when it is prepared


def find_source(
    name: str, image_size: int, face_count: int = 50_000, classes: bool = True, channels: int = 0, upscale: bool = False
) -> Source:
    """The source that a data set's name means. Nothing is prepared yet; a small set is downloaded.

    The name is one of DATA_SETS, "auto" (CelebA if it lies under data/celeba, else faces), or the path of arrays or a
    folder, perhaps in CelebA's layout. Images will have `image_size` pixels a side and the channels of `channels_of`;
    `face_count` faces would be rendered for training. Without `classes`, sub-folders and arrays' labels are none; with
    `upscale` small images of either are scaled up. `UsageError` if there is no such data set, or a part is missing.
    """
    if name == "auto":
        name = "celeba" if celeba.has_celeba(CELEBA) else "faces"
        if name == "faces":
            print(f"data: no CelebA, so faces are rendered; to fetch it: {celeba.COMMAND}")
    if name in DATA_SETS:  # "./digits" is a folder, "digits" is none
        source = DATA_SETS[name].find(name, image_size, face_count)
    elif name and celeba.has_celeba(Path(name)):
        source = find_celeba(name, image_size, face_count, upscale)
    elif name and Path(name).is_dir():
        source = folder_source(name, image_size, classes, upscale)
    elif Path(name).suffix.lower() in ARRAYS and Path(name).is_file():
        least = 1 if upscale else image_size
        source = find_small_set(lambda _: load_arrays(Path(name), classes, least), name, image_size, 0)
    else:
        raise UsageError(f"there is no data set {name!r}; choose auto, {', '.join(DATA_SETS)}, a folder, .npy or .npz")
    if long := [label for label in (*source.attribute_names, *source.class_names) if len(label) > MAX_NAME]:
        raise UsageError(f"{source.title}: a name has {len(long[0]):,} letters, {long[0][:20]}…; at most {MAX_NAME:,}")
    channels = channels_of(name, channels)
    key = source.key if channels == source.channels else f"{source.key}-{channels}-channels"
    said = "grey: 1 channel" if channels == 1 else "in colour: 3 channels"
    notes = (*(f"{understood}, {said}" for understood in source.notes[:1]), *source.notes[1:])
    return replace(source, channels=channels, key=key, notes=notes)


def channels_of(name: str, channels: int = 0) -> int:
    """How many channels a data set's images get: 1, 3, or with 0 as they have, those of a folder 1 if all are grey."""
    require(channels in (0, 1, 3), "channels", channels, "1 or 3, or 0 for as many as the images have")
    if channels or name in DATA_SETS:
        return channels or DATA_SETS[name].channels
    root = Path(name)
    if root.suffix.lower() in ARRAYS and root.is_file():
        return load_arrays(root, classes=False).images["train"].shape[3]
    if name in ("", "auto") or not root.is_dir() or celeba.has_celeba(root):
        return 3
    greys = (grey for item in image_names(root) if (grey := is_grey(root / item)) is not None)
    return 1 if next(greys, False) and all(greys) else 3


def find_faces(name: str, size: int, count: int) -> Source:
    """Rendered faces: `count` for training; for testing a tenth as many, but at least 4,096 or half of `count`."""
    require_whole(1, MAX_FACES, FACES=count)
    test_count = max(1, count // TEST_EVERY, min(4096, count // 2))  # many, for the intervals of what is measured
    splits = {"train": list(range(count)), "test": list(range(FIRST_TEST_FACE, FIRST_TEST_FACE + test_count))}
    fingerprint, read = digest(faces.VERSION, FACE_SEED, count, test_count, size), partial(_render, size)
    key, title = f"faces-{count}-{size}", DATA_SETS[name].title
    return Source(name, key, title, size, fingerprint, splits, read, faces.ATTRIBUTES)


def _render(size: int, items: list[int]) -> list:
    return [faces.render_face(FACE_SEED, item, size) for item in items]


def find_small_set(load: Callable[[Path], SmallSet], name: str, size: int, face_count: int) -> Source:
    """A set that fits in memory, loaded from DATA or downloaded to it, or anybody's arrays, with its classes."""
    with one_at_a_time(DATA / short_name(Path(name))):
        small = load(DATA)
    splits = {split: [(split, number) for number in range(len(labels))] for split, labels in small.labels.items()}
    arrays = [array for split in splits for array in (small.images[split], small.labels[split])]
    # How they are scaled is a part of it.
    fingerprint = digest("Lanczos", *(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays))
    key, title = _folder_key(name, size, digest(small.classes)[:8]), f"images in {Path(name)}"
    if name in DATA_SETS:
        key, title = f"{name}-{size}", DATA_SETS[name].title
    read, notes = partial(small.read, size), (f"{title}: {len(small.classes) or 'no'} classes",)
    return Source(name, key, title, size, fingerprint, splits, read, (), small.classes, {}, arrays[0].shape[3], notes)


def find_celeba(name: str, size: int, face_count: int, upscale: bool = False) -> Source:
    """CelebA itself, or a folder in its layout; see `leae.data.celeba`."""
    root, key = Path(name), _folder_key(name, size, "upscaled" if upscale else "")
    title = f"CelebA's layout in {root}"
    if name in DATA_SETS:
        root, key, title = CELEBA, f"celeba-{size}", DATA_SETS[name].title
    require(size <= FACE, "image_size", size, f"at most {FACE} for CelebA, whose images are cut to that")
    found = celeba.find(root)
    fingerprint = digest(_states(root, found.files), FACE)
    read = partial(read_images, found.archive or root, size, upscale=upscale)
    return Source(name, key, title, size, fingerprint, found.splits, read, found.attribute_names, (), found.attributes)


def folder_source(name: str | Path, size: int, classes: bool = True, upscale: bool = False) -> Source:
    """Any folder of images, searched recursively; `read_layout` says what are its splits and, if wanted, its classes.

    Raises what `image_names` does.
    """
    root = Path(name)
    splits, class_of, notes = read_layout(root, image_names(root), classes)
    class_names = sorted(set(class_of.values()))
    # In an order by which the first images are of all sub-folders.
    splits = {split: sorted(members, key=digest) for split, members in splits.items()}
    numbers = {each: number for number, each in enumerate(class_names)}
    labels = {item: numbers[its] for item, its in class_of.items()}
    states = _states(root, (root / item for members in splits.values() for item in members))
    key = _folder_key(name, size, "classes" if class_names else "", "upscaled" if upscale else "")
    fingerprint = digest(states, splits, labels)
    title, read = f"images in {root}", partial(read_images, root, size, upscale=upscale)
    class_names, notes = tuple(map(as_utf8, class_names)), tuple(notes)
    return Source(str(name), key, title, size, fingerprint, splits, read, (), class_names, labels, notes=notes)


def image_names(root: Path) -> list[str]:
    """A folder's images, at any depth, as paths below it, sorted.

    What is hidden, by a dot before its name, is left out. `UsageError` if there are no images; OSError where a folder
    cannot be read.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; name one with images")
    paths = [path for path in visible_files(root) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        raise UsageError(f"{root} has no images; expected files that end in {', '.join(SUFFIXES)}, at any depth")
    return sorted(path.relative_to(root).as_posix() for path in paths)


def visible_files(root: Path) -> Iterator[Path]:
    """Files below a folder, those of linked folders too, but of each folder once: a link may lead back."""

    def fail(error: OSError):
        raise error

    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
        yield from (Path(folder, name) for name in files if not name.startswith(".") and real not in seen)
        seen.add(real)


def read_images(root: Path, size: int, items: list[str], upscale: bool = False) -> list:
    """Images below a folder, or in a zip, which is not unpacked: for each an array, or the reason why there is none.

    The latter is an OSError where the system refused a file, which may be a good one.
    """
    results = []
    for item in items:
        try:
            place = root if root.is_dir() else _open_zip(root, root.stat().st_mtime_ns, os.getpid())
            with names_file(place / item):
                content = read_bytes(place / item, MAX_BYTES)
            results.append(read_square(content, size, upscale))
        except MemoryError:
            raise
        except Exception as error:  # of decoders and decompressors, from files that are damaged, hostile or encrypted
            of_system = isinstance(error, OSError) and error.errno not in OF_FILE
            results.append(error if of_system else reason(error))
    return results


@lru_cache(maxsize=1)
def _open_zip(archive: Path, changed: int, process: int) -> zipfile.Path:
    """An open zip. Its table of contents takes seconds to read at CelebA's size, so a process reads it once.

    Each for itself: processes that share an open file move one another's place in it.
    """
    return zipfile.Path(archive)


def _folder_key(name: str | Path, size: int, *ways: str) -> str:
    """Readable, never hidden, and different for different places, and ways to read them."""
    root = Path(name).resolve()
    return "-".join(filter(None, [short_name(root).lstrip("."), digest(str(root))[:8], str(size), *ways]))


def _states(root: Path, paths: Iterable[Path]) -> list:
    """Name, size and modification time of each file, sorted."""
    states = ((path, path.stat()) for path in paths)
    return sorted((str(path.relative_to(root)), state.st_size, state.st_mtime_ns) for path, state in states)


@dataclass(frozen=True)
class NamedSet:
    """What is known of a data set that has a name before anything is read."""

    title: str
    channels: int  # of its images
    find: Callable[[str, int, int], Source]  # its name, an image's side in pixels and a number of faces → the source
    upscale: bool = True  # whether smaller images than asked for are scaled up


def _torchvision(reader: str, place: str, files: str) -> Callable[[str, int, int], Source]:
    return partial(find_small_set, partial(small_sets.load_torchvision, reader, place, files))


IDX = "the four files train-images-idx3-ubyte.gz, train-labels-…, t10k-images-… and t10k-labels-…"
DATA_SETS = {
    "celeba": NamedSet("CelebA", 3, find_celeba, upscale=False),
    "faces": NamedSet("rendered faces", 3, find_faces, upscale=False),
    # 60,000 + 10,000 images of 28×28 pixels, twice; 50,000 + 10,000 of 32×32; 1,618 + 179 of 8×8
    "mnist": NamedSet("MNIST", 1, _torchvision("MNIST", "MNIST/raw", IDX)),
    "fashion-mnist": NamedSet("Fashion-MNIST", 1, _torchvision("FashionMNIST", "FashionMNIST/raw", IDX)),
    "cifar10": NamedSet("CIFAR-10", 3, _torchvision("CIFAR10", "", "cifar-10-python.tar.gz")),
    "digits": NamedSet("scikit-learn's digits", 1, partial(find_small_set, small_sets.load_digits)),
}
