"""Training batches of a prepared array, cut on the training device."""

import copy
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leae.distributed import rank, world_size
from leae.errors import UsageError, require
from leae.files import require_regular
from leae.progress import progress_bar
from leae.randomness import generator

CHUNK = 256  # images of up to 128×128 pixels that a model is shown at a time, where it is not trained
STEPS_BEFORE_MOVING = 5  # on a GPU: by then a step has all the memory that it needs, CUDA graphs included
PIECE = 4096  # images that are in memory at a time where all are gone through


class ImageFile:
    """Images uint8 [N, S, S, C] in a .npy file, of which only those are read that are asked for.

    A number, or an array of numbers, reads these images; a slice is such a file again, and `np.asarray` reads it whole.
    It is not mapped into memory: that would end the process if the file became shorter, and fill it with what was read.
    """

    dtype = np.dtype("uint8")

    def __init__(self, path: Path):
        require_regular(path)
        self.path, self.file = path, open(path, "rb", buffering=0)  # noqa: SIM115, as long as it is used
        kind = None
        with suppress(Exception):  # NumPy's parser is Python's
            np.lib.format.read_magic(self.file)
            shape, *kind = np.lib.format.read_array_header_1_0(self.file)
        self.first_byte, length = self.file.tell(), os.fstat(self.file.fileno()).st_size
        fits = kind == [False, np.uint8] and len(shape) == 4 and min(shape) > 0 and shape[1] == shape[2]
        if not fits or shape[3] not in (1, 3) or length != self.first_byte + math.prod(shape):
            raise UsageError(f"{path} has no images uint8 [N, S, S, C]; delete its folder to prepare it anew")
        self.size, self.numbers = shape[1:], np.arange(shape[0])

    def take(self, which: slice | np.ndarray, axis: int = 0) -> "ImageFile":
        """Such a file again, of some of the images, by a slice or an array of numbers; called as NumPy's `take` is."""
        part = copy.copy(self)
        part.numbers = self.numbers[which]
        return part

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.size)

    def __getitem__(self, which: int | slice | np.ndarray) -> "np.ndarray | ImageFile":
        if isinstance(which, slice):
            return self.take(which)
        numbers = self.numbers[which]
        images = np.empty((*numbers.shape, *self.size), np.uint8)
        for image, number in zip(images.reshape(-1, *self.size), numbers.ravel().tolist(), strict=True):
            if self._read_into(image, self.first_byte + number * image.nbytes) < image.nbytes:
                raise UsageError(f"{self.path} was cut short; start again to prepare it anew")
        return images

    def _read_into(self, image: np.ndarray, offset: int) -> int:
        if hasattr(os, "preadv"):  # which moves no position in the file: threads and forked processes share that
            return os.preadv(self.file.fileno(), [image], offset)
        self.file.seek(offset)
        return self.file.readinto(image)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[range(len(self))]


Images = np.ndarray | ImageFile  # uint8 [N, S, S, C]


def to_float(images: Images | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, S, S, C] → float32 [N, C, S, S] in [0, 1] on the device, channels-last in memory."""
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.require(images, requirements=("C", "W")))  # copies what is read-only
    return images.to(device).permute(0, 3, 1, 2).float() / 255


def chunk_size(image_size: int) -> int:
    """How many images of so many pixels a side a model is shown at a time, where it is not trained."""
    return max(1, min(CHUNK, CHUNK * 128**2 // image_size**2))


def chunks_of(
    images: Images | Tensor, device: torch.device | str = "cpu", title: str = "", share: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """Images in chunks, so that memory is bounded: float [n, C, S, S] in [0, 1], behind the number of the first one.

    The images are uint8 [N, S, S, C] or a float tensor [N, C, S, S]. With a title there is a progress bar; with `share`
    every process has its part of the chunks.
    """
    size = chunk_size(images.shape[2])
    firsts = range(rank() * size, len(images), world_size() * size) if share else range(0, len(images), size)
    for first in progress_bar(firsts, title, hidden=not title or len(firsts) == 1):
        chunk = images[first : first + size]
        ready = isinstance(chunk, Tensor) and chunk.is_floating_point()
        yield first, chunk.to(device) if ready else to_float(chunk, device)


class Batches:
    """Shuffled training batches of `images`, uint8 [N, S, S, C]. A step's batch is a function of (seed, step) alone.

    Every epoch goes through all images once, in an order drawn from (seed, epoch); the last images that do not
    fill a batch are left out of that epoch. `batch_size` is that of all processes together; each cuts its own rows.

    Batches are read from the images' file, for a GPU one step ahead and by another thread. After the first steps, all
    images move to a GPU if they take at most half of the memory that is free there by then. A `ValueError` if there are
    fewer images than one batch, or the processes cannot share a batch evenly.
    """

    def __init__(self, images: Images, batch_size: int, seed: int, device: torch.device):
        enough, even = 1 <= batch_size <= len(images), batch_size % world_size() == 0
        require(enough, "batch_size", batch_size, f"from 1 to the number of training images, {len(images)}")
        require(even, "batch_size", batch_size, f"a multiple of {world_size()}, the number of processes")
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.steps_per_epoch = len(images) // batch_size
        self.images = images
        self.epoch, self.order = None, None
        self.ahead = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self.reading = {}  # step → what the other thread reads for it
        self.calls = 0  # of `at`

    def at(self, step: int) -> Tensor:
        """The batch of a step, or this process's rows of it: float32 [n, C, S, S] in [0, 1] on the device."""
        if self.ahead is not None and self.calls == STEPS_BEFORE_MOVING:
            self._move_to_device()
        self.calls += 1
        if self.ahead is None:
            return to_float(self.read(step), self.device)
        rows = self.reading.pop(step, None) or self.ahead.submit(self._read_pinned, step)
        self.reading = {step + 1: self.ahead.submit(self._read_pinned, step + 1)}
        return to_float(rows.result().to(self.device, non_blocking=True), self.device)

    def read(self, step: int) -> np.ndarray | Tensor:
        """The same as it is kept: uint8 [n, S, S, C], a tensor if the array is on the device."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            order = torch.randperm(len(self.images), generator=generator(self.seed, "order", epoch))
            self.order = order.to(self.device) if isinstance(self.images, Tensor) else order.numpy()
            self.epoch = epoch
        size = self.batch_size // world_size()
        first = batch * self.batch_size + rank() * size
        return self.images[self.order[first : first + size]]

    def _move_to_device(self) -> None:
        """Keep all images on the GPU, if they fit."""
        if math.prod(self.images.shape) > torch.cuda.mem_get_info(self.device)[0] / 2:
            return
        self.ahead.shutdown()  # once it has read what it reads
        moved = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
        for first in progress_bar(range(0, len(moved), PIECE), "moving images to the GPU"):
            moved[first : first + PIECE] = torch.tensor(np.asarray(self.images[first : first + PIECE]))
        self.images, self.ahead, self.epoch = moved, None, None

    def _read_pinned(self, step: int) -> Tensor:
        """The same in memory that the GPU can copy by itself."""
        return torch.from_numpy(self.read(step)).pin_memory()
