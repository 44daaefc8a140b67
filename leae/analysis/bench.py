"""How fast a step is, and how fast it would be written down plainly. The one place where speed is claimed.

    uv run -m leae bench                                every setting
    uv run -m leae bench --only cpu --steps 20          one setting, more steps
    uv run -m leae bench --profile                      where the time of a step goes, besides

Plain steps (`leae.analysis.plain`: every view its own pass, contiguous float32 memory, unfused AdamW, every loss read back)
and the steps that main.py takes are timed in turns, in one process, so that what slows the machine slows both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from leae.analysis.plain import plain_step
from leae.autoencoder import Autoencoder
from leae.data.prepare import Batches
from leae.errors import run_command
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import autocast, compile_if_it_works, device_name, find_device, keep_freed_memory
from leae.training.settings import Parser, require_whole

DATA_IMAGES = 4096  # random images that batches are cut from


@dataclass(frozen=True)
class Setting:
    """What a step is timed at."""

    title: str
    image_size: int
    hidden_dim: int
    latent: str
    latent_dim: int
    crop_ratios: tuple[float, ...]
    judge_decay: float
    judge_ruler: str
    batch_size: int
    cpu_batch_size: int  # fewer images where a step of all would take minutes


SETTINGS = {
    "cpu": Setting("main.py's CPU constants", 64, 32, "pooled", 128, (0.15, 1.0), 0.99, "shared", 64, 64),
    "gpu": Setting("main.py's GPU constants", 128, 128, "pooled", 128, (0.15,), 0.99, "shared", 128, 8),
    "published": Setting("published constants", 128, 128, "pooled", 128, (0.15,), 0.0, "own", 128, 8),
    "latent512": Setting("published, latent 512", 128, 128, "pooled", 512, (0.15,), 0.0, "own", 128, 8),
    "spatial": Setting("published, spatial latent 32", 128, 128, "spatial", 32, (0.15,), 0.0, "own", 128, 8),
}


class Contestant:
    """A model in training with everything that its step needs.

    Args:
        setting: sizes and objective.
        batches: what it is trained on.
        plain: whether it makes plain steps.
        device: where.
    """

    def __init__(self, setting: Setting, batches: Batches, plain: bool, device: torch.device):
        torch.manual_seed(0)
        sizes = (setting.image_size, 3, setting.hidden_dim, setting.latent, setting.latent_dim, setting.hidden_dim)
        self.model = Autoencoder(*sizes).to(device)
        if not plain:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.judge = Judge(self.model.encoder, setting.judge_decay, setting.judge_ruler)
        self.objective = SelfTeachingObjective(setting.image_size, crop_ratios=setting.crop_ratios)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3, fused=not plain, foreach=False)
        self.batches, self.plain, self.device, self.steps = batches, plain, device, 0

    def warm_up(self) -> None:
        """Whatever happens once: compiling as the scripts do, trying algorithms out."""
        if self.device.type == "cuda" and not self.plain:
            compile_if_it_works(self.model.encoder, self.model.decoder, self.judge.encoder)
        for _ in range(3 if self.device.type == "cuda" else 1):
            self.step()

    def step(self) -> None:
        """The next step; on a GPU, as soon as it is under way."""
        use_settings(self.device, plain=self.plain)
        images, draws = self.batches.at(self.steps), generator(0, "step", self.steps, self.device)
        self.steps += 1
        if self.plain:
            plain_step(self.objective, self.model, self.judge, self.optimizer, images.contiguous(), draws)
            return
        with autocast(self.device):
            terms = self.objective(self.model, self.judge, images, draws)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        self.judge.update(self.model.encoder)


def use_settings(device: torch.device, plain: bool) -> None:
    """PyTorch's and the C library's settings as they are by default, or as the scripts set them."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if plain else "high")
        torch.backends.cudnn.benchmark = not plain
    else:
        keep_freed_memory(not plain)


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Wall-clock seconds of a piece of work, the device's part included."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product_rate(device: torch.device) -> tuple[float, str]:
    """The best rate in FLOP/s of a large square matrix product, in the precision that steps are computed in."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    first, second = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds_of(lambda: first @ second, device) for _ in range(12))
    return 2 * size**3 / best, f"{size}×{size} {str(dtype).removeprefix('torch.')}"


class PeakMemory:
    """The most memory that was in use within the block, in bytes; None where the system does not tell.

    On a GPU what PyTorch allocated; on a CPU the process's resident memory, by Linux's high-water mark.
    """

    def __init__(self, device: torch.device):
        self.device, self.peak = device, None

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew
        return self

    def __exit__(self, *error) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        elif sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            self.peak = 1024 * int(status.split("VmHWM:")[1].split()[0])


def read_rate(image_size: int = 128, batch_size: int = 128) -> tuple[float, float]:
    """How fast one process reads images in random order from a prepared array's file that the system has cached.

    Returns:
        Images per second, and bytes per second.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, np.zeros((DATA_IMAGES, image_size, image_size, 3), np.uint8))
        images = np.load(path, mmap_mode="r")
        batches = Batches(images, batch_size, 0, torch.device("cpu"), mapped_bytes=0)
        started = time.perf_counter()
        for step in range(batches.steps_per_epoch):
            batches.read(step)
        seconds = (time.perf_counter() - started) / (batches.steps_per_epoch * batch_size)
    return 1 / seconds, images[0].nbytes / seconds


