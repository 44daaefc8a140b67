"""Several processes that share one run: `uv run torchrun --nproc-per-node N main.py`, on one machine or several.

PyTorch's own engine: torchrun starts the processes, DistributedDataParallel averages the gradients. Every process
takes its rows of the global batch. What is random is drawn for the global batch by all of them alike, and batch
statistics are taken over it, so that a step does not depend on how many processes share it. Alone, a process does
nothing of this.
"""

import atexit
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leae.errors import UsageError

PATIENCE = timedelta(hours=6)  # that others wait while the first prepares data; one that died ends all, by torchrun


def rank() -> int:
    """This process's number; 0 alone or first, which is the one that writes and speaks."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """How many processes share the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join(device: torch.device) -> torch.device:
    """Join the other processes that torchrun started, if there are any; from then on only the first one prints.

    Returns:
        The device of this process: of several GPUs its own.

    Raises:
        UsageError: more processes on this machine than it has GPUs.
    """
    if processes() == 1:
        return device
    if device.type == "cuda":
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise UsageError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes share {torch.cuda.device_count()} GPUs here; "
                f"start torchrun with --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, it stays open until the process ends
    return device


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process enters the block alone, the others once it has left."""
    if processes() > 1 and rank() > 0:
        dist.barrier()
    yield
    if processes() > 1 and rank() == 0:
        dist.barrier()


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if processes() > 1:
        dist.barrier()


def my_rows(rows: Tensor) -> Tensor:
    """This process's rows of what was drawn, or made, for the global batch: [processes · n, …] → [n, …]."""
    return rows.chunk(processes())[rank()]


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(values: Tensor) -> Tensor:
    total = values.contiguous().clone()
    dist.all_reduce(torch.view_as_real(total) if total.is_complex() else total)
    return total


def sum_of_all(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, with gradients through it."""
    return _Sum.apply(values) if processes() > 1 else values


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradients through it."""
    return sum_of_all(values) / processes() if processes() > 1 else values


class _Call(nn.Module):
    """A function of a model as a module, which is what DistributedDataParallel takes."""

    def __init__(self, function: Callable, model: nn.Module):
        super().__init__()
        self.function = function
        self.model = model

    def forward(self, *arguments):
        return self.function(self.model, *arguments)


def share_gradients(function: Callable, model: nn.Module) -> Callable:
    """`function(model, …)` as a function of its other arguments, whose gradients are averaged over all processes.

    Args:
        function: computes losses with the model; each process's are those of its rows, so that the mean over the
            processes is that of the global batch.
        model: the same in every process.
    """
    call = _Call(function, model)
    if processes() == 1:
        return call
    # The buffers need no broadcast at every step: running statistics are those of the global batch in every process.
    options = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"  # since PyTorch 2.15
    return DistributedDataParallel(call, **{name: False})
