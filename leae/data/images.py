"""Image files of every kind as square arrays."""

import io
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from warnings import catch_warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose

from leae.errors import UsageError, first_line, require
from leae.files import describe, require_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # whatever the suffix; Pillow hands some others to other programs
JPEG = b"\xff\xd8\xff"  # at the beginning of such a file
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts in it that may say how it is turned
MAX_BYTES = 2**30  # of an image file
HEADER = 2**16  # bytes of it in which its header mostly is
MAX_DECODED = 2**31  # pixels, each counted once for every scan of a JPEG
SECONDS, MEMORY = 30, 2**32  # of a processor, and bytes, that decoding an image may take
DECODING = threading.Lock()
MAX_RATIO, LARGE = 1024, 2**24  # pixels to a byte, in every format, of an image that has more pixels than the latter
ALIGNED, FACE = (178, 218), 128  # pixels of CelebA's aligned photographs; side of the square that is cut out of them
DIGIT = (28, 28)  # pixels of MNIST's images, which are padded by 2 black ones on every side
TOO_SMALL = "the square in the middle is smaller than"
# What the brightest pixel of 12, 16 and 32 bits may be. Cameras often use 12 of 16; an image that dark of 16 would be
# black, and one of 32 that is not in its range has some other depth.
DEPTHS = (range(2**12), range(2**16), range(2**24, 2**32))
PHOTOMETRIC, MAX_SAMPLE_VALUE = 262, 281  # tags of a TIFF
# What undoes each orientation of EXIF.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Any colour mode to 8-bit RGB; what is transparent, unless all is, shows a white ground, deeper grey is scaled.

    It is by what a TIFF declares as its largest value, else by the first of DEPTHS that has its brightest pixel;
    floats are in [0, 1]. What is beyond its range is a `UsageError`.
    """
    if image.mode.startswith(("I", "F")):
        grey, tags = np.asarray(image), getattr(image, "tag_v2", {})
        declared = 1 if image.mode == "F" else int(np.max(tags.get(MAX_SAMPLE_VALUE, 0)))
        largest = declared or next((depth.stop - 1 for depth in DEPTHS if int(grey.max()) in depth), 2**16 - 1)
        declare = ", or let a TIFF declare its range as MaxSampleValue" * (image.mode != "F")  # whose range is known
        expected = f"from 0 to {largest}; scale it{declare}"
        require(grey.min() >= 0 and grey.max() <= largest * (1 + 1e-6), "the image", describe(grey), expected)
        scaled = np.multiply(grey, 255 / largest, dtype=np.float32)  # a large image takes gigabytes in float64
        scaled += 0.5
        image = Image.fromarray(scaled.astype(np.uint8))
        if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds where grey has 8 bits
            image = ImageOps.invert(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3] != (0, 0):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@contextmanager
def bounded() -> Iterator[None]:
    """A block in which an image is decoded: SECONDS of computing and MEMORY more bytes, else UsageError.

    That is on Linux, and the time in the main thread alone. Where another limit leaves less memory, that one holds.
    """

    def stop(number: int, frame) -> NoReturn:
        raise UsageError(f"takes longer than {SECONDS} seconds to decode")

    if sys.platform != "linux":
        yield
        return
    import resource

    with DECODING:  # as the limits are the process's
        limits, timed = resource.getrlimit(resource.RLIMIT_AS), threading.current_thread() is threading.main_thread()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        lower = limits[0] == resource.RLIM_INFINITY or used + MEMORY < limits[0]
        before = signal.signal(signal.SIGPROF, stop) if timed else None
        try:
            if lower:
                resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
            if timed:
                signal.setitimer(signal.ITIMER_PROF, SECONDS, 1)  # and again, as others' code may catch it
            yield
        except MemoryError as error:
            if lower:
                raise UsageError(f"takes more than {MEMORY:,} bytes of memory to decode") from error
            raise
        finally:
            if timed:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.signal(signal.SIGPROF, before or signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_AS, limits)


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """An image from a file's content, `bounded`; without Pillow's warnings, which are of images that can be used."""
    with bounded(), catch_warnings(action="ignore"), Image.open(without_texts(content), formats=FORMATS) as image:
        yield image


def is_grey(path: Path) -> bool | None:
    """Whether an image file has grey pixels, not colours or a palette, by its header; None if that cannot be read."""
    with suppress(Exception):  # as of `read_square`
        require_regular(path)
        for length in (HEADER, MAX_BYTES) if 0 < path.stat().st_size <= MAX_BYTES else ():
            with suppress(Exception), path.open("rb") as file, opened(file.read(length)) as image:
                return Image.getmodebase(image.mode) == "L"
    return None


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [S, S, 1 or 3] → [S, S, channels]: colours become their luma (ITU-R 601), grey is repeated."""
    if image.shape[2] > channels:
        return np.array(Image.fromarray(image).convert("L"))[..., None]
    return image.repeat(channels // image.shape[2], axis=2)


def read_square(content: bytes, size: int, upscale: bool = False) -> np.ndarray:
    """The central square of an image file with that content, uint8 [size, size, 3].

    It is as wide as the image's short side, but in an ALIGNED photograph as FACE, wherever that lies. A `UsageError` if
    it is smaller than `size` without `upscale`, or takes too long; any exception if it cannot be read, as decoders of
    damaged files raise many.
    """
    with opened(content) as image:
        scans = content.count(b"\xff\xda") if content.startswith(JPEG) else 1  # about ten in a progressive one
        pixels = image.width * image.height
        if scans * pixels > MAX_DECODED or pixels > max(LARGE, MAX_RATIO * len(content)):
            raise UsageError(f"{scans:,} × {image.width}×{image.height} pixels to decode from {len(content):,} bytes")
        stored = image.size
        if stored != ALIGNED:
            image.draft("RGB", (2 * size, 2 * size))  # lets the JPEG decoder skip detail that goes anyway
        image.load()  # before the orientation is read: a TIFF is upright then
        turn = None
        with suppress(Exception):  # what is damaged turns nothing
            told = content.startswith(PNG) and any(text in content for text in ORIENTING)
            by = Image.open(without_texts(content, ORIENTING)) if told else image
            turn = UPRIGHT.get(by.getexif().get(ExifTags.Base.Orientation))
        image = to_rgb(image)
    if turn is not None:
        image = image.transpose(turn)
    if stored == DIGIT:
        image = ImageOps.expand(image, 2)
    width, height = image.size
    side = FACE if stored == ALIGNED else min(width, height)
    if side < size and not upscale:
        raise UsageError(f"{width}×{height} pixels, {TOO_SMALL} {size}×{size}")
    return central_square(image, side, size)


def central_square(image: Image.Image, side: int, size: int) -> np.ndarray:
    """The square of `side` pixels in the middle of an image, scaled: uint8 [size, size, 3], or [size, size] if grey."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))


def without_texts(content: bytes, but: tuple[bytes, ...] = ()) -> io.BytesIO:
    """A PNG file without its texts and colour profile, as Pillow refuses long ones and takes its time for many.

    Programs that generate images write all their settings into texts. Those that begin with one of `but` stay, as do
    other files.
    """
    kept, start, place = [], 0, len(PNG)
    while content.startswith(PNG) and place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") and not content.startswith(but, place + 8):
            kept += [content[start:place]] * (start < place)
            start = end
        place = end
    return io.BytesIO(b"".join([*kept, content[start:]]))


def reason(error: Exception) -> str:
    """Why an image cannot be used, in one line: from what `read_square` raises."""
    if isinstance(error, UnidentifiedImageError):
        return f"unreadable: none of {', '.join(FORMATS)}"
    return first_line(error) if isinstance(error, UsageError) else f"unreadable: {first_line(error)}"
