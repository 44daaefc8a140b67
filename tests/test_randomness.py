"""Random numbers depend on seed, purpose and index, and on nothing else."""

import itertools

import torch

from leae.randomness import PURPOSES, generator


def draw(*arguments):
    return tuple(torch.randint(0, 2**31, (4,), generator=generator(*arguments)).tolist())


def test_other_arguments_draw_other_numbers_and_the_same_the_same_whatever_was_drawn_before():
    drawn = {arguments: draw(*arguments) for arguments in itertools.product(range(4), PURPOSES, range(50))}
    assert len(set(drawn.values())) == len(drawn)
    assert all(draw(*arguments) == drawn[arguments] for arguments in reversed(drawn))
