"""Images, zips and lists of every kind, good and bad: tables, each row of which is tried."""

import io
import os
import re
import resource
import signal
import struct
import tracemalloc
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader

from leae.data import images
from leae.data.images import is_grey, read_square
from leae.data.prepare import open_dataset
from leae.data.small_sets import fit
from leae.data.sources import read_images
from leae.errors import UsageError
from tests.conftest import number_of, write_image
from tests.data.conftest import attributes_of, count_of, numbers_of, write_celeba

RED, WHITE, GREY = (200, 30, 40), (255, 255, 255), (90, 90, 90)


def flat(mode="RGB", colour=RED, size=(40, 32)):
    return Image.new(mode, size, colour)


def stored(kind="PNG", image=None, **options):
    (image or flat()).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def claiming(width, height):
    """A PNG that claims to have so many pixels."""
    content = bytearray(stored())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return content


def with_exif(*segments):
    """A JPEG whose EXIF comes in segments of these lengths."""
    content = stored("JPEG")
    parts = (b"\xff\xe1" + struct.pack(">H", length + 8) + b"Exif\0\0" + bytes(length) for length in segments)
    return content[:2] + b"".join(parts) + content[2:]


def with_tags(count, length):
    """A TIFF with so many tags, all of which mean the same bytes."""
    data = stored("TIFF")
    entries = b"".join(struct.pack("<HHII", 1000 + n, 7, length, 8) for n in range(count))
    ifd = struct.pack("<H", count) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + length) + bytes(length) + ifd + data


