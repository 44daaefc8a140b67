"""The steps of a run behind a progress bar, and how fast they are."""

import math
import shutil
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from leae.distributed import all_reduce_mean, rank
from leae.errors import UsageError
from leae.training.signals import StopSignal

BAR = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
ROOM = 43  # columns of the terminal that a bar needs beside what is said of a step


class Progress:
    """Iterates over the steps of a run, with one turn more than steps, for the last evaluation.

    A `UsageError` if more steps have been made, `start`, than the run has.
    """

    def __init__(self, start: int, total_steps: int, batch_size: int):
        if start > total_steps:
            raise UsageError(f"the checkpoint is at step {start:,} of only {total_steps:,}; start a new run")
        turns = range(start, total_steps + 1)
        options = {"mininterval": 1, "dynamic_ncols": True, "disable": rank() > 0, "bar_format": BAR}
        self.bar = tqdm(turns, initial=start, total=total_steps, **options)
        self.batch_size, self.step = batch_size, start
        self.restart()

    def __iter__(self) -> Iterator[int]:
        for step in self.bar:
            self.step = step
            yield step

    def restart(self, psnr: str = "") -> None:
        """Measure from here on: an evaluation, or a checkpoint, took time. The bar shows the last held-out PSNR."""
        self.psnr = psnr
        self.restarted = self.clock = time.perf_counter()
        self.first_timed = self.step

    @property
    def minutes(self) -> float:
        """Since the last `restart`."""
        return (time.perf_counter() - self.restarted) / 60

    def measure(self, terms: dict[str, Tensor], stop: StopSignal, optimizer: Optimizer) -> dict[str, float]:
        """The loss terms of this step as numbers, with "images_per_second" since the last call, and "learning_rate".

        Waits for the device. Processes that share the batch get the mean of their terms, and agree on whether to stop.
        A term that is not finite any more is a `UsageError`.
        """
        asked = terms["loss"].new_tensor(float(stop.received is not None))
        *values, asked = all_reduce_mean(torch.stack([*(term.detach() for term in terms.values()), asked])).tolist()
        stop.agreed = asked > 0
        values, made = dict(zip(terms, values, strict=True)), self.step + 1
        for name, value in values.items():
            if not math.isfinite(value):
                self.bar.close()
                raise UsageError(f"{name} is {value} after step {made}, training has diverged; lower LEARNING_RATE")
        speed = (made - self.first_timed) * self.batch_size / (time.perf_counter() - self.clock)
        self.first_timed, self.clock = made, time.perf_counter()
        text, room = f"{speed:.0f} img/s", shutil.get_terminal_size().columns - ROOM
        others = (f"{term} {value:.3f}" for term, value in values.items() if term != "loss")
        for entry in (f"loss {values['loss']:.3f}", self.psnr, *others):
            text += f", {entry}" if entry and len(text) + len(entry) + 2 <= room else ""
        self.bar.set_postfix_str(text)
        return {"images_per_second": speed, **values, "learning_rate": optimizer.param_groups[0]["lr"]}
