"""A training loop's parts: its steps and their learning rates, the progress bar, the signal to stop."""

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from leae.distributed import all_reduce_mean, barrier, world_size
from leae.errors import UsageError, signals_to_end
from leae.progress import progress_bar

REPORT_EVERY = 600  # seconds, at most, between lines where there is no terminal
BAR = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"


@dataclass(frozen=True)
class Schedule:
    """The length of a run and its learning rate, a function of the step alone."""

    epochs: int  # passes over the training images
    max_steps: int  # the run ends after so many if its epochs are longer; 0 is no limit
    learning_rate: float  # at its peak
    warmup: float  # share of the run in which it rises linearly to the peak, in [0, 1)
    kind: str  # afterwards: "cosine" falls along half a cosine toward 0, "constant" stays

    def total_steps(self, steps_per_epoch: int) -> int:
        """The steps of the run; where two constants limit them, prints a line that says so."""
        steps = self.epochs * steps_per_epoch
        if not self.max_steps:
            return steps
        print(f"steps: the fewer of MAX_STEPS, {self.max_steps:,}, and of {self.epochs} epochs, {steps:,}")
        return min(steps, self.max_steps)

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The learning rate of a step from 0 to total_steps − 1."""
        rising = self.warmup * total_steps
        if step < rising:
            return self.learning_rate * ((step + 1) / (rising + 1))
        if self.kind == "constant":
            return self.learning_rate
        return self.learning_rate * (0.5 * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising))))


class StopSignal:
    """`with StopSignal() as stop:` within the block a first Ctrl-C or one of `signals_to_end` only sets `requested`.

    A second one, at least a second later, has the effect that it had before the block, and ends the process at once. An
    earlier one is the first: what a whole group of processes was sent also comes by way of a launcher, as `uv run`.
    Processes that share a run have to stop after the same step: there `requested` waits until they `agree`.
    """

    def __init__(self):
        self.received: int | None = None  # the signal
        self.at = 0.0  # when, by `time.monotonic`
        self.agreed = False  # by all processes

    def __enter__(self) -> "StopSignal":
        self.before = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, *signals_to_end())}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.received is None:
            self.received, self.at = number, time.monotonic()
        elif time.monotonic() > self.at + 1:
            self.__exit__()
            signal.raise_signal(number)

    @property
    def requested(self) -> bool:
        """Whether the run is to be saved and left."""
        return self.received is not None if world_size() == 1 else self.agreed

    def agree(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Scalar tensors as numbers: their means over all processes, which in the same exchange agree whether to stop.

        Waits for the device.
        """
        asked = next(iter(terms.values())).new_tensor(float(self.received is not None))
        *values, asked = all_reduce_mean(torch.stack([*(term.detach() for term in terms.values()), asked])).tolist()
        self.agreed = asked > 0
        return dict(zip(terms, values, strict=True))

    def exit(self, step: int, folder: Path) -> NoReturn:
        """End the process, once the run is saved, with the status 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1."""
        launcher = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} " if world_size() > 1 else ""
        command = f"uv run {launcher}{shlex.join([sys.argv[0], '--resume', str(folder)])}"
        print(f"stopped after step {step:,} and saved; resume with: {command}", flush=True)
        barrier()  # torchrun ends the others when it sees the first one go, and one of them may still be writing
        sys.exit(128 + (self.received or signal.SIGTERM))


class Progress:
    """Iterates over the steps of a run behind a progress bar, and once more after the last one, to evaluate.

    A `UsageError` if more steps have been made, `start`, than the run has.
    """

    def __init__(self, start: int, total_steps: int, batch_size: int):
        if start > total_steps:
            raise UsageError(f"the checkpoint is at step {start:,} of only {total_steps:,}; start a new run")
        options = {"initial": start, "total": total_steps, "bar_format": BAR, "leave": True}
        self.bar = progress_bar(range(start, total_steps + 1), **options)
        self.batch_size, self.total_steps, self.step = batch_size, total_steps, start
        self.latest, self.reported = "", time.perf_counter()  # what is said of the last steps, and when a line was
        self.restart()

    def __iter__(self) -> Iterator[int]:
        for step in self.bar:
            self.step = step
            yield step

    def restart(self) -> None:
        """Measure from here on: an evaluation, or a checkpoint, took time."""
        self.restarted = self.clock = time.perf_counter()
        self.first_timed = self.step

    @property
    def minutes(self) -> float:
        """Since the last `restart`."""
        return (time.perf_counter() - self.restarted) / 60

    def show(self, terms: dict[str, float]) -> float:
        """Show speed and loss of the step just made on the bar; images per second since the last call.

        A term that is not finite any more is a `UsageError`.
        """
        made = self.step + 1
        for name, value in terms.items():
            if not math.isfinite(value):
                self.bar.close()
                diverged = f"{name} is {value} after step {made}, training has diverged"
                raise UsageError(f"{diverged}; start again with a lower LEARNING_RATE")
        speed = (made - self.first_timed) * self.batch_size / (time.perf_counter() - self.clock)
        self.first_timed, self.clock = made, time.perf_counter()
        shown = f"{speed:.0f} img/s, loss {terms['loss']:.3f}"
        self.bar.set_postfix_str(shown)
        left = tqdm.format_interval((self.total_steps - made) * self.batch_size / speed)
        self.latest = f"{shown}, {left} left"
        if time.perf_counter() > self.reported + REPORT_EVERY:
            self.report()
        return speed

    def report(self, measured: str = "") -> None:
        """Where there is no terminal, and so no bar, print a line with the step, its speed, and what was measured."""
        if self.bar.disable and self.step < self.total_steps:  # behind the last one, the script says it all
            said = ", ".join(filter(None, (self.latest, measured)))
            print(f"step {self.step:,} of {self.total_steps:,}: {said}", flush=True)
        self.reported = time.perf_counter()
