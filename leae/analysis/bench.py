"""Time the training step of main.py: eager and compiled, in float32 and, where the device has it, in bfloat16.

    uv run -m leae bench                                every setting
    uv run -m leae bench --only cpu --steps 20          one setting, more steps
    uv run -m leae bench --compile                      without a GPU: compiled steps as well, a minute's wait for each

The settings are main.py's constants and the published ones. Columns: the median rate in images/s, and the range; what
share that is of the rate of a large matrix product in the same precision (above 100 % on CPUs whose convolutions are
the faster ones); the most memory in use, of a GPU or of this process; how long the first step took, in which compiling
happens (sooner where PyTorch's cache has what it needs); and, on a GPU, how often the host waits for it in a step.
"""

import argparse
import ctypes
import gc
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from leae.autoencoder import Autoencoder
from leae.data.batches import Batches, ImageFile
from leae.errors import require_whole
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import autocast, compile_if_it_works, device_name, find_device, has_bfloat16
from leae.training.settings import Parser, script_constants

SCRIPT = Path(__file__).parents[2] / "main.py"
DATA_IMAGES = 4096  # random images that batches are cut from
CPU_BATCH = 8  # batch size of the GPU's settings without a GPU, where full batches take minutes
PUBLISHED = {"JUDGE_DECAY": 0.0, "JUDGE_NORM": "own", "CROP_RATIOS": (0.15,)}  # what main.py has since improved on

# By name: the title, whether main.py's constants are those for a GPU, and the constants that differ from them.
SETTINGS = {
    "cpu": ("main.py's CPU constants", False, {}),
    "gpu": ("main.py's GPU constants", True, {}),
    "published": ("published constants", True, PUBLISHED),
    "latent512": ("published, latent 512", True, {**PUBLISHED, "LATENT_DIM": 512}),
    "spatial": ("published, spatial latent 32", True, {**PUBLISHED, "LATENT": "spatial", "SPATIAL_DIM": 32}),
}
# The columns of a setting's table, and their widths.
HEADS = {"": 18, "images/s": 8, "range": 18, "of product": 10, "memory": 10, "first step": 10, "waits": 5}


class Training:
    """A model in training as main.py trains it, by main.py's constants."""

    def __init__(self, constants: dict, batches: Batches, precision: str):
        torch.manual_seed(0)
        c = SimpleNamespace(**constants)
        self.batches, self.device, self.precision, self.steps = batches, batches.device, precision, 0
        latent_dim = c.LATENT_DIM if c.LATENT == "pooled" else c.SPATIAL_DIM
        model = Autoencoder(c.IMAGE_SIZE, 3, c.HIDDEN_DIM, c.LATENT, latent_dim, c.MAP_CHANNELS)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.objective = SelfTeachingObjective(c.OBJECTIVE, c.MASK_RATIO, c.CROP_RATIOS, c.SIGREG_WEIGHT)
        self.judge = Judge(self.model.encoder, c.JUDGE_DECAY, c.JUDGE_NORM, c.WHITENING_EPSILON, c.CROP_RATIOS)
        options = {"weight_decay": c.WEIGHT_DECAY, "fused": True}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), c.LEARNING_RATE, **options)

    def compile(self) -> bool:
        """Compile what main.py compiles; whether that works here."""
        return compile_if_it_works(self.model.encoder, self.model.decoder, self.judge.encoder)

    def step(self) -> None:
        images, draws = self.batches.at(self.steps), generator(0, "step", self.steps, self.device)
        self.steps += 1
        with autocast(self.device, self.precision):
            terms = self.objective(self.model, self.judge, images, draws)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        self.judge.update(self.model.encoder)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of a piece of work, the device's part included."""
    synchronize = torch.cpu.synchronize if device.type == "cpu" else torch.accelerator.synchronize
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """The most bytes in use during a piece of work: on a GPU PyTorch's, on Linux the process's, elsewhere None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    if sys.platform != "linux":
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    work()
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def host_waits(work: Callable[[], object]) -> int:
    """How often the host waits for the GPU during a piece of work, as far as PyTorch notices."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(warning.message) for warning in caught)


def matrix_product_rate(device: torch.device, precision: str) -> float:
    """The best rate in FLOP/s of a large square matrix product; a GPU computes float32 in TF32, as in a step."""
    size = 8192 if device.type == "cuda" else 2048
    first, second = torch.randn(2, size, size, device=device).to(getattr(torch, precision))
    return 2 * size**3 / min(seconds_of(lambda: first @ second, device) for _ in range(12))


