"""Several processes that share one run: `uv run torchrun --nproc-per-node N main.py`, on one machine or several.

torchrun starts the processes, DistributedDataParallel averages their gradients. Every process takes its rows of the
global batch. What is random is drawn for the global batch by all of them alike, and batch statistics are taken over
it, so a step does not depend on how many processes share it. In a single process all of this does nothing.
"""

import atexit
import os
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number; 0 for the one that writes and prints."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes share the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def init_processes(device: torch.device) -> None:
    """Join torchrun's other processes, if any. A process that waits for minutes gives up: prepare data before."""
    if world_size() > 1:
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        atexit.register(dist.destroy_process_group)  # which waits for all others: see `leae.errors.run_command`


def barrier() -> None:
    """Return once all processes have called it."""
    if world_size() > 1:
        dist.barrier()


def local_rows(rows: Tensor) -> Tensor:
    """This process's rows of what was drawn, or made, for the global batch: [world_size · n, …] → [n, …]."""
    return rows.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each has it in its own loss, so that its gradient is the sum of all gradients."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of a tensor of real numbers over all processes, with gradients through it."""
    return _Sum.apply(values) if world_size() > 1 else values


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradients through it."""
    return all_reduce_sum(values) / world_size() if world_size() > 1 else values


class FunctionOf(nn.Module):
    """A function of a model as a module, which is what DistributedDataParallel and the export to ONNX take."""

    def __init__(self, function: Callable, model: nn.Module):
        super().__init__()
        self.function, self.model = function, model

    def forward(self, *arguments):
        return self.function(self.model, *arguments)


def data_parallel(function: Callable, model: nn.Module) -> Callable:
    """`function(model, …)` as a function of its other arguments, whose gradients are averaged over all processes.

    The model is the same in all; the losses that the function computes are those of a process's rows.
    """
    call = FunctionOf(function, model)
    if world_size() == 1:
        return call
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the option's name changes in PyTorch 2.15
        # The buffers are equal, as all processes compute them from the statistics of the global batch.
        return DistributedDataParallel(call, broadcast_buffers=False)
