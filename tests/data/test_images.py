"""Image files of every kind, against what a viewer would show."""

import io

import numpy as np
import pytest
from PIL import Image

from leae.data.images import TooSmall, read_square

RED, WHITE, GREY = (200, 30, 40), (255, 255, 255), (90, 90, 90)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def flat(mode, colour):
    return Image.new(mode, (20, 16), colour)


RGB, PALETTE = flat("RGB", RED), flat("RGB", RED).quantize(4)
MODES = {
    "rgb": (stored(RGB), RED),
    "bmp": (stored(RGB, "BMP"), RED),
    "webp": (stored(RGB, "WEBP", lossless=True), RED),
    "jpeg": (stored(RGB, "JPEG", quality=98), RED),
    "cmyk": (stored(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=98), (255, 0, 0)),
    "grey": (stored(flat("L", 90)), GREY),
    "bits": (stored(flat("1", 1)), WHITE),
    "16-bit": (stored(flat("I;16", 257 * 90)), GREY),
    "opaque": (stored(flat("RGBA", (*RED, 255))), RED),
    "transparent": (stored(flat("RGBA", (*RED, 0))), WHITE),
    "grey-alpha": (stored(flat("LA", (90, 255))), GREY),
    "palette": (stored(PALETTE), RED),
    "palette-transparent": (stored(PALETTE, transparency=PALETTE.getpixel((0, 0))), WHITE),
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
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view, as a camera on its side stores it
    assert np.array_equal(read_square(stored(upright.rotate(90), exif=exif), 16), np.asarray(upright))


def test_a_crop_of_the_result_s_size_is_cut_pixel_by_pixel_out_of_the_middle():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    file = stored(Image.fromarray(pixels))
    assert np.array_equal(read_square(file, 128, crop=128), pixels[45:173, 25:153])
    assert np.array_equal(read_square(file, 178), pixels[20:198])


def test_scaling_down_averages():
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    square = read_square(stored(Image.fromarray(checkerboard)), 16)
    assert np.abs(square[2:-2, 2:-2].astype(int) - 127).max() < 6


@pytest.mark.parametrize(("crop", "says"), [(None, "smaller than 24×24"), (128, "smaller than 128×128")])
def test_images_smaller_than_what_is_cut_out_are_refused(crop, says):
    with pytest.raises(TooSmall, match=f"20×16 pixels, {says}"):
        read_square(stored(RGB), 24, crop)