def flop_per_image(contestant: Contestant) -> float:
    """Floating-point operations of the convolutions and matrix products of a step, forward and backward, per image."""
    with FlopCounterMode(display=False) as counter:
        contestant.step()
    return counter.get_total_flops() / contestant.batches.batch_size


def compare(setting: Setting, steps: int, device: torch.device, rate: float, show_profile: bool) -> None:
    """Time a setting and print what came out."""
    batch_size = setting.batch_size if device.type == "cuda" else setting.cpu_batch_size
    shape = (DATA_IMAGES, setting.image_size, setting.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    contestants = {}
    for name in ("plain", "fast"):
        contestants[name] = Contestant(setting, Batches(images, batch_size, 0, device), name == "plain", device)
    batches = contestants["fast"].batches

    flop = {name: flop_per_image(contestant) for name, contestant in contestants.items()}  # before it is compiled
    peak = {}
    for contestant in contestants.values():
        contestant.warm_up()
    for name, contestant in contestants.items():
        with PeakMemory(device) as memory:
            contestant.step()
        peak[name] = memory.peak
    seconds = {name: [] for name in contestants}
    for _ in range(steps):
        for name, contestant in contestants.items():
            seconds[name].append(seconds_of(contestant.step, device))
    cutting = statistics.median(seconds_of(lambda n=n: batches.at(n), device) for n in range(max(steps, 5)))

    print(f"\n{setting.title}: {setting.image_size}×{setting.image_size}, {batch_size} images a step")
    medians = {}
    for name, taken in seconds.items():
        speeds = sorted(batch_size / t for t in taken)
        medians[name] = statistics.median(speeds)
        memory = f"{peak[name] / 2**30:5.2f} GiB at most" if peak[name] else "memory not measured"
        print(
            f"  {name:5s}  {medians[name]:8.1f} images/s ({speeds[0]:.1f} to {speeds[-1]:.1f}), {memory}, "
            f"{flop[name] / 1e9:5.1f} GFLOP an image, {flop[name] * medians[name] / rate:.0%} of the product's rate"
        )
    share = cutting / statistics.median(seconds["fast"])
    print(f"  ratio  {medians['fast'] / medians['plain']:.2f}; data: {share:.1%} of a fast step")
    if show_profile:
        print_profile(contestants["fast"], device)


def print_profile(contestant: Contestant, device: torch.device) -> None:
    """Where the time of three steps goes, operation by operation."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        for _ in range(3):
            contestant.step()
        wait(device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=50))


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETTINGS, help="one of the settings instead of all")
    parser.add_argument("--steps", type=int, help="steps that are timed of each kind [10, on a GPU 50]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="[%(default)s]")
    parser.add_argument("--profile", action="store_true", help="print where the time of fast steps goes")
    chosen = parser.parse_args()
    device = find_device(chosen.device)
    steps = (50 if device.type == "cuda" else 10) if chosen.steps is None else chosen.steps
    require_whole(1, **{"--steps": steps})
    rate, product = matrix_product_rate(device)
    print(f"{device_name(device)}; torch {torch.__version__}; {product} matrix product: {rate / 1e12:.3g} TFLOP/s")
    for name, setting in SETTINGS.items():
        if chosen.only in (None, name):
            compare(setting, steps, device, rate, chosen.profile)
    if chosen.only is None:
        images, read = read_rate()
        print(f"\nreading from a prepared array's file: {images:,.0f} images/s of 128×128, {read / 1e9:.1f} GB/s")


if __name__ == "__main__":
    run_command(main)
