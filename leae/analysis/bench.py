"""Time a training step, and the same step without speed-ups.

    uv run -m leae bench                                every setting
    uv run -m leae bench --only cpu --steps 20          one setting, more steps

Plain steps (`leae.analysis.plain`: every view its own pass, contiguous float32 memory, unfused AdamW, every loss read
back) and main.py's steps, both with main.py's constants, are timed in turns: what slows the machine slows both.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
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
from leae.training.device import (
    autocast,
    compile_if_it_works,
    device_name,
    find_device,
    has_bfloat16,
    keep_freed_memory,
)
from leae.training.settings import script_constants
from tests.reference import reference_objective

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


class Contestant:
    """A model in training, by main.py's constants, whose steps are plain, or fast as main.py's."""

    def __init__(self, constants: dict, batches: Batches, plain: bool, precision: str = "float32"):
        torch.manual_seed(0)
        c = SimpleNamespace(**constants)
        self.batches, self.plain, self.precision, self.steps = batches, plain, precision, 0
        self.device = batches.device
        latent_dim = c.LATENT_DIM if c.LATENT == "pooled" else c.SPATIAL_DIM
        model = Autoencoder(c.IMAGE_SIZE, 3, c.HIDDEN_DIM, c.LATENT, latent_dim, c.MAP_CHANNELS).to(self.device)
        self.model = model if plain else model.to(memory_format=torch.channels_last)
        self.objective = SelfTeachingObjective(c.IMAGE_SIZE, c.OBJECTIVE, c.MASK_RATIO, c.CROP_RATIOS, c.SIGREG_WEIGHT)
        self.judge = Judge(self.model.encoder, c.JUDGE_DECAY, c.JUDGE_NORM, c.WHITENING_EPSILON, c.CROP_RATIOS)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), c.LEARNING_RATE, fused=not plain, foreach=False)

    def step(self) -> None:
        """The next step, with the settings of PyTorch and the C library as they are by default, or as the scripts'."""
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("highest" if self.plain else "high")
            torch.backends.cudnn.benchmark = not self.plain
        else:
            keep_freed_memory(not self.plain)
        images, draws = self.batches.at(self.steps), generator(0, "step", self.steps, self.device)
        self.steps += 1
        if self.plain:
            terms = reference_objective(self.objective, self.model, self.judge, images.contiguous(), draws)
        else:
            with autocast(self.device, self.precision):
                terms = self.objective(self.model, self.judge, images, draws)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        self.judge.update(self.model.encoder)
        if self.plain:
            torch.stack(list(terms.values())).tolist()  # every loss is read back


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


def matrix_product_rate(device: torch.device) -> tuple[float, str]:
    """The best rate in FLOP/s of a large square matrix product, in the precision that steps are computed in."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    first, second = torch.randn(2, size, size, device=device, dtype=dtype)
    best = min(seconds_of(lambda: first @ second, device) for _ in range(12))
    return 2 * size**3 / best, f"{size}×{size} {str(dtype).removeprefix('torch.')}"


def flop_per_image(contestant: Contestant) -> float:
    """Floating-point operations of the convolutions and matrix products of a step, forward and backward, per image."""
    with FlopCounterMode(display=False) as counter:
        contestant.step()
    return counter.get_total_flops() / contestant.batches.batch_size


def compare(title: str, constants: dict, batch_size: int, steps: int, device: torch.device, rate: float) -> None:
    """Time a setting and print what came out."""
    size = constants["IMAGE_SIZE"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # images are read from a file, as in a run
        path = Path(folder) / "images.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (DATA_IMAGES, size, size, 3), dtype=np.uint8))
        batches = Batches(ImageFile(path), batch_size, 0, device)
    fast = {"fast": "bfloat16" if device.type == "cuda" else "float32"}
    if device.type == "cpu" and has_bfloat16(device):
        fast["bf16"] = "bfloat16"
    contestants = [Contestant(constants, batches, plain=True)]
    contestants += [Contestant(constants, batches, False, precision) for precision in fast.values()]
    flop = [flop_per_image(contestant) for contestant in contestants]  # before it is compiled
    if device.type == "cuda":
        real = contestants[1]
        compile_if_it_works(real.model.encoder, real.model.decoder, real.judge.encoder)
        for contestant in 3 * contestants:  # algorithms are tried out
            contestant.step()
    peaks = [peak_memory(contestant.step, device) for contestant in contestants]
    rounds = [[seconds_of(contestant.step, device) for contestant in contestants] for _ in range(steps)]
    cutting = [seconds_of(lambda step=step: batches.at(step), device) for step in range(max(steps, 5))]

    print(f"\n{title}: {size}×{size}, {batch_size} images a step")
    speeds = batch_size / np.array(rounds).T  # [contestant, step]
    medians = np.median(speeds, axis=1)
    for name, speed, median, peak, work in zip(("plain", *fast), speeds, medians, peaks, flop, strict=True):
        memory = f"{peak / 2**30:5.2f} GiB at most" if peak else "memory not measured"
        print(
            f"  {name:5s}  {median:8.1f} images/s ({speed.min():.1f} to {speed.max():.1f}), {memory}, "
            f"{work / 1e9:5.1f} GFLOP an image, {work * median / rate:.0%} of the product's rate"
        )
    ratios = " and ".join(f"{median / medians[0]:.2f}" for median in medians[1:])
    print(f"  ratio  {ratios}; data: {np.median(cutting) * medians[1] / batch_size:.1%} of a fast step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=SETTINGS, help="one of the settings instead of all")
    parser.add_argument("--steps", type=int, help="steps that are timed of each kind [10, on a GPU 50]")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")


def main(options: argparse.Namespace) -> None:
    device = find_device(options.device)
    steps = (50 if device.type == "cuda" else 10) if options.steps is None else options.steps
    require_whole(1, **{"--steps": steps})
    rate, product = matrix_product_rate(device)
    print(f"{device_name(device)}; torch {torch.__version__}; {product} matrix product: {rate / 1e12:.3g} TFLOP/s")
    if not has_bfloat16(device):
        print("bfloat16 is not timed: this device has no instructions for it")
    for name in SETTINGS if options.only is None else [options.only]:
        title, gpu, differing = SETTINGS[name]
        constants = script_constants(SCRIPT, gpu) | differing
        batch_size = CPU_BATCH if gpu and device.type == "cpu" else constants["BATCH_SIZE"]
        compare(title, constants, batch_size, steps, device, rate)
