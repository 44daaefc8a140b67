"""Image files of every kind, against what a viewer would show."""

import io

import numpy as np
import pytest
from PIL import Image

from leae.data.images import TooSmall, read_square

RED, WHITE = (200, 30, 40), (255, 255, 255)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def flat(mode, colour, size=(20, 16)):
    return Image.new(mode, size, colour)


def palette_with_transparency():
    image = flat("RGB", RED).quantize(4)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


MODES = {
    "rgb": (stored(flat("RGB", RED)), RED),
    "bmp": (stored(flat("RGB", RED), "BMP"), RED),
    "webp": (stored(flat("RGB", RED), "WEBP", lossless=True), RED),
    "jpeg": (stored(flat("RGB", RED), "JPEG", quality=98), RED),
    "cmyk": (stored(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=98), (255, 0, 0)),
    "grey": (stored(flat("L", 90)), (90, 90, 90)),
    "bits": (stored(flat("1", 1)), WHITE),
    "16-bit": (stored(flat("I;16", 257 * 90)), (90, 90, 90)),
    "opaque": (stored(flat("RGBA", (*RED, 255))), RED),
    "transparent": (stored(flat("RGBA", (*RED, 0))), WHITE),
    "grey-alpha": (stored(flat("LA", (90, 255))), (90, 90, 90)),
    "palette": (stored(flat("RGB", RED).quantize(4)), RED),
    "palette-transparent": (stored(palette_with_transparency()), WHITE),
}


@pytest.mark.parametrize(("file", "colour"), MODES.values(), ids=MODES)
def test_every_colour_mode_becomes_the_colours_that_a_viewer_shows(file, colour):
    square = read_square(file, 8)
    assert square.shape == (8, 8, 3)
    assert square.dtype == np.uint8
    assert np.abs(square.astype(int) - colour).max() <= 3


def test_the_orientation_tag_is_honoured():
    upright = Image.new("RGB", (16, 16), WHITE)
    upright.paste(RED, (0, 0, 16, 8))  # red above
    lying = upright.rotate(90)  # as a camera on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    square = read_square(stored(lying, "PNG", exif=exif), 16)
    assert np.array_equal(square, np.asarray(upright))


def test_the_middle_of_the_long_side_is_kept():
    image = Image.new("RGB", (48, 16), WHITE)
    image.paste(RED, (16, 0, 32, 16))
    assert np.array_equal(np.unique(read_square(stored(image), 16).reshape(-1, 3), axis=0), [RED])


def test_a_crop_of_the_result_s_size_is_cut_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    assert np.array_equal(read_square(stored(Image.fromarray(pixels)), 128, crop=128), pixels[45:173, 25:153])


def test_scaling_down_averages():
    pixels = np.kron(np.indices((64, 64)).sum(0) % 2 * 255, np.ones((1, 1))).astype(np.uint8)  # a fine checkerboard
    square = read_square(stored(Image.fromarray(pixels)), 16)
    assert np.abs(square[2:-2, 2:-2].astype(int) - 127).max() < 6


@pytest.mark.parametrize(("crop", "says"), [(None, "smaller than 24×24"), (128, "smaller than 128×128")])
def test_images_smaller_than_what_is_cut_out_are_refused(crop, says):
    with pytest.raises(TooSmall, match=f"20×16 pixels, {says}"):
        read_square(stored(flat("RGB", RED)), 24, crop)
