"""The device that a run trains on."""

import ctypes
import os
import platform
import warnings
from collections.abc import Callable

import torch
from tqdm import tqdm

from leae.distributed import world_size
from leae.errors import UsageError, first_line, require

PRECISIONS = ("auto", "float32", "bfloat16")
# Compiles the backward with the forward; PyTorch before 2.10 does so later, where nothing catches what goes wrong.
AT_ONCE = "force_non_lazy_backward_lowering"
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def find_device(name: str) -> torch.device:
    """The device of that name, ready for training; of several GPUs that torchrun's processes share, this one's.

    A `UsageError` if there is no such device here, or if there are more processes than GPUs.
    """
    if name == "auto":  # an Apple GPU trains with the constants of a CPU, in float32
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and world_size() > 1:  # first of all: what is allocated before is on GPU 0
            processes, count = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
            require(processes <= count, "--nproc-per-node", processes, f"at most {count}, the GPUs here")
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        torch.empty(1, device=device).item()  # fails on devices that are not there, or hold no numbers
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ImportError) as error:  # PyTorch built without CUDA asserts
        raise UsageError(f"PyTorch cannot use the device {name!r} here; choose another, such as cpu") from error
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: 10 bits of mantissa, summed in float32
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True  # the shapes of a step never change
    else:
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks for the next step, as a GPU's allocator does.

    By default it gives them back to the system, which fills every page with zeros again when a step wants it.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16: a GPU since NVIDIA's Ampere, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.13 cannot tell
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def precision_on(device: torch.device, precision: str) -> str:
    """What one of `PRECISIONS` means: "auto" is bfloat16 where the device computes in it, else float32."""
    return precision if precision != "auto" else "bfloat16" if has_bfloat16(device) else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """What the convolutions and linear layers of a step are computed in, one of `PRECISIONS`.

    Their results are turned into float32 before the batch norm, SIGReg and the losses, which are computed in it.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, precision) == "bfloat16")


def compiled(function: Callable, device: torch.device) -> Callable:
    """A function of tensors and modules, compiled at its first call; on a GPU, CUDA graphs replay it and its backward.

    A step is about a thousand kernels, which a processor launches more slowly than a GPU runs them; a graph is one
    launch. Where the compiler fails (no Triton, no C++ compiler), the function itself is called, which is said.
    """
    best = None  # known after the first call

    def call(*arguments):
        nonlocal best
        if best is None:
            graphs = device.type == "cuda" and world_size() == 1  # they would take in the processes' communication
            warnings.filterwarnings("ignore", "Torchinductor does not support code generation for complex")  # SIGReg's
            best = torch.compile(function, mode="reduce-overhead" if graphs else None)
            tqdm.write("compile: the first step takes a minute or two")
            try:
                config = torch._functorch.config
                with config.patch({AT_ONCE: True} if hasattr(config, AT_ONCE) else {}):
                    return best(*arguments)
            except Exception as error:  # whatever a compiler, of which there are many, may raise
                tqdm.write(f"torch.compile does not work here ({first_line(error)}); going on without it")
                best = function
        return best(*arguments)

    return call


def device_name(device: torch.device) -> str:
    """The device for people: a GPU's name, or the processor's kind and how many threads PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.machine()}, PyTorch's threads: {torch.get_num_threads()}"
