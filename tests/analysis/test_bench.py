"""The benchmark counts what it says it counts. How fast things are is no test's business."""

import argparse
import re
import sys

import numpy as np
import pytest
import torch

from leae.analysis import bench
from leae.analysis.bench import Contestant, flop_per_image, peak_memory
from leae.data.batches import Batches
from tests.conftest import CPU

SIZES = {"IMAGE_SIZE": 32, "HIDDEN_DIM": 8, "LATENT_DIM": 6, "SPATIAL_DIM": 8, "MAP_CHANNELS": 8, "CROP_RATIOS": (0.5,)}
SMALL = bench.script_constants(bench.SCRIPT, gpu=False) | bench.PUBLISHED | SIZES
SPATIAL = {**SMALL, "LATENT": "spatial", "CROP_RATIOS": (0.5, 1.0), "JUDGE_DECAY": 0.99, "JUDGE_NORM": "whitened"}


def contestant(plain, constants=SMALL, batch_size=4):
    size = constants["IMAGE_SIZE"]
    images = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    return Contestant(constants, Batches(images, batch_size, 0, CPU), plain)


def counted(model, fast):
    """Multiplications and additions of an encoding and of a decoding, from the layers' sizes."""
    h, size = model.settings["hidden_dim"], model.settings["image_size"]
    latent, maps = model.settings["latent_dim"], model.settings["map_channels"]
    half, quarter, eighth = (size // 2) ** 2, (size // 4) ** 2, (size // 8) ** 2
    encoder = half * 16 * 3 * h  # stem
    encoder += quarter * 9 * (h * 2 * h + 2 * h * 2 * h) + eighth * 9 * (2 * h * maps + maps * maps)
    encoder += eighth * maps * latent
    taps, sooner = (4, 4) if fast else (9, 1)  # of an upsampled convolution; how many fewer pixels 1×1 ones see
    decoder = latent * maps * eighth
    decoder += quarter * (taps * maps * 2 * h + 9 * 2 * h * 2 * h + maps * 2 * h / sooner)
    decoder += half * (taps * 2 * h * h + 9 * h * h + 2 * h * h / sooner) + size**2 * taps * h * 3
    return 2 * encoder, 2 * decoder, 2 * half * 16 * 3 * h


@pytest.mark.parametrize("fast", [True, False])
def test_flop_are_those_of_two_encodings_two_decodings_and_five_judgements(fast):
    encoding, decoding, stem = counted(contestant(not fast).model, fast)
    # Backward costs twice the forward pass where weights and inputs get gradients, once for inputs alone; images
    # and what the judge is shown as a target get none, and the shortcuts have no weights.
    expected = 2 * (3 * encoding - stem) + 2 * 3 * decoding + (1 + 4 * 2) * encoding
    if fast:  # five crops, two matrix products each, two of them backward
        expected += 5 * 2 * 2 * 3 * SMALL["IMAGE_SIZE"] ** 3
    # SIGReg's projections and the sums of taps, once a batch, are beside it.
    assert flop_per_image(contestant(not fast, batch_size=32)) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("constants", [SMALL, SPATIAL], ids=["pooled", "spatial"])
def test_both_contestants_train_the_same_model_on_the_same_batches(constants):
    plain, fast = contestant(True, constants), contestant(False, constants)
    for _ in range(2):
        plain.step()
        fast.step()
    first, second = (torch.cat([p.flatten() for p in each.model.parameters()]) for each in (plain, fast))
    # Not all: in float32 the sign of a tiny gradient is chance, and Adam's first steps are long whatever the gradient.
    assert ((first - second).abs() < 1e-4).double().mean() > 0.95
    assert not plain.model.decoder.up1.conv2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell a process's peak memory")
def test_peak_memory_sees_what_is_in_use_for_a_moment_only():
    nothing = peak_memory(lambda: None, CPU)
    assert peak_memory(lambda: np.ones(300 * 2**20, np.uint8).sum(), CPU) - nothing > 250 * 2**20


def test_constants_are_the_scripts_for_either_hardware(tmp_path):
    script = tmp_path / "script.py"
    lines = ("gpu = torch.cuda.is_available()", "SIZE = 128 if gpu else 64  # side", "SHARE = 0.5", "small = nothing")
    script.write_text("\n".join([*lines, "def main():", "    INNER = nothing"]))
    assert bench.script_constants(script, gpu=True) == {"SIZE": 128, "SHARE": 0.5}
    assert bench.script_constants(script, gpu=False) == {"SIZE": 64, "SHARE": 0.5}


def test_the_report_names_hardware_setting_and_figures(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SETTINGS", {"small": ("a small one", True, SMALL)})
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    bench.main(parser.parse_args(["--steps", "2", "--device", "cpu", "--only", "small"]))
    said = capsys.readouterr().out
    assert "a small one: 32×32, 8 images a step" in said
    speeds = [float(speed) for speed in re.findall(r"(\d+\.\d) images/s \(", said)]
    ratio = float(re.search(r"ratio +([\d.]+)", said)[1])
    assert ratio == pytest.approx(speeds[1] / speeds[0], rel=0.02)
