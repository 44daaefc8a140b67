"""The steps of a run behind a progress bar, timed."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from leae.errors import UsageError
from leae.parallel import mean_of_all, rank


class Pace:
    """Counts out the steps of a run and measures how fast they are, without what is done besides training.

    Args:
        start: the first step to make.
        total_steps: of the whole run.
        batch_size: images per step.
    """

    def __init__(self, start: int, total_steps: int, batch_size: int):
        self.batch_size = batch_size
        steps, quiet = range(start, total_steps), rank() > 0
        self.bar = tqdm(steps, initial=start, total=total_steps, mininterval=1, dynamic_ncols=True, disable=quiet)
        self.rest()

    def __iter__(self) -> Iterator[int]:
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

    def measure(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """The terms as numbers, after "images_per_second" since the last measurement or rest; shown on the bar, too.

        Where several processes share the batch, each has its rows' terms and gets their mean.

        Raises:
            UsageError: a term is not finite any more.
        """
        together = mean_of_all(torch.stack([term.detach() for term in terms.values()]))
        values = dict(zip(terms, together.tolist(), strict=True))  # waits for the device, once
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
