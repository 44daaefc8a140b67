"""The device that a run trains on."""

import platform

import torch

from leae.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of that name, ready for training.

    Raises:
        UsageError: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # fails on devices that are not there, or hold no numbers
    except (RuntimeError, AssertionError) as error:  # PyTorch built without CUDA asserts
        here = "cuda or cpu" if torch.cuda.is_available() else "cpu"
        raise UsageError(f"DEVICE is {name!r}, which PyTorch cannot use here; choose {here}") from error
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: 10 bits of mantissa, summed in float32
        torch.backends.cudnn.allow_tf32 = True
    return device


def device_name(device: torch.device) -> str:
    """The device for people: a GPU's name, or the processor's kind and how many threads PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads"


def describe(device: torch.device) -> str:
    """A line that says where a run trains, and what that means for the model."""
    small = "; the model is small, on a GPU it has the published size" if device.type == "cpu" else ""
    return f"device: {device_name(device)}{small}"
