"""What happens to every kind of bad image, zip and list: a table, each row of which is tried."""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from leae.data import celeba, prepare
from leae.data.prepare import open_dataset
from leae.errors import UsageError
from tests.conftest import write_image
from tests.data.conftest import celeba_lists, count_of, write_celeba

SIZE = 16
RED = (200, 30, 40)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def red(mode="RGB", size=(40, 32)):
    return Image.new("RGB", size, RED).convert(mode)


def png_of_size(width, height):
    """A PNG of a few bytes that claims to have so many pixels."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


# File name → content, and what happens: the colour that it is used with, or the reason for which it is skipped.
IMAGES = {
    "truncated": ("a.jpg", stored(red(), "JPEG")[:-200], "Truncated"),
    "empty": ("a.png", b"", "unreadable: none of PNG"),
    "a text": ("a.png", b"not an image", "unreadable: none of PNG"),
    "a PNG called .jpg": ("a.jpg", stored(red()), RED),
    "a JPEG called .PNG": ("a.PNG", stored(red(), "JPEG", quality=98), RED),
    "PostScript called .jpg": ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EOF\n", "none of PNG"),
    "30,000 pixels wide": ("a.png", stored(red(size=(30_000, 20))), RED),
    "animated GIF called .png": (
        "a.png",
        stored(red(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 32), "blue")]),
        RED,
    ),
    "animated WebP": (
        "a.webp",
        stored(red(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 32), "blue")], lossless=True),
        RED,
    ),
    "a decompression bomb": ("a.png", png_of_size(60_000, 60_000), "3600000000 pixels"),
    "a smaller one": ("a.png", png_of_size(9_000, 9_000), "unreadable: "),
    "spaces in its name": ("two words .png", stored(red()), RED),
    "a newline in its name": ("two\nlines.png", stored(red()), RED),
    "a newline in a bad one's name": ("two\nlines.png", b"", r"'two\nlines.png' (unreadable"),
    "letters of other alphabets": ("Ψηφίο-数字-цифра.png", stored(red()), RED),
    "a name that is no text": (b"\xff\xfe.png", stored(red()), RED),
    "a bad one whose name is no text": (b"\xff\xfe.png", b"", r"'\udcff\udcfe.png' (unreadable"),
    "another suffix": ("a.txt", stored(red()), "left out"),
    "hidden": (".a.png", stored(red()), "left out"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_used_or_skipped_with_its_name(workplace, monkeypatch, capsys, kind):
    name, content, outcome = IMAGES[kind]
    pictures = workplace / "pictures"
    for number in range(9):
        write_image(pictures / "good" / f"{number}.png", 0)
    with open(os.path.join(os.fsencode(pictures), os.fsencode(name)), "wb") as file:
        file.write(content)
    monkeypatch.setattr(prepare, "BAD_SHARE", 0.2)
    dataset = open_dataset("pictures", SIZE)
    images = np.concatenate(list(dataset.images.values())).astype(int)
    others = images[np.abs(images - (0, 100, 50)).max(axis=(1, 2, 3)) > 4]
    said = capsys.readouterr().err
    assert len(images) - len(others) == 9
    if outcome == "left out":
        assert len(others) == 0
        assert "warning" not in said
    elif isinstance(outcome, str):
        assert len(others) == 0
        (warning,) = [line for line in said.splitlines() if "warning" in line]
        assert "1 of 10 images cannot be used: " in warning
        assert outcome in warning
    else:
        assert len(others) == 1
        assert np.abs(others - outcome).max() <= 3
        assert "warning" not in said


def jpeg(number):
    return stored(Image.new("RGB", (178, 218), (2 * number, 100, 50)), "JPEG", quality=98)


def write_zip(root, change):
    """CelebA's zip and lists, with every member written by `change(archive, name, content)`."""
    root.mkdir(parents=True)
    for name, text in celeba_lists().items():
        (root / name).write_text(text)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        for number in range(20):
            change(archive, f"{number:06d}.jpg", jpeg(number))
    return root / "img_align_celeba.zip"


def climbing(archive, name, content):
    archive.writestr(f"../../../img_align_celeba/{name}", content)


def absolute(archive, name, content):
    archive.writestr(f"/img_align_celeba/{name}", content)


def ordinary(archive, name, content):
    archive.writestr(f"img_align_celeba/{name}", content)


@pytest.mark.parametrize("names", [climbing, absolute])
def test_a_zip_with_names_that_lead_elsewhere_is_read_and_nothing_is_written_there(workplace, names):
    write_zip(workplace / "data" / "celeba", names)
    dataset = open_dataset("celeba", 64)
    assert {split: len(images) for split, images in dataset.images.items()} == {"train": 12, "valid": 3, "test": 5}
    assert not list(workplace.rglob("*.jpg"))
    assert not any((parent / "img_align_celeba").exists() for parent in workplace.parents)  # the root is one of them


def edit(path, old, new, count=1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))


