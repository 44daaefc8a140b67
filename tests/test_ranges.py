"""The range of every constant that the method takes, with every kind of value outside it."""

from functools import partial

import pytest

from leae.autoencoder import Autoencoder, VariationalAutoencoder, build
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.masking import crop_side, mask_side
from leae.objective import SelfTeachingObjective
from leae.randomness import seed_weights
from leae.reconstruction import ReconstructionLoss
from leae.training.evaluation import NoisyViews

objective = partial(SelfTeachingObjective, 64)
model = partial(build, Autoencoder, image_size=64, hidden_dim=32, map_channels=32)
spatial = partial(model, latent="spatial")
variational = partial(build, VariationalAutoencoder, image_size=32, hidden_dim=32, latent="spatial")
judge = partial(Judge, model(hidden_dim=4).encoder)
NAN, INFINITE = float("nan"), float("inf")
CASES = [  # what takes the constant, by which name, values that cannot be, and what the answer says
    (objective, "kind", ["pixels", 1, None], "OBJECTIVE is .* symmetric, alternating or crop"),
    (objective, "mask_ratio", [0.0, 1.0, 1.2, -0.1, 1e-9], "MASK_RATIO is .* (in \\(0, 1\\)|between 6.1e-05)"),
    (objective, "mask_ratio", ["0.35", NAN, True], "MASK_RATIO is .* a number in \\(0, 1\\)"),
    (objective, "crop_ratios", [(0.0,), (0.15, 1.5)], "CROP_RATIOS is .* a number in \\(0, 1\\]"),
    (objective, "crop_ratios", [(), 0.15, "0.15", [0.15]], "CROP_RATIOS is .* a tuple of at least one number"),
    (objective, "crop_ratios", [("0.15",), (NAN,), ([0.15],)], "CROP_RATIOS is .* a number in \\(0, 1\\]"),
    (objective, "crop_ratios", [(0.2, 0.2), (1, 1.0)], "CROP_RATIOS is .* different"),
    (objective, "sigreg_weight", [NAN, INFINITE, "0.03", -1], "SIGREG_WEIGHT is .* a number in \\[0, inf\\)"),
    (judge, "decay", [1.0, -0.1, NAN, 10**400, "0.99", None], "JUDGE_DECAY is .* a number in \\[0, 1\\)"),
    (judge, "ruler", ["inch", 0], "JUDGE_NORM is .* shared, own or whitened"),
    (
        partial(judge, norm="whitened"),
        "epsilon",
        [0, -1.0, NAN, "1"],
        "WHITENING_EPSILON is .* a number in \\(0, inf\\)",
    ),
    (model, "latent", ["round", 5], "LATENT is .* pooled or spatial"),
    (model, "image_size", [0, 4, -8, 64.0, "64"], "IMAGE_SIZE is .* a whole number, at least 8"),
    (model, "image_size", [100], "IMAGE_SIZE is 100; .* a multiple of 8, of which 96 and 104 are the nearest"),
    (model, "hidden_dim", [0, -1, 32.0, "32", 10**6], "HIDDEN_DIM is .* at (least 1|most 65536)"),
    (model, "latent_dim", [0, 12.5, True, 10**6], "LATENT_DIM is .* at (least 1|most 65536)"),
    (model, "map_channels", [0, "32"], "MAP_CHANNELS is .* a whole number, at least 1"),
    (model, "map_channels", [30], "MAP_CHANNELS is 30; .* 8 × HIDDEN_DIM = 256, as 8, 16, 32 are"),
    (variational, "latent_dim", [96], "SPATIAL_DIM is 96; .* 4 × HIDDEN_DIM = 128, as 32, 64, 128 are"),
    (ConvAutoencoder, "latent_dim", [0, "32", 10**6], "CONV_LATENT_DIM is .* at (least|most)"),
    *[(kind, "image_channels", [0], "image_channels is 0; .* at least 1") for kind in (model, ConvAutoencoder)],
    (VariationalConvAutoencoder, "batch_norm", [True], "batch_norm is True; .* False for a variational encoder"),
    *[(kind, "output", ["tanh", 1], "OUTPUT is .* sigmoid or linear") for kind in (model, ReconstructionLoss)],
    (ReconstructionLoss, "kind", ["mae", 1], "RECONSTRUCTION_LOSS is .* mse or bce"),
    (NoisyViews, "deviation", [0, 1.5, -1, NAN, "0.2"], "NOISE is .* a number in \\(0, 1\\]"),
    (seed_weights, "seed", [-1, 0.5, "0", True, 2**63], "SEED is .* at (least 0|most 9223372036854775807)"),
]
LINES = [(take, name, value, says) for take, name, values, says in CASES for value in values]


@pytest.mark.parametrize(("take", "name", "value", "says"), LINES, ids=[f"{n}={v!r}" for _, n, v, _ in LINES])
def test_a_value_that_cannot_be_is_refused_with_its_name_and_what_can(take, name, value, says):
    with pytest.raises(UsageError, match=says):
        take(**{name: value})


def test_the_ends_of_the_ranges_and_what_a_refusal_names_work():
    objective(crop_ratios=(1, 0.15), sigreg_weight=0)
    judge(decay=0)
    NoisyViews(1)
    seed_weights(2**63 - 1)
    assert (crop_side(64, 2 / 64), crop_side(64, 1.0)) == (2, 64)
    assert (mask_side(64, 0.0001), mask_side(64, 0.984)) == (1, 63)
    spatial(latent_dim=256)
    variational(latent_dim=128)
