"""What several tests share: an empty working folder, small data sets on disk, short training runs."""

import csv
import os
import re
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch.torch_version import TorchVersion

import leae.__main__
from leae.training.run import Run
from tests.processes import Processes, draw_no_metrics

ROOT, CPU = Path(__file__).parent.parent, torch.device("cpu")
# Older versions cut a compiled step into several graphs, compile its backward later, and ask CUDA even of fake tensors.
newer_pytorch = pytest.mark.skipif(TorchVersion(torch.__version__) < "2.10", reason="needs PyTorch 2.10")
RUNS = ["runs/self-teaching-001", "runs/masked-001"]  # of `trained_place`
SHORT = [  # a training run of seconds, the same on a CPU with bfloat16 and without
    *["--dataset", "faces", "--faces", "64", "--held-out", "32"],
    *["--device", "cpu", "--precision", "float32", "--no-compile"],  # wherever there is a GPU, too
    *["--batch-size", "8", "--epochs", "2", "--log-every", "4", "--grid-every", "6", "--grid-images", "3"],
]
SMALL = ["--image-size", "16", "--hidden-dim", "4", "--map-channels", "4", "--latent-dim", "8"]
TINY = [*SHORT, *SMALL]
LONG = [*TINY, "--epochs", "500", "--log-every", "1", "--grid-every", "100000", "--save-minutes", "60"]

# The models are tiny, and several tests run at a time: one thread for each, in the processes that they start as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# The same examples at every run: a test that fails does so for everybody.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Starts real processes that run the scripts, within milliseconds each."""
    started = Processes()
    yield started
    started.close()


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, where data/ and runs/ would appear."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_image(path: Path, number: int, size: tuple[int, int] = (40, 32)) -> None:
    """An image of one colour that tells its number: red is 2 · number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (2 * number % 256, 100, 50)).save(path, quality=98)


def number_of(image: np.ndarray) -> int:
    """The number that `write_image` wrote into an image."""
    return round(float(image[..., 0].mean()) / 2)


@pytest.fixture(scope="session")
def trained_place(tmp_path_factory) -> Path:
    """A folder with a short self-teaching run, a masked, a variational and a digits one, all at their end."""
    place = tmp_path_factory.mktemp("trained")
    short = [*TINY, "--faces", "144", "--held-out", "1000", "--batch-size", "16", "--epochs", "1"]
    digits = [*SHORT, "--dataset", "digits", "--model", "conv", "--max-steps", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_script(patch, "main.py", *short)
        run_script(patch, "main_regular.py", *short)
        run_script(patch, "main_regular.py", *short, "--objective", "variational", "--max-steps", "2")
        run_script(patch, "main_regular.py", *digits, "--objective", "plain")
    return place


@pytest.fixture
def trained(trained_place, monkeypatch) -> Path:
    """The folder of `trained_place` as the working folder."""
    monkeypatch.chdir(trained_place)
    return trained_place


def run_script(monkeypatch, script: str, *options: str) -> None:
    """Run a training script in this process, as `python main.py --option` would in its own, but for metrics.png."""
    monkeypatch.setattr(Run, "plot_metrics", draw_no_metrics)
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(str(ROOT / script), run_name="__main__")


def run_leae(monkeypatch, command: str, *options: str) -> None:
    """Run a command in this process, as `python -m leae compare --option` would in its own."""
    monkeypatch.setattr(sys, "argv", ["leae", command, *options])
    leae.__main__.main()


def assert_one_line(monkeypatch, capsys, command: str, *options: str, says: str) -> None:
    """The script or the command answers these options with one line and the exit status 2."""
    run = run_script if command.endswith(".py") else run_leae
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, command, *options)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert re.search(f"^[a-z_. ]+: .*{says}", printed.err)
    assert (printed.out + printed.err).count("\n") == 1


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers of N(0, 1), float32, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def metrics_of(folder):
    """The rows of metrics.csv without the column that measures time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


def wait_for_step(folder, step):
    """Wait until a run in another process has logged a step."""
    until = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() or not any(int(row["step"]) >= step for row in metrics_of(folder)):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
