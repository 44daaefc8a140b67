"""Time the training step of main.py: eager and compiled, in float32 and, where the device has it, in bfloat16.

    uv run -m leae bench                                every setting
    uv run -m leae bench --only cpu --steps 20          one setting, more steps
    uv run -m leae bench --compile                      without a GPU: compiled steps as well, a minute's wait for each
    uv run -m leae bench --only gpu --profile           and the kernels that take the most time

The settings are main.py's constants and the published ones. Columns: the median rate in images/s, and the range; what
share that is of the rate of a large matrix product in the same precision (above 100 % on CPUs whose convolutions are
the faster ones); how long the first step took, in which compiling happens (sooner where PyTorch's cache has what it
needs); the most memory in use, on a GPU PyTorch's, on Linux else the process's; how often the host waits for a GPU in a
step; and how often it launches something there, a kernel or a CUDA graph.
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
from leae.data.batches import STEPS_BEFORE_MOVING, Batches
from leae.errors import require_whole
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import PRECISIONS, autocast, compiled, device_name, find_device, has_bfloat16
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
ROW = "  {:18}  {:>8}  {:>16}  {:>10}  {:>10}  {:>9}  {:>5}  {:>8}"  # of a setting's table
COSTLIEST = 25  # kernels that --profile prints


class Training:
    """A model in training as main.py trains it, by main.py's constants."""

    def __init__(self, constants: dict, batches: Batches, precision: str, compiling: bool = False):
        torch.manual_seed(0)
        c = SimpleNamespace(**constants)
        self.batches, self.device, self.precision, self.steps = batches, batches.device, precision, 0
        self.log_every = c.LOG_EVERY
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
        draws = self.objective.draw(self.judge, images, generator(0, "step", self.steps, self.device), self.steps)
        with autocast(self.device, self.precision):
            terms = self.compute_terms(self.model, self.judge, images, draws)
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
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return f"{torch.cuda.max_memory_reserved(device) / 2**30:.2f} GiB"  # with what CUDA graphs keep
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


def profile(work: Callable[[], object], device: torch.device) -> tuple[int, list[tuple[float, int, str]]]:
    """How often the host launches something on a GPU during a piece of work, and what the device spends its time on.

    The latter are milliseconds, how often, and name of every kernel, of every operation on a CPU; the costliest first.
    """
    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA] * on_gpu]
    with torch.profiler.profile(activities=activities) as profiler:
        seconds_of(work, device)
    events, spent = profiler.key_averages(), "self_device_time_total" if on_gpu else "self_cpu_time_total"
    launches = sum(event.count for event in events if "launchkernel" in event.key.lower() or "GraphLaunch" in event.key)
    of_device = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    counted = [event for event in events if event.device_type == of_device and not event.is_user_annotation]
    return launches, sorted(((getattr(event, spent) / 1e3, event.count, event.key) for event in counted), reverse=True)


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


def time_steps(name: str, training: Training, steps: int, flop: float, rate: float, profiling: bool) -> list[str]:
    """Time some steps: a row of the table and, if profiling, one for each of the costliest kernels.

    An image takes so many floating-point operations, and a matrix product makes so many of them in a second.
    """
    device, batch_size = training.device, training.batches.batch_size
    on_gpu, waits, launches, costs = device.type == "cuda", "", "", []

    def make_steps(count: int) -> None:
        for _ in range(count):
            training.step()

    first = seconds_of(training.step, device)
    # On a GPU meanwhile CUDA graphs are recorded, and the images move there.
    memory = peak_memory(lambda: make_steps(STEPS_BEFORE_MOVING if on_gpu else 1), device)
    # Where the host runs ahead, between two rows of metrics.csv.
    together = min(steps, training.log_every) if on_gpu else 1
    seconds = [seconds_of(lambda: make_steps(together), device) / together for _ in range(steps // together)]
    median, slowest, fastest = (batch_size / some for some in (np.median(seconds), max(seconds), min(seconds)))
    if on_gpu:
        waits = host_waits(training.step)
    if on_gpu or profiling:
        launches, costs = profile(training.step, device)
    rates = f"{median:.1f}", f"{slowest:.1f} to {fastest:.1f}", f"{flop * median / rate:.0%}"
    row = ROW.format(name, *rates, f"{first:.1f} s", memory, waits, launches if on_gpu else "").rstrip()
    return [row, *(f"    {ms:8.3f} ms  {count:5}×  {key[:80]}" for ms, count, key in costs[: COSTLIEST * profiling])]


def time_setting(
    title: str, constants: dict, batches: Batches, steps: int, compiling: bool, profiling: bool, rates: dict
) -> None:
    """Time the steps of a setting in each precision, and print a table; `rates` are those of matrix products."""
    size, batch_size = constants["IMAGE_SIZE"], batches.batch_size
    flop = flop_per_image(Training(constants, batches, "float32"))
    print(f"\n{title}: {size}×{size}, {batch_size} images a step, {flop / 1e9:.1f} GFLOP an image")
    print(ROW.format("", "images/s", "range", "of product", "first step", "memory", "waits", "launches"))
    for precision, fast in product(rates, (False, True) if compiling else (False,)):
        torch.compiler.reset()  # every program is compiled anew
        gc.collect()  # the one before: a compiled function is in a circle of references
        training, name = Training(constants, batches, precision, fast), f"{precision}, compiled" if fast else precision
        print("\n".join(time_steps(name, training, steps, flop, rates[precision], profiling)), flush=True)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--only", choices=SETTINGS, help="one of the settings instead of all")
    parser.add_argument("--steps", type=int, help="steps that are timed of each kind [10, on a GPU 50]")
    parser.add_argument("--compile", action="store_true", help="time compiled steps without a GPU, too")
    parser.add_argument("--profile", action="store_true", help=f"print each step's {COSTLIEST} costliest kernels")
    parser.add_argument("--precision", choices=PRECISIONS[1:], help="one precision instead of all")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")


def main(options: argparse.Namespace) -> None:
    device = find_device(options.device)
    on_gpu = device.type == "cuda"
    steps = (50 if on_gpu else 10) if options.steps is None else options.steps
    require_whole(1, **{"--steps": steps})
    names = SETTINGS if options.only is None else [options.only]
    settings = {name: script_constants("main.py", gpu=SETTINGS[name][1]) | SETTINGS[name][2] for name in names}
    precisions = ["float32", *["bfloat16"] * has_bfloat16(device)] if options.precision is None else [options.precision]
    rates = {precision: matrix_product_rate(device, precision) for precision in precisions}
    said = " and ".join(f"{rate / 1e12:.3g} TFLOP/s in {precision}" for precision, rate in rates.items())
    print(f"{device_name(device)}; torch {torch.__version__}\nmatrix product: {said}")
    for name, constants in settings.items():
        title, gpu, _ = SETTINGS[name]
        batch_size = CPU_BATCH if gpu and not on_gpu else constants["BATCH_SIZE"]
        size = (DATA_IMAGES, constants["IMAGE_SIZE"], constants["IMAGE_SIZE"], 3)
        images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        batches = Batches(images, batch_size, 0, device)
        time_setting(title, constants, batches, steps, options.compile or on_gpu, options.profile, rates)
