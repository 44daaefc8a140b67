"""The benchmark counts what it says it counts. How fast things are is no test's business."""

import mmap
import re
import sys

import numpy as np
import pytest

from leae.analysis import bench
from leae.analysis.bench import Training, flop_per_image, peak_memory
from leae.data.batches import Batches
from leae.training.settings import script_constants
from tests.conftest import CPU, run_leae

SIZES = {"IMAGE_SIZE": 32, "HIDDEN_DIM": 8, "LATENT_DIM": 6, "MAP_CHANNELS": 8, "CROP_RATIOS": (0.5,)}
SMALL = script_constants("main.py", gpu=False) | bench.PUBLISHED | SIZES


def counted(settings):
    """Multiplications and additions of an encoding, of a decoding and of the stem, from the layers' sizes."""
    h, size, latent, maps = (settings[name] for name in ("hidden_dim", "image_size", "latent_dim", "map_channels"))
    half, quarter, eighth = (size // 2) ** 2, (size // 4) ** 2, (size // 8) ** 2
    stem = half * 16 * 3 * h
    encoder = stem + quarter * 9 * (h * 2 * h + 2 * h * 2 * h) + eighth * 9 * (2 * h * maps + maps * maps)
    encoder += eighth * maps * latent
    # An upsampled convolution has 4 taps instead of 9; a 1×1 convolution comes before the upsampling.
    decoder = latent * maps * eighth
    decoder += quarter * (4 * maps * 2 * h + 9 * 2 * h * 2 * h + maps * 2 * h / 4)
    decoder += half * (4 * 2 * h * h + 9 * h * h + 2 * h * h / 4) + size**2 * 4 * h * 3
    return 2 * encoder, 2 * decoder, 2 * stem


def test_flop_are_those_of_two_encodings_two_decodings_and_five_judgements():
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    training = Training(SMALL, Batches(images, 32, 0, CPU), "float32")
    encoding, decoding, stem = counted(training.model.settings)
    # Backward costs twice the forward pass where weights and inputs get gradients, once for inputs alone; images
    # and what the judge is shown as a target get none, and the shortcuts have no weights.
    expected = 2 * (3 * encoding - stem) + 2 * 3 * decoding + (1 + 4 * 2) * encoding
    expected += 5 * 2 * 2 * 3 * SMALL["IMAGE_SIZE"] ** 3  # five crops, two matrix products each, two of them backward
    # SIGReg's projections and the sums of taps, once a batch, are beside it.
    assert flop_per_image(training) == pytest.approx(expected, rel=0.06)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell a process's peak memory")
def test_peak_memory_sees_what_is_in_use_for_a_moment_only():
    def fill(size):
        with mmap.mmap(-1, size) as memory:
            memory[:] = bytes(1) * size

    little, much = peak_memory(lambda: fill(2**20), CPU), peak_memory(lambda: fill(2**29), CPU)
    assert float(little.split()[0]) + 0.45 < float(much.split()[0])


def test_the_report_has_the_figures_of_each_precision_in_at_most_100_columns(workplace, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SETTINGS", {"small": ("a small one", True, SMALL)})
    monkeypatch.setattr(bench, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(bench, "matrix_product_rate", lambda device, precision: 1e12)
    monkeypatch.setattr(bench, "flop_per_image", lambda training: 2.5e9)
    run_leae(monkeypatch, "bench", "--steps", "2", "--device", "cpu", "--only", "small")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "a small one: 32×32, 8 images a step, 2.5 GFLOP an image" in said
    for precision in ("float32", "bfloat16"):
        row = re.search(rf"{precision} +([\d.]+) +([\d.]+) to ([\d.]+) +(\d+)% +[\d.]+ s +[\d.]+ GiB", said)
        median, low, high, share = map(float, row.groups())
        assert low <= median <= high
        assert share == pytest.approx(100 * median * 2.5e9 / 1e12, abs=0.6)