def lie(path, field, number, size):
    """Another number in the directory's entry of the first member."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + field : entry + field + size] = number.to_bytes(size, "little")
    path.write_bytes(content)


UNREADABLE = "000000.jpg (unreadable: "
ZIPS = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-500]), "cannot be read as a zip"),
    "cut to nothing": (lambda path: path.write_bytes(b""), "cannot be read as a zip"),
    "an image damaged": (lambda path: edit(path, jpeg(0)[-40:], bytes(40)), UNREADABLE),
    "a size of 2 GB": (lambda path: lie(path, 24, 2**31, 4), "used"),  # its bytes are all there
    "a size too small": (lambda path: lie(path, 24, 100, 4), UNREADABLE),
    "a packed size too small": (lambda path: lie(path, 20, 100, 4), UNREADABLE),
    "another compression": (lambda path: lie(path, 10, 99, 2), UNREADABLE),
    "another checksum": (lambda path: lie(path, 16, 99, 4), UNREADABLE),
    "encrypted": (lambda path: lie(path, 8, 1, 2), UNREADABLE),
    "a place beyond its end": (lambda path: lie(path, 42, 2**31, 4), UNREADABLE),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_that_is_damaged_or_lies_is_refused_or_its_image_skipped(workplace, monkeypatch, capsys, kind):
    monkeypatch.setattr(prepare, "BAD_SHARE", 0.1)
    change, outcome = ZIPS[kind]
    change(write_zip(workplace / "data" / "celeba", ordinary))
    if outcome in ("used", UNREADABLE):
        dataset = open_dataset("celeba", 64)
        assert count_of(dataset) == (20 if outcome == "used" else 19)
        assert (UNREADABLE in capsys.readouterr().err) == (outcome == UNREADABLE)
    else:
        with pytest.raises(UsageError, match=outcome):
            open_dataset("celeba", 64)


def replaced(old, new):
    return lambda text: text.replace(old, new)


def added(line):
    return lambda text: text + line


def marked(text):
    return b"\xef\xbb\xbf" + text


ROW = b"000004.jpg 0\n"
PARTITION, ATTRIBUTES, CSV = "list_eval_partition.txt", "list_attr_celeba.txt", "list_eval_partition.csv"
LISTS = {  # what is done to which list, and what is said, or how many images there are
    "a row missing": (PARTITION, replaced(ROW, b""), 19),
    "a row too many": (PARTITION, added(b"000099.jpg 0\n"), r"21 images, of which 1 are not in .*, .* 000099.jpg"),
    "a row doubled": (PARTITION, added(ROW), "names 000004.jpg twice"),
    "in two splits": (PARTITION, added(b"000004.jpg 2\n"), "000004.jpg twice"),
    "another split": (PARTITION, replaced(ROW, b"000004.jpg 7\n"), "line 5: '000004.jpg 7'; expected .* 0, 1 or 2"),
    "a row of one word": (PARTITION, added(b"000004.jpg\n"), "line 21"),
    "empty": (PARTITION, lambda text: b"", "at least two are needed"),
    "lines that end as on Windows": (PARTITION, replaced(b"\n", b"\r\n"), 20),
    "lines that end as on old Macs": (PARTITION, replaced(b"\n", b"\r"), 20),
    "empty lines": (PARTITION, replaced(b"\n", b"\n\n"), 20),
    "a byte-order mark": (PARTITION, marked, 20),
    "no text": (PARTITION, lambda text: bytes(range(256)), "expected a file name"),
    "an attribute row missing": (
        ATTRIBUTES,
        lambda text: b"".join(line for line in text.splitlines(True) if b"000004" not in line),
        "no row for 1 images, for example 000004.jpg",
    ),
    "an attribute row too many": (ATTRIBUTES, added(b"000099.jpg 1 1\n"), 20),
    "an attribute row doubled": (ATTRIBUTES, added(b"000004.jpg 1 1\n"), "names 000004.jpg twice"),
    "an attribute row too short": (ATTRIBUTES, replaced(b"000004.jpg  1", b"000004.jpg"), "has not 2 values"),
    "an attribute of 2": (ATTRIBUTES, replaced(b"000004.jpg  1", b"000004.jpg 2"), "has not 2 values of 1 or -1"),
    "csv with a mark": (CSV, marked, 20),
    "csv with a quote left open": (CSV, replaced(b"000004", b'"0'), "line"),
    "csv of one endless field": (CSV, added(b"x" * 200_000), "field limit"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_is_used_or_refused_with_what_is_wrong(workplace, kind):
    name, change, outcome = LISTS[kind]
    write_celeba(workplace / "data" / "celeba", kind=name[-3:])
    path = workplace / "data" / "celeba" / name
    path.write_bytes(change(path.read_bytes()))
    if isinstance(outcome, int):
        dataset = open_dataset("celeba", 64)
        assert count_of(dataset) == outcome
        assert dataset.attribute_names == ("Smiling", "Eyeglasses")
    else:
        with pytest.raises(UsageError, match=outcome) as refusal:
            open_dataset("celeba", 64)
        assert "\n" not in str(refusal.value)


def test_a_list_of_gigabytes_is_refused_unread(workplace, monkeypatch):
    monkeypatch.setattr(celeba, "MOST_BYTES", 100)
    write_celeba(workplace / "data" / "celeba")
    with pytest.raises(UsageError, match=r"list_eval_partition.txt has more than 100 bytes"):
        open_dataset("celeba", 64)
