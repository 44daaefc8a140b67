"""The library's own arguments: a value that cannot be is a ValueError that names the argument and the value."""

from functools import partial

import pytest

from leae.autoencoder import Autoencoder, VariationalAutoencoder, build
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.judge import Judge
from leae.masking import crop_side, mask_side
from leae.objective import SelfTeachingObjective
from leae.reconstruction import ReconstructionLoss

model = partial(build, Autoencoder, image_size=64, hidden_dim=32, map_channels=32)
spatial, variational = (
    partial(build, kind, image_size=32, hidden_dim=32, latent="spatial")
    for kind in (Autoencoder, VariationalAutoencoder)
)
judge = partial(Judge, model(hidden_dim=4).encoder)
NAN, INFINITE = float("nan"), float("inf")
CASES = [  # what takes an argument, the argument, and values that it cannot have
    (SelfTeachingObjective, "kind", ["pixels", 1, None]),
    (SelfTeachingObjective, "mask_ratio", [0.0, 1.0, -0.1, "0.35", NAN, True]),
    (SelfTeachingObjective, "crop_ratios", [(), 0.15, "0.15", [0.15], (0.2, 0.2), (1, 1.0)]),
    (SelfTeachingObjective, "crop_ratios", [(0.0,), (0.15, 1.5), ("0.15",), (NAN,), ([0.15],)]),
    (SelfTeachingObjective, "sigreg_weight", [NAN, INFINITE, "0.03", -1]),
    (partial(mask_side, 64), "mask_ratio", [1e-9, 0.999, 1.2]),
    (partial(crop_side, 64), "crop_ratio", [0.01, 0.0, 1.1]),
    (judge, "decay", [1.0, -0.1, NAN, 10**400, "0.99", None]),
    (judge, "norm", ["inch", 0]),
    (judge, "epsilon", [0, -1.0, NAN, "1"]),
    (model, "latent", ["round", 5]),
    (model, "image_size", [0, 4, -8, 64.0, "64", 100]),
    (model, "hidden_dim", [0, -1, 32.0, "32", 10**6]),
    (model, "latent_dim", [0, 12.5, True, 10**6]),
    (model, "map_channels", [0, "32", 30]),
    (spatial, "latent_dim", [0, 96, 30]),
    (variational, "latent_dim", [256]),
    (ConvAutoencoder, "latent_dim", [0, "32", 10**6]),
    *[(kind, "image_channels", [0]) for kind in (model, ConvAutoencoder)],
    (VariationalConvAutoencoder, "batch_norm", [True]),
    *[(kind, "output", ["tanh", 1]) for kind in (model, ConvAutoencoder, ReconstructionLoss)],
    (ReconstructionLoss, "kind", ["mae", 1]),
    (partial(ReconstructionLoss, "bce"), "output", ["linear"]),
]
LINES = [(take, name, value) for take, name, values in CASES for value in values]


@pytest.mark.parametrize(("take", "name", "value"), LINES, ids=[f"{n}={str(v)[:20]}" for _, n, v in LINES])
def test_a_value_that_cannot_be_is_a_value_error_that_names_both(take, name, value):
    with pytest.raises(ValueError, match=rf"\b{name} is ") as refusal:
        take(**{name: value})
    entries = value if isinstance(value, tuple) else ()
    assert any(f"is {each!r}" in str(refusal.value) for each in (value, *entries))


def test_the_ends_of_the_ranges_work():
    SelfTeachingObjective(crop_ratios=(1, 0.15), sigreg_weight=0)
    judge(decay=0)
    assert (crop_side(64, 2 / 64), crop_side(64, 1.0)) == (2, 64)
    assert (mask_side(64, 0.0001), mask_side(64, 0.984)) == (1, 63)
    spatial(latent_dim=256)
    variational(latent_dim=128)
