"""What the sub-folders of a folder of images mean, by the convention of torchvision's ImageFolder.

FOLDER/train/CLASS/…, FOLDER/test/CLASS/… and perhaps FOLDER/val/CLASS/…    splits and classes
FOLDER/CLASS/…                                                              classes
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from leae.files import as_utf8, digest

SPLITS = {"train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid"}  # by folder
SPLITS |= {"test": "test", "testing": "test"}
USES = {"train": "train on", "valid": "validate", "test": "test"}  # what a split's images are for
TEST_EVERY = 10  # one image in so many is for testing where there are no splits
NAMED = 5  # at most so many of the things that a line is about are named in it


def read_layout(
    root: Path, names: list[str], classes: bool = True
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Images by split, the class of each image, and lines that say what was understood and what is unusual.

    `names` are the images' paths below the folder `root`, sorted. Its sub-folders, or those of its only sub-folder, are
    splits if train and another one have images; without test, validation images are for testing. Else `split_names`
    makes them. What lies below are classes, unless these are unwanted, if every image lies in one, and there are
    several, but fewer than images.
    """
    tops, below = {top_of(name) for name in names}, [name.partition("/")[2] for name in names]
    if len(tops) == 1 and {"train"} < set(splits_in(below).values()):  # an archive was unpacked into the root
        [top] = tops
        splits, class_of, notes = read_layout(root / top, below, classes)
        splits = {split: [f"{top}/{name}" for name in members] for split, members in splits.items()}
        return splits, {f"{top}/{name}": its for name, its in class_of.items()}, notes
    notes = []
    inside = {name: name for name in names}  # by image its path below its split's folder, or below the root
    split_of = splits_in(names)
    if split_of and not {"train"} < set(split_of.values()):
        notes.append(f"no splits (train and test, or val), as images are in {listed(split_of)} alone")
        split_of = {}
    if split_of:
        if "test" not in split_of.values():
            split_of = {top: "test" if split == "valid" else split for top, split in split_of.items()}
        inside = {name: name.partition("/")[2] for name in names if top_of(name) in split_of}
        splits = {split: [name for name in inside if split_of[top_of(name)] == split] for split in USES}
        splits = {split: members for split, members in splits.items() if members}
        if outside := [name for name in names if name not in inside]:
            notes.append(f"what lies outside of {', '.join(split_of)} is left out: {listed(outside)}")
    else:
        splits = split_names(names)
        if deeper := split_folders(names):
            notes.append(f"the splits in {listed(deeper)} are not used; name such a folder as the data set to use them")

    class_of = {name: top_of(rest) for name, rest in inside.items()}
    found = set(class_of.values()) if classes else set()
    loose = [name for name, its in class_of.items() if not its]
    if loose or not 1 < len(found) < len(class_of):
        if loose and len(found) > 1:
            notes.append(f"sub-folders are no classes, as some images lie in none: {listed(loose)}")
        class_of, found = {}, set()
    else:
        used = {name.removesuffix(rest) + class_of[name] for name, rest in inside.items()}
        folders = [path for top in split_of or ["."] for path in (root / top).glob("[!.]*") if path.is_dir()]
        if empty := {path.relative_to(root).as_posix() for path in folders} - used:
            notes.append(f"no images in {listed(sorted(empty))}")
        for split, members in splits.items():
            if missing := found - {class_of[name] for name in members}:
                notes.append(f"no {split} image is of {listed(sorted(missing))}")
    counts = ", ".join(f"{len(members):,} to {USES[split]}" for split, members in splits.items())
    understood = f"{len(found):,}" if found else "no"
    return splits, class_of, [f"{as_utf8(str(root))}/: {note}" for note in (f"{understood} classes, {counts}", *notes)]


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Names for training and for testing, sorted: for testing those whose hash is in the lowest tenth of all hashes.

    So each name alone decides, and what is added later moves no other. Only where this would leave a split empty, the
    name with the lowest hash is for testing, or the one with the highest for training.
    """
    names = sorted(names, key=digest)
    count = sum(int(digest(name), 16) < 2**256 // TEST_EVERY for name in names)
    count = min(max(count, 1), len(names) - 1)
    return {"train": sorted(names[count:]), "test": sorted(names[:count])}


def splits_in(names: Iterable[str]) -> dict[str, str]:
    """The top folders of some paths whose names are those of splits, sorted: which split each is."""
    return {top: SPLITS[top.lower()] for top in sorted(set(map(top_of, names))) if top.lower() in SPLITS}


def split_folders(names: Iterable[str]) -> list[str]:
    """The folders that have sub-folders called train and test, or val, on some paths."""
    found = defaultdict(set)
    for *folders, _ in (name.split("/") for name in names):
        for depth, folder in enumerate(folders):
            if folder.lower() in SPLITS:
                found["/".join(folders[:depth])].add(SPLITS[folder.lower()])
    return [folder for folder, splits in found.items() if {"train"} < splits]


def top_of(path: str) -> str:
    """The first folder of a path; empty if it has none."""
    return path.partition("/")[0] if "/" in path else ""


def listed(names: Collection[str]) -> str:
    """The first of some names, and how many there are besides."""
    shown = ", ".join(repr(as_utf8(name)) for name in list(names)[:NAMED])
    return shown + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
