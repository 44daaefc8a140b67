"""Finding the device to train on."""

import pytest
import torch

from leae.errors import UsageError
from leae.layers import float64_device
from leae.training.device import compile_if_it_works, find_device


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "meta", "hpu"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=repr(name)):
        find_device(name)


def test_on_an_apple_gpu_float64_is_the_cpus():
    assert [float64_device(torch.device(name)).type for name in ("mps", "cuda", "cpu")] == ["cpu", "cuda", "cpu"]


class Part(torch.nn.Linear):
    def project(self, x):
        return torch.relu(self(x))


def test_compiled_parts_compute_the_same_in_training_and_are_left_alone_in_evaluation(monkeypatch):
    called = []

    def compile(function, dynamic=None):
        return lambda x: called.append(getattr(function, "__name__", "")) or function(x)

    monkeypatch.setattr(torch, "compile", compile)
    part, decoder, x = Part(3, 3), torch.nn.Linear(3, 3), torch.ones(2, 3)
    names, expected = list(part.state_dict()), (part.project(x), decoder(x))
    compile_if_it_works(part, decoder, part)  # a live judge's encoder is the model's
    assert torch.equal(part.project(x), expected[0])
    assert torch.equal(decoder(x), expected[1])
    assert called[1:] == ["project", "forward"]  # the first one is a trial
    assert torch.equal(part.eval().project(x), expected[0])
    assert len(called) == 3
    assert list(part.state_dict()) == names


def test_where_the_compiler_does_not_work_nothing_changes(monkeypatch):
    def broken(function, dynamic=None):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    part = Part(3, 3)
    assert not compile_if_it_works(part)
    assert part.project(torch.ones(2, 3)).shape == (2, 3)