def test_reading_an_image_has_a_limit_of_time_and_of_memory_which_ends_with_it(tmp_path, monkeypatch):
    (tmp_path / "slow.jpg").write_bytes(with_exif(*[60_000] * 60, *[4] * 300_000))
    (tmp_path / "large.tif").write_bytes(with_tags(20_000, 2**20))
    write_image(tmp_path / "sound.png", 5)
    monkeypatch.setattr("leae.data.images.SECONDS", 1)
    monkeypatch.setattr("leae.data.images.MEMORY", 2**30)
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    assert read_images(tmp_path, 16, ["slow.jpg"]) == ["takes longer than 1 seconds to decode"]
    assert is_grey(tmp_path / "slow.jpg") is None
    monkeypatch.setattr("leae.data.images.SECONDS", 60)
    large, sound = read_images(tmp_path, 16, ["large.tif", "sound.png"])
    assert re.search("takes more than 1,073,741,824 bytes of memory|^unreadable", large)  # by what was out of memory
    assert sound.shape == (16, 16, 3)
    assert [is_grey(tmp_path / name) for name in ("large.tif", "sound.png")] == [None, False]
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_a_png_is_read_in_memory_of_its_own_size():
    content = stored() + bytes(6_000_000)  # chunks of no bytes
    tracemalloc.start()
    assert read_square(content, 16).shape == (16, 16, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(content)


def many_scans(count):
    """A JPEG of 2048×2048 pixels whose last scan is there again and again."""
    content = stored("JPEG", flat(size=(2048, 2048)), progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * (count - content.count(b"\xff\xda")) + content[-2:]


def with_texts(count, length):
    """A PNG with so many texts of so many letters."""
    chunk = b"tEXta\0" + b"x" * length
    return (
        stored()[:33]
        + (struct.pack(">I", length + 2) + chunk + struct.pack(">I", zlib.crc32(chunk))) * count
        + stored()[33:]
    )


def odd_exif():
    """The maker, a text, as a number: Pillow reads it, and fails to write it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "maker"
    content = exif.tobytes()
    entry = content.index(struct.pack(">HH", 0x010F, 2))
    return content[: entry + 2] + struct.pack(">H", 4) + content[entry + 4 :]


# File name → content, and what happens: the colour that it is used with, or the reason for which it is skipped.
FILM = {"save_all": True, "append_images": [flat(colour="blue")]}
IMAGES = {
    "truncated": ("a.jpg", stored("JPEG")[:-200], "'a.jpg' ("),
    "a text": ("a.png", b"not an image", "'a.png' ("),
    "a JPEG called .PNG": ("a.PNG", stored("JPEG", quality=98), RED),
    "PostScript called .jpg": ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EOF\n", "'a.jpg' ("),
    "animated WebP": ("a.webp", stored("WEBP", lossless=True, **FILM), RED),
    "a decompression bomb": ("a.png", claiming(60_000, 60_000), "3600000000"),
    "600 scans": ("a.jpg", many_scans(600), "600 × 2048×2048"),
    "600 scans behind another segment": ("a.jpg", b"\xff\xd8\xff\xe2\0\x08MPF\0\0\0" + many_scans(600)[2:], "600 ×"),
    "a truncated TIFF": ("a.tif", stored("TIFF")[:-200], "'a.tif' ("),
    "a TIFF called .png": ("a.png", stored("TIFF"), RED),
    "floats of a TIFF above 1": ("a.tiff", stored("TIFF", flat("F", 1.5)), "1.5"),
    "no number in a TIFF": ("a.tiff", stored("TIFF", flat("F", float("nan"))), "nan"),
    "brighter than a TIFF declares": ("a.tif", stored("TIFF", flat("I;16", 5000), tiffinfo={281: 4095}), "from 5000"),
    "a TIFF of one bit": ("a.tif", stored("TIFF", flat("1", 1)), WHITE),
    "a GIF": ("a.png", stored("GIF"), "unreadable"),
    "a blank page": ("a.png", stored(image=flat("1", 1, (1024, 1024))), WHITE),
    "a bomb of one colour": ("a.webp", stored("WEBP", flat(size=(8000, 8000)), lossless=True), "8000×8000"),
    "3 MB of text": ("a.png", with_texts(1, 3_000_000), RED),
    "3 MB of colour profile": ("a.png", stored(icc_profile=bytes(3_000_000)), RED),
    "EXIF that is none": ("a.png", stored(exif=b"no TIFF file"), RED),
    "60,000 texts": ("a.png", with_texts(60_000, 1), RED),
    "EXIF that cannot be written again": ("a.jpg", stored("JPEG", exif=odd_exif(), quality=98), RED),
    "a newline in its name": ("two\nlines.png", stored(), RED),
    "a newline in a bad one's name": ("two\nlines.png", b"", r"'two\nlines.png' ("),
    "a name that is no text": (b"\xff\xfe.png", stored(), RED),
    "a bad one whose name is no text": (b"\xff\xfe.png", b"", r"'\udcff\udcfe.png' ("),
}


@pytest.mark.filterwarnings("error::UserWarning")  # Pillow's would be lines with paths of its files
@pytest.mark.parametrize(("name", "content", "outcome"), IMAGES.values(), ids=IMAGES)
def test_an_image_is_used_or_skipped_with_its_name(workplace, capsys, name, content, outcome):
    for number in range(9):
        write_image(workplace / "pictures" / "good" / f"{number}.png", 0)
    with open(os.path.join(b"pictures", os.fsencode(name)), "wb") as file:
        file.write(content)
    images = np.concatenate(list(open_dataset("pictures", 16).images.values())).astype(int)
    others = images[np.abs(images - (0, 100, 50)).max(axis=(1, 2, 3)) > 4]
    assert len(images) - len(others) == 9
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    if isinstance(outcome, str):
        assert len(others) == 0
        assert [outcome in warning for warning in warnings] == [True]
    else:
        assert warnings == []
        assert len(others) == 1
        assert np.abs(others - outcome).max() <= 3


PALETTE = flat().quantize(4)
MODES = {
    "rgb": (stored(), RED),
    "cmyk": (stored("JPEG", flat("CMYK", (0, 255, 255, 0)), quality=98), (255, 0, 0)),
    "grey": (stored(image=flat("L", 90)), GREY),
    "bits": (stored(image=flat("1", 1)), WHITE),
    "16-bit": (stored(image=flat("I;16", 257 * 90)), GREY),
    "16-bit TIFF": (stored("TIFF", flat("I;16", 257 * 90)), GREY),
    "16-bit TIFF in which white is 0": (stored("TIFF", flat("I;16", 257 * 165), tiffinfo={262: 0}), GREY),
    "12-bit in a TIFF of 16": (stored("TIFF", flat("I;16", 16 * 90), tiffinfo={281: 4095}), GREY),
    "8-bit in a TIFF of 16": (stored("TIFF", flat("I;16", 90), tiffinfo={281: 255}), GREY),
    "12-bit in 16": (stored(image=flat("I;16", 16 * 90)), GREY),
    "dark throughout in 16 bits": (stored(image=flat("I;16", 257 * 20)), (20, 20, 20)),
    "32-bit TIFF": (stored("TIFF", flat("I", 90 * 2**24)), GREY),
    "TIFF of floats": (stored("TIFF", flat("F", 90 / 255)), GREY),
    "compressed TIFF": (stored("TIFF", compression="tiff_lzw"), RED),
    "TIFF of several pages": (stored("TIFF", **FILM), RED),
    "cmyk TIFF": (stored("TIFF", flat("CMYK", (0, 255, 255, 0))), (255, 0, 0)),
    "transparent throughout": (stored(image=flat("RGBA", (*RED, 0))), RED),
    "32-bit BMP without alpha": (stored("BMP", flat("RGBA", (*RED, 0))), RED),
    "grey-alpha": (stored(image=flat("LA", (90, 255))), GREY),
    "palette": (stored(image=PALETTE), RED),
    "palette-transparent": (stored(image=PALETTE, transparency=PALETTE.getpixel((0, 0))), RED),
}


@pytest.mark.parametrize(("content", "colour"), MODES.values(), ids=MODES)
def test_every_colour_mode_becomes_the_colours_that_a_viewer_shows(content, colour):
    square = read_square(content, 8)
    assert square.shape == (8, 8, 3)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - colour).max() <= 3


def test_what_is_transparent_shows_a_white_ground():
    image = flat("RGBA", (*RED, 255))
    image.paste((*RED, 0), (0, 0, 20, 32))
    square = read_square(stored(image=image), 32).astype(int)
    assert np.abs(square[:, :14] - WHITE).max() <= 3
    assert np.abs(square[:, 18:] - RED).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "a text of a PNG", "XMP of a PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_turned_as_pillow_does(orientation, kind):
    exif, texts = Image.Exif(), PngInfo()
    exif[0x0112] = orientation
    content = exif.tobytes()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    options = {"a text of a PNG": {"pnginfo": texts}, "XMP of a PNG": {"pnginfo": xmp}}.get(kind, {"exif": exif})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    content = stored(kind.rpartition(" ")[2], image=Image.fromarray(pixels), **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(read_square(content, 16), np.asarray(expected))


def test_texts_that_may_turn_an_image_and_are_damaged_or_long_leave_it_as_it_is():
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", 3_000_000 * " ", zip=True)
    texts.add_text("Raw profile type exif", 3_000_000 * "x", zip=True)
    assert np.abs(read_square(stored(pnginfo=texts), 16) - RED).max() <= 3


def test_the_square_in_the_middle_is_cut_pixel_by_pixel_and_in_aligned_photographs_of_celeba_a_smaller_one():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    aligned, other = (stored(image=Image.fromarray(image)) for image in (pixels, pixels[:, :176]))
    assert np.array_equal(read_square(aligned, 128), pixels[45:173, 25:153])
    assert np.array_equal(read_square(other, 176), pixels[21:197, :176])
    with pytest.raises(UsageError, match=r"178×218 .*129×129"):
        read_square(aligned, 129)


def test_16_bits_are_scaled_by_the_same_number_in_every_image_whatever_its_brightest_pixel_is():
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 64), dtype=np.uint16)
    for kind, dimmer in (("PNG", 1), ("PNG", 9), ("TIFF", 9)):
        square = read_square(stored(kind, image=Image.fromarray(pixels // dimmer)), 64)
        assert np.abs(square[..., 0] - pixels // dimmer / 257).max() <= 0.5 + 1e-6


def test_a_small_image_is_scaled_up_where_that_is_wanted():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    expected = image.resize((32, 32), Image.Resampling.LANCZOS, box=(4, 0, 16, 12))
    assert np.array_equal(read_square(stored(image=image), 32, upscale=True), np.asarray(expected))
    with pytest.raises(UsageError, match=r"20×12 .*32×32"):
        read_square(stored(image=image), 32)


def test_digits_of_28_pixels_are_padded_as_mnists_are():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    square = read_square(stored(image=Image.fromarray(pixels)), 32)
    assert np.array_equal(square[..., :1], fit(pixels[..., None], 32))
    assert np.array_equal(square[2:30, 2:30, 2], pixels)


def test_scaling_down_averages():
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    square = read_square(stored(image=Image.fromarray(checkerboard)), 16)
    assert np.abs(square[2:-2, 2:-2].astype(int) - 127).max() < 6


def lie(field, number, size):
    """Another number in the directory's entry of the first member."""

    def change(content):
        place = content.index(b"PK\x01\x02") + field
        return content[:place] + number.to_bytes(size, "little") + content[place + size :]

    return change


USED, SKIPPED, REFUSED = "used", "000000.jpg' (", r"img_align_celeba\.zip"
ZIPS = {
    "cut off": (lambda content: content[:-500], REFUSED),
    "an image damaged": (lambda content: content.replace(b"\xff\xd9", b"\0\0", 1), SKIPPED),
    "a size of 2 GB": (lie(24, 2**31, 4), USED),  # its bytes are all there
    "another compression": (lie(10, 99, 2), SKIPPED),
    "encrypted": (lie(8, 1, 2), SKIPPED),
    "a place beyond its end": (lie(42, 2**31, 4), SKIPPED),
    "backslashes, as of Windows": (lambda content: content.replace(b"celeba/", b"celeba\\"), USED),
    "names that lead out": (lambda content: content.replace(b"img_align_celeba/", b"../align_celebas/"), REFUSED),
}


@pytest.mark.parametrize(("change", "outcome"), ZIPS.values(), ids=ZIPS)
def test_a_zip_that_is_damaged_or_lies_is_refused_or_its_image_skipped(workplace, capsys, change, outcome):
    path = write_celeba(workplace / "data" / "celeba", "zip") / "img_align_celeba.zip"
    path.write_bytes(change(path.read_bytes()))
    if outcome == REFUSED:
        with pytest.raises(UsageError, match=outcome):
            open_dataset("celeba", 64)
    else:
        dataset, numbers = open_dataset("celeba", 64), range(outcome == SKIPPED, 12)
        assert numbers_of(dataset)["train"] == list(numbers)
        assert dataset.attributes["train"].tolist() == [attributes_of(number) for number in numbers]
        assert (SKIPPED in capsys.readouterr().err) == (outcome == SKIPPED)
    assert not list(workplace.rglob("*.jpg"))  # nothing is unpacked


def test_processes_that_read_one_zip_do_not_disturb_each_other(workplace):
    path = write_celeba(workplace / "data" / "celeba", "zip") / "img_align_celeba.zip"
    names = [f"img_align_celeba/{number:06d}.jpg" for number in range(20)]
    expected = [number_of(image) for image in read_images(path, 64, names)]  # by the process that then forks others
    chunks = DataLoader(names * 50, 10, num_workers=2, collate_fn=partial(read_images, path, 64))
    read = [image for chunk in chunks for image in chunk]
    assert [image for image in read if isinstance(image, str)] == []
    assert [number_of(image) for image in read] == expected * 50


def test_integers_of_an_unknown_depth_are_not_taken_for_black(tmp_path):
    sums = np.random.default_rng(0).integers(0, 100_000, (16, 16)).astype(np.int32)
    Image.fromarray(sums).save(tmp_path / "sums.tif")
    assert "MaxSampleValue" in read_images(tmp_path, 16, ["sums.tif"])[0]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[281], tags[281] = 4, 100_000  # MaxSampleValue in 32 bits
    Image.fromarray(sums).save(tmp_path / "declared.tif", tiffinfo=tags)
    [read] = read_images(tmp_path, 16, ["declared.tif"])
    assert abs(read[..., 0] - sums * (255 / 100_000)).max() <= 1
    floats = (sums / np.float32(sums.max()) * np.float32(1.0000001)).astype(np.float32)
    Image.fromarray(floats).save(tmp_path / "rounded.tif")
    assert read_images(tmp_path, 16, ["rounded.tif"])[0].max() == 255


def test_of_a_long_file_only_the_beginning_tells_whether_it_is_grey(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "grey.png")
    Image.fromarray(noise).save(tmp_path / "at its end.tif")  # where Pillow puts a TIFF's header
    read, opened = [], images.opened
    monkeypatch.setattr(images, "opened", lambda content: read.append(len(content)) or opened(content))
    assert is_grey(tmp_path / "grey.png")
    assert read == [images.HEADER]
    assert is_grey(tmp_path / "at its end.tif")


@pytest.mark.parametrize("name", ["x.zip", "img_align_celeba/000003.jpg", "list_eval_partition.txt"])
def test_a_pipe_by_the_name_of_a_file_is_no_file(workplace, name):
    path = write_celeba(workplace / "data" / "celeba") / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if name.endswith(".txt"):
        with pytest.raises(UsageError, match="lacks list_eval_partition"):
            open_dataset("celeba", 64)
    else:
        assert count_of(open_dataset("celeba", 64)) == 20 - name.endswith(".jpg")


def replaced(old, new):
    return lambda text: text.replace(old, new)


def added(line):
    return lambda text: text + line


ROW, SIGNS = b"000004.jpg  0\n", b"000004.jpg  1  -1\n"
PARTITION, ATTRIBUTES, CSV = "list_eval_partition.txt", "list_attr_celeba.txt", "list_eval_partition.csv"
LISTS = {  # what is done to which list, and what of it the refusal names, or how many images there are
    "a row missing": (PARTITION, replaced(ROW, b""), 19),
    "a row too many": (PARTITION, added(b"000099.jpg 0\n"), r"000099\.jpg"),
    "a row doubled": (PARTITION, added(ROW), r"000004\.jpg 0"),
    "another split": (PARTITION, replaced(ROW, b"000004.jpg 7\n"), r"000004\.jpg 7.* 0, 1, 2"),
    "empty": (PARTITION, lambda text: b"", ""),
    "empty lines that end as on Windows": (PARTITION, replaced(b"\n", b"\r\n\r\n"), 20),
    "an attribute row missing": (ATTRIBUTES, replaced(SIGNS, b""), r"000004\.jpg"),
    "an attribute row too many": (ATTRIBUTES, added(b"000099.jpg 1 1\n"), 20),
    "an attribute row too short": (ATTRIBUTES, replaced(SIGNS, b"000004.jpg -1\n"), r"000004\.jpg -1.* 2 "),
    "csv with a mark": (CSV, replaced(b"image_id", b"\xef\xbb\xbfimage_id"), 20),
    "an endless line": (CSV, added(b"x" * 200_000), ""),
}


@pytest.mark.parametrize(("name", "change", "outcome"), LISTS.values(), ids=LISTS)
def test_a_list_is_used_or_refused_with_what_is_wrong(workplace, name, change, outcome):
    path = write_celeba(workplace / "data" / "celeba", kind=name[-3:]) / name
    path.write_bytes(change(path.read_bytes()))
    if isinstance(outcome, int):
        assert count_of(open_dataset("celeba", 64)) == outcome
    else:
        with pytest.raises(UsageError, match=f"{re.escape(name)}.*{outcome}") as refusal:
            open_dataset("celeba", 64)
        assert "\n" not in str(refusal.value)
