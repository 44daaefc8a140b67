"""Finding the device to train on."""

import pytest
import torch

from leae.device import describe, device_name, find_device
from leae.errors import UsageError


def test_the_cpu_is_always_there():
    device = find_device("cpu")
    assert device == torch.device("cpu")
    assert "threads" in device_name(device)
    assert "the model is small, on a GPU it has the published size" in describe(device)


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "meta device"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=r"DEVICE is .*; choose .*cpu"):
        find_device(name)


@pytest.mark.gpu
def test_a_gpu_has_a_name():
    assert device_name(find_device("cuda")) == torch.cuda.get_device_name(0)
    assert describe(find_device("cuda")) == f"device: {torch.cuda.get_device_name(0)}"
