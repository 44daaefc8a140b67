"""The steps of a run behind a progress bar, timed, until they are made or somebody stops the run."""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from leae.distributed import all_reduce_mean, barrier, rank
from leae.errors import UsageError
from leae.training.signals import Stop, command_to_resume


class Pace:
    """Counts out the steps of a run and measures how fast they are, without what is done besides training.

    While it counts, the first Ctrl-C or SIGTERM does not end the process but is told by `stopping`.

    Args:
        start: the first step to make.
        total_steps: of the whole run.
        batch_size: images per step.

    Raises:
        UsageError: more steps have been made than the run has, as no run's checkpoint says.
    """

    def __init__(self, start: int, total_steps: int, batch_size: int):
        if start > total_steps:
            raise UsageError(
                f"last.pt says that {start:,} steps were made, of a run of {total_steps:,}; start a new run"
            )
        self.batch_size = batch_size
        self.stop, self.all_stop = Stop(), False
        steps, quiet = range(start, total_steps), rank() > 0
        self.bar = tqdm(steps, initial=start, total=total_steps, mininterval=1, dynamic_ncols=True, disable=quiet)
        self.rest()

    def __iter__(self) -> Iterator[int]:
        with self.stop:
            for step in self.bar:
                self.timed += 1
                self.done = step + 1
                yield step

    def rest(self) -> None:
        """Something else took time; measure from here on."""
        self.rested = self.clock = time.perf_counter()
        self.timed = 0

    @property
    def minutes_since_rest(self) -> float:
        return (time.perf_counter() - self.rested) / 60

    @property
    def stopping(self) -> bool:
        """Whether the run is to be saved and left after this step.

        Processes that share a run have to leave it after the same step. They agree where they exchange the terms
        anyway, in `measure`, so that other steps need not wait for each other's hosts.
        """
        return self.stop.signal is not None if world_size() == 1 else self.all_stop

    def leave(self, folder: Path) -> NoReturn:
        """End the process, once the run is saved; says how to go on."""
        self.bar.close()
        print(f"stopped after step {self.done:,} and saved; go on with: {command_to_resume(folder)}", flush=True)
        barrier()  # a launcher ends the others when it sees the first one go, and one of them is still writing
        sys.exit(self.stop.status)

    def measure(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """The terms as numbers, after "images_per_second" since the last measurement or rest; shown on the bar, too.

        Where several processes share the batch, each has its rows' terms and gets their mean.

        Raises:
            UsageError: a term is not finite any more.
        """
        asked = terms["loss"].new_tensor(float(self.stop.signal is not None))
        together = all_reduce_mean(torch.stack([*(term.detach() for term in terms.values()), asked]))
        *numbers, asked = together.tolist()  # waits for the device, once
        self.all_stop = asked > 0
        values = dict(zip(terms, numbers, strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                self.bar.close()
                raise UsageError(
                    f"{name} is {value} after step {self.done}, training has diverged; lower LEARNING_RATE"
                )
        speed = self.timed * self.batch_size / (time.perf_counter() - self.clock)
        self.timed, self.clock = 0, time.perf_counter()
        self.bar.set_postfix_str(f"{speed:.0f} img/s, " + ", ".join(f"{name} {v:.3f}" for name, v in values.items()))
        return {"images_per_second": speed, **values}
