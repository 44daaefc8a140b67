"""The steps of a run behind a progress bar, and how fast they are."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from leae.distributed import all_reduce_mean, rank
from leae.errors import UsageError
from leae.training.signals import StopSignal


class Progress:
    """Iterates over the steps of a run, with one turn more than steps, for the last evaluation.

    A `UsageError` if more steps have been made, `start`, than the run has.
    """

    def __init__(self, start: int, total_steps: int, batch_size: int):
        if start > total_steps:
            raise UsageError(f"the checkpoint is of step {start:,}, of a run of {total_steps:,}; start a new run")
        turns = range(start, total_steps + 1)
        self.bar = tqdm(turns, initial=start, total=total_steps, mininterval=1, dynamic_ncols=True, disable=rank() > 0)
        self.batch_size, self.step = batch_size, start
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

    def measure(self, terms: dict[str, Tensor], stop: StopSignal) -> dict[str, float]:
        """The loss terms of this step as numbers, with "images_per_second" since the last call or `restart`.

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
        self.bar.set_postfix_str(f"{speed:.0f} img/s, " + ", ".join(f"{name} {v:.3f}" for name, v in values.items()))
        return {"images_per_second": speed, **values}
