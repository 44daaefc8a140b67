"""Image files of every kind as square RGB arrays."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from leae.errors import UsageError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # whatever the suffix; Pillow hands some others to other programs

# What Pillow, its decoders and zipfile raise for files that are damaged, hostile, encrypted or no images at all.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)
UNREADABLE = (*DAMAGED, Image.DecompressionBombError)  # more than 179 million pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Any colour mode to 8-bit RGB; what is transparent shows a white ground, 16 bits are scaled to 8."""
    if image.mode.startswith("I"):  # 16-bit grey
        image = Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8))  # 65535 / 255
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_square(file: Path | IO[bytes], size: int, crop: int | None = None) -> np.ndarray:
    """The central square of an image file, uint8 [size, size, 3].

    The square that is cut has `crop` pixels a side, or the image's short side, which must then have `size`. A
    `UsageError` if the image is smaller than that, and one of UNREADABLE if it cannot be read.
    """
    with Image.open(file, formats=FORMATS) as image:
        if crop is None:
            image.draft("RGB", (2 * size, 2 * size))  # lets the JPEG decoder skip detail that goes anyway
        image = to_rgb(ImageOps.exif_transpose(image))
    (width, height), shortest = image.size, crop or size
    if min(width, height) < shortest:
        raise UsageError(f"{width}×{height} pixels, smaller than {shortest}×{shortest}")
    side = crop or min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def reason(error: Exception) -> str:
    """Why an image cannot be used, in one line: from one of UNREADABLE."""
    if isinstance(error, UnidentifiedImageError):
        return f"unreadable: none of {', '.join(FORMATS)}"
    return first_line(error) if isinstance(error, UsageError) else f"unreadable: {first_line(error)}"
