"""Random numbers as a function of (seed, purpose, index), so that a resumed run is the run that was stopped.

Nothing random is carried from one step to the next.
"""

import numpy as np
import torch

PURPOSES = ("order", "step", "evaluation", "noise", "samples", "selection", "metrics")


def generator(seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that depends on the other arguments alone: a seed, one of `PURPOSES`, and a step, say."""
    # NumPy's SeedSequence mixes the three numbers into well-spread bits; neighbouring seeds of PyTorch's own
    # generators may otherwise start alike.
    mixed = np.random.SeedSequence((seed, PURPOSES.index(purpose), index)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed >> 1))  # manual_seed takes 63 bits
