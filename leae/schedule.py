"""The learning rate over a run, as a function of the step alone."""

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