def flop_per_image(training: Training) -> float:
    """Floating-point operations of the convolutions and matrix products of a step, forward and backward, per image."""
    with FlopCounterMode(display=False) as counter:
        training.step()
    return counter.get_total_flops() / training.batches.batch_size


def forget() -> None:
    """Free what earlier trainings have left, so that it does not count as memory of the next."""
    torch.compiler.reset()  # every program is compiled anew
    gc.collect()
    if platform.libc_ver()[0] == "glibc":  # which keeps freed memory; see `keep_freed_memory`
        ctypes.CDLL(None).malloc_trim(0)


def row_of(*texts: str) -> str:
    """A line of a setting's table."""
    first, *others = (text.rjust(width) for text, width in zip(texts, HEADS.values(), strict=True))
    return "  ".join(("", first.strip().ljust(HEADS[""]), *others)).rstrip()


def time_steps(training: Training, compiled: bool, steps: int, flop: float, rate: float) -> float:
    """Time some steps and print their row; the median in seconds.

    An image takes so many floating-point operations, and a matrix product makes so many of them in a second.
    """
    device, batch_size = training.device, training.batches.batch_size
    first = seconds_of(training.step, device)
    peak = peak_memory(training.step, device)
    waits = host_waits(training.step) if device.type == "cuda" else ""
    seconds = [seconds_of(training.step, device) for _ in range(steps)]
    speed = batch_size / np.median(seconds)
    print(
        row_of(
            f"{training.precision}, compiled" if compiled else training.precision,
            f"{speed:.1f}",
            f"{batch_size / max(seconds):.1f} to {batch_size / min(seconds):.1f}",
            f"{flop * speed / rate:.0%}",
            f"{peak / 2**30:.2f} GiB" if peak else "unknown",
            f"{first:.1f} s",
            str(waits),
        )
    )
    return float(np.median(seconds))


def time_setting(title: str, constants: dict, batches: Batches, steps: int, compiling: bool, rates: dict) -> None:
    """Time the steps of a setting in each precision, and print a table; `rates` are those of matrix products."""
    size, batch_size, medians = constants["IMAGE_SIZE"], batches.batch_size, []
    flop = flop_per_image(Training(constants, batches, "float32"))
    print(f"\n{title}: {size}×{size}, {batch_size} images a step, {flop / 1e9:.1f} GFLOP an image")
    print(row_of(*HEADS))
    for precision, compiled in product(rates, (False, True) if compiling else (False,)):
        training = None  # the one before
        forget()
        training = Training(constants, batches, precision)
        if not compiled or training.compile():
            medians.append(time_steps(training, compiled, steps, flop, rates[precision]))
    cutting = [seconds_of(lambda step=step: batches.at(step), batches.device) for step in range(max(steps, 5))]
    print(f"  data: {np.median(cutting) / min(medians):.1%} of the fastest step")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--only", choices=SETTINGS, help="one of the settings instead of all")
    parser.add_argument("--steps", type=int, help="steps that are timed of each kind [10, on a GPU 50]")
    parser.add_argument("--compile", action="store_true", help="time compiled steps without a GPU, too")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")


def main(options: argparse.Namespace) -> None:
    device = find_device(options.device)
    on_gpu = device.type == "cuda"
    steps = (50 if on_gpu else 10) if options.steps is None else options.steps
    require_whole(1, **{"--steps": steps})
    rates = {"float32": matrix_product_rate(device, "float32")}
    if has_bfloat16(device):
        rates["bfloat16"] = matrix_product_rate(device, "bfloat16")
    said = " and ".join(f"{rate / 1e12:.3g} TFLOP/s in {precision}" for precision, rate in rates.items())
    print(f"{device_name(device)}; torch {torch.__version__}\nmatrix product: {said}")
    for name in SETTINGS if options.only is None else [options.only]:
        title, gpu, differing = SETTINGS[name]
        constants = script_constants(SCRIPT, gpu) | differing
        batch_size = CPU_BATCH if gpu and not on_gpu else constants["BATCH_SIZE"]
        images = (DATA_IMAGES, constants["IMAGE_SIZE"], constants["IMAGE_SIZE"], 3)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # images come from a file, as in a run
            path = Path(folder) / "images.npy"
            np.save(path, np.random.default_rng(0).integers(0, 256, images, dtype=np.uint8))
            batches = Batches(ImageFile(path), batch_size, 0, device)
            time_setting(title, constants, batches, steps, options.compile or on_gpu, rates)
