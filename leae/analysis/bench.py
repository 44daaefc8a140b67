"""Time the training step of main.py: eager and compiled, in float32 and, where the device has it, in bfloat16.

    uv run -m leae bench                                every setting
    uv run -m leae bench --only cpu --steps 20          one setting, more steps
    uv run -m leae bench --compile                      without a GPU: compiled steps as well, a minute's wait for each

The settings are main.py's constants and the published ones. Columns: the median rate in images/s, and the range; what
share that is of the rate of a large matrix product in the same precision (above 100 % on CPUs whose convolutions are
the faster ones); how long the first step took, in which compiling happens (sooner where PyTorch's cache has what it
needs); the most memory in use, on a GPU PyTorch's, on Linux else the process's; and how often the host waits for a GPU
in a step.
"""

import argparse
import gc
import sys
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
from leae.data.batches import Batches
from leae.errors import require_whole
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import autocast, compiled, device_name, find_device, has_bfloat16
from leae.training.settings import Parser, script_constants

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
ROW = "  {:18}  {:>8}  {:>18}  {:>10}  {:>10}  {:>10}  {:>5}"  # of a setting's table


class Training:
    """A model in training as main.py trains it, by main.py's constants."""

    def __init__(self, constants: dict, batches: Batches, precision: str, compiling: bool = False):
        torch.manual_seed(0)
        c = SimpleNamespace(**constants)
        self.batches, self.device, self.precision, self.steps = batches, batches.device, precision, 0
        latent_dim = c.LATENT_DIM if c.LATENT == "pooled" else c.SPATIAL_DIM
        model = Autoencoder(c.IMAGE_SIZE, 3, c.HIDDEN_DIM, c.LATENT, latent_dim, c.MAP_CHANNELS)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.objective = SelfTeachingObjective(c.OBJECTIVE, c.MASK_RATIO, c.CROP_RATIOS, c.SIGREG_WEIGHT)
        self.judge = Judge(self.model.encoder, c.JUDGE_DECAY, c.JUDGE_NORM, c.WHITENING_EPSILON, c.CROP_RATIOS)
        self.compute_terms = compiled(self.objective.terms, self.device) if compiling else self.objective.terms
        options = {"weight_decay": c.WEIGHT_DECAY, "fused": True}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), c.LEARNING_RATE, **options)

    def step(self) -> None:
        images = self.batches.at(self.steps)
        self.optimizer.zero_grad()
        draws = self.objective.draw(self.judge, images, generator(0, "step", self.steps, self.device))
        with autocast(self.device, self.precision):
            terms = self.compute_terms(self.model, self.judge, images, draws, self.steps)
        self.steps += 1
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


def peak_memory(work: Callable[[], object], device: torch.device) -> str:
    """The most memory in use during a piece of work; empty where that is not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    if sys.platform != "linux":
        return ""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    work()
    return f"{int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 2**20:.2f} GiB"


def host_waits(work: Callable[[], object]) -> int:
    """How often the host waits for the GPU during a piece of work, as far as PyTorch notices."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        work()
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


def time_steps(name: str, training: Training, steps: int, flop: float, rate: float) -> str:
    """Time some steps: a row of the table.

    An image takes so many floating-point operations, and a matrix product makes so many of them in a second.
    """
    device, batch_size = training.device, training.batches.batch_size
    first, memory = seconds_of(training.step, device), peak_memory(training.step, device)
    waits = host_waits(training.step) if device.type == "cuda" else ""
    seconds = [seconds_of(training.step, device) for _ in range(steps)]
    median, slowest, fastest = (batch_size / some for some in (np.median(seconds), max(seconds), min(seconds)))
    share = f"{flop * median / rate:.0%}"
    return ROW.format(name, f"{median:.1f}", f"{slowest:.1f} to {fastest:.1f}", share, f"{first:.1f} s", memory, waits)


def time_setting(title: str, constants: dict, batches: Batches, steps: int, compiling: bool, rates: dict) -> None:
    """Time the steps of a setting in each precision, and print a table; `rates` are those of matrix products."""
    size, batch_size = constants["IMAGE_SIZE"], batches.batch_size
    flop = flop_per_image(Training(constants, batches, "float32"))
    print(f"\n{title}: {size}×{size}, {batch_size} images a step, {flop / 1e9:.1f} GFLOP an image")
    print(ROW.format("", "images/s", "range", "of product", "first step", "memory", "waits"))
    for precision, fast in product(rates, (False, True) if compiling else (False,)):
        torch.compiler.reset()  # every program is compiled anew
        gc.collect()  # the one before: a compiled function is in a circle of references
        training, name = Training(constants, batches, precision, fast), f"{precision}, compiled" if fast else precision
        print(time_steps(name, training, steps, flop, rates[precision]).rstrip())


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
        constants = script_constants("main.py", gpu) | differing
        batch_size = CPU_BATCH if gpu and not on_gpu else constants["BATCH_SIZE"]
        size = (DATA_IMAGES, constants["IMAGE_SIZE"], constants["IMAGE_SIZE"], 3)
        images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        batches = Batches(images, batch_size, 0, device)
        time_setting(title, constants, batches, steps, options.compile or on_gpu, rates)
