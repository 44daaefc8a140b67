"""How long a run is, its optimizer, and the learning rate at each of its steps."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from leae.errors import require_choice, require_in, require_whole, say


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """A fused AdamW for a model's parameters; a `UsageError` for a weight decay below 0, or of 1 or more."""
    require_in("[0, 1)", WEIGHT_DECAY=weight_decay)
    return torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)


@dataclass(frozen=True)
class Schedule:
    """The length of a run and its learning rate, a function of the step alone; a `UsageError` outside a range."""

    epochs: int  # passes over the training images
    max_steps: int  # the run ends after so many if its epochs are longer; 0 is no limit
    learning_rate: float  # at its peak
    warmup: float  # share of the run in which it rises linearly to the peak
    kind: str  # afterwards: "cosine" falls along half a cosine toward 0, "constant" stays

    def __post_init__(self):
        require_whole(1, EPOCHS=self.epochs)
        require_whole(0, MAX_STEPS=self.max_steps)
        require_in("(0, 1)", LEARNING_RATE=self.learning_rate)
        require_in("[0, 1)", WARMUP=self.warmup)
        require_choice(("cosine", "constant"), SCHEDULE=self.kind)

    def total_steps(self, steps_per_epoch: int) -> int:
        """The steps of the run; says so where MAX_STEPS cuts its epochs short."""
        steps = self.epochs * steps_per_epoch
        if self.max_steps and steps > self.max_steps:
            say(f"steps: {self.max_steps:,}, the MAX_STEPS; {self.epochs} epochs would be {steps:,}")
            return self.max_steps
        return steps

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The learning rate of a step from 0 to total_steps − 1."""
        rising = self.warmup * total_steps
        if step < rising:
            return self.learning_rate * ((step + 1) / (rising + 1))
        if self.kind == "constant":
            return self.learning_rate
        return self.learning_rate * (0.5 * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising))))
