"""Training batches of a prepared array, cut on the training device."""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from leae.distributed import rank, world_size
from leae.errors import UsageError, require, require_whole
from leae.randomness import generator

MAPPED_BYTES = 2**30  # a prepared array of more is read image by image, so that it does not fill the memory


def to_float(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, S, S, C] → float32 [N, C, S, S] in [0, 1] on the device, channels-last in memory."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=("C", "W")))  # copies what is mapped read-only
    return images.to(device).permute(0, 3, 1, 2).float() / 255


class Batches:
    """Shuffled training batches of `images`, uint8 [N, S, S, C]. A step's batch is a function of (seed, step) alone.

    Every epoch goes through all images once, in an order drawn from (seed, epoch); the last images that do not
    fill a batch are left out of that epoch. `batch_size` is that of all processes together; each cuts its own rows.

    The whole array is kept on a GPU that has room for it. Otherwise batches are read from its file, for a GPU one step
    ahead and by another thread; of a file beyond `mapped_bytes` nothing but the batches is in memory. `UsageError` if
    there are fewer images than one batch, or the processes cannot share a batch evenly.
    """

    def __init__(
        self, images: np.ndarray, batch_size: int, seed: int, device: torch.device, mapped_bytes: int = MAPPED_BYTES
    ):
        require_whole(1, BATCH_SIZE=batch_size)
        enough, even = batch_size <= len(images), batch_size % world_size() == 0
        require(enough, "BATCH_SIZE", batch_size, f"at most the number of training images, {len(images)}")
        require(even, "BATCH_SIZE", batch_size, f"a multiple of {world_size()}, the number of processes")
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.steps_per_epoch = len(images) // batch_size
        resident = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self.images = torch.from_numpy(np.array(images)).to(device) if resident else images
        self.epoch, self.order = None, None
        self.ahead = ThreadPoolExecutor(1) if device.type == "cuda" and not resident else None
        self.reading = {}  # step → what the other thread reads for it
        streamed = isinstance(images.base, mmap.mmap) and images.nbytes > mapped_bytes and hasattr(os, "preadv")
        self.file = open(images.filename, "rb", buffering=0) if streamed and not resident else None  # noqa: SIM115

    def at(self, step: int) -> Tensor:
        """The batch of a step, or this process's rows of it: float32 [n, C, S, S] in [0, 1] on the device."""
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
        chosen = self.order[first : first + size]
        if self.file is None:
            return self.images[chosen]
        rows = np.empty((size, *self.images.shape[1:]), np.uint8)
        for row, number in zip(rows, chosen.tolist(), strict=True):
            if os.preadv(self.file.fileno(), [row], self.images.offset + number * row.nbytes) < row.nbytes:
                raise UsageError(f"{self.images.filename} has become shorter; start again to have it prepared again")
        return rows

    def _read_pinned(self, step: int) -> Tensor:
        """The same in memory that the GPU can copy by itself."""
        return torch.from_numpy(self.read(step)).pin_memory()
