"""Image files of every kind as square RGB arrays."""

import os
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

# Four bytes a pixel, some copies, a process a core: what fits the memory. Pillow would allow 179 million pixels.
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**33  # bytes
MAX_PIXELS = MEMORY // (32 * os.cpu_count())
Image.MAX_IMAGE_PIXELS = None

# What Pillow, its decoders and zipfile raise for files that are damaged, hostile, encrypted or no images at all.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any colour mode to 8-bit RGB; what is transparent shows a white ground, 16 bits are scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and 32-bit grey
        values = np.asarray(image, dtype=np.float64) / (1 if image.mode == "F" else 257)  # 65535 / 255
        image = Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
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
        if (pixels := image.width * image.height) > MAX_PIXELS:
            raise ValueError(f"{pixels:,} pixels, more than the {MAX_PIXELS:,} that this machine's memory allows")
        image = to_rgb(ImageOps.exif_transpose(image))
    (width, height), shortest = image.size, crop or size
    if min(width, height) < shortest:
        raise UsageError(f"{width}×{height} pixels, smaller than {shortest}×{shortest}")
    side = crop or min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return np.asarray(image.crop(box))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def reason(error: Exception) -> str:
    """Why an image cannot be used, in one line: from one of UNREADABLE."""
    if isinstance(error, UnidentifiedImageError):
        return f"unreadable: none of {', '.join(FORMATS)}"
    return first_line(error) if isinstance(error, UsageError) else f"unreadable: {first_line(error)}"
