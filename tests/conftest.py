"""What several tests share: an empty working folder, and small data sets on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

# The same examples at every run: a test that fails does so for everybody.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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
