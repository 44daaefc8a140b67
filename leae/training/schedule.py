"""How long a run is, and the learning rate over it, as a function of the step alone."""

import math

SCHEDULES = ("cosine", "constant")


def learning_rate_factor(step: int, total_steps: int, warmup: float, schedule: str) -> float:
    """What the peak learning rate is multiplied by at a step.

    Args:
        step: from 0 to total_steps − 1.
        total_steps: of the whole run.
        warmup: share of the run in which the factor rises linearly to 1.
        schedule: afterwards, "cosine" falls along half a cosine toward 0, "constant" stays at 1.
    """
    rising = warmup * total_steps
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising)))


def count_steps(epochs: int, steps_per_epoch: int, max_steps: int) -> int:
    """The steps of a run of so many epochs, or max_steps if that is fewer, which is said; 0 is no limit."""
    steps = epochs * steps_per_epoch
    if max_steps and steps > max_steps:
        print(f"steps: {max_steps:,}, by MAX_STEPS; {epochs} epochs would be {steps:,}")
        return max_steps
    return steps
