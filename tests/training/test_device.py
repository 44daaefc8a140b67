"""Finding the device to train on."""

import pytest
import torch

from leae.errors import UsageError
from leae.layers import float64_device
from leae.training.device import compile_if_it_works, find_device


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "meta", "meta device", "hpu"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=repr(name)):
        find_device(name)


def test_on_an_apple_gpu_float64_is_the_cpus():
    assert [float64_device(torch.device(name)).type for name in ("mps", "cuda", "cpu")] == ["cpu", "cuda", "cpu"]


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def project(self, x):
        return torch.relu(self.linear(x))


def test_where_the_compiler_does_not_work_that_is_said_and_nothing_changes(monkeypatch, capsys):
    def broken(function, dynamic=None):
        def call(*arguments):
            raise RuntimeError("no compiler\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    part, x = Part(), torch.ones(2, 3)
    expected = part.project(x)
    compile_if_it_works(part)
    assert torch.equal(part.project(x), expected)
    assert "(no compiler)" in capsys.readouterr().out


def test_compiled_parts_compute_the_same_in_training_and_are_left_alone_in_evaluation(monkeypatch):
    called = []

    def compile(function, dynamic=None):
        return lambda x: called.append(getattr(function, "__name__", "")) or function(x)

    monkeypatch.setattr(torch, "compile", compile)
    part, decoder, x = Part(), torch.nn.Linear(3, 3), torch.ones(2, 3)
    names, expected = list(part.state_dict()), (part.project(x), decoder(x))
    compile_if_it_works(part, decoder, part)  # a live judge's encoder is the model's
    assert torch.equal(part.project(x), expected[0])
    assert torch.equal(decoder(x), expected[1])
    assert called[1:] == ["project", "forward"]  # the first one is a trial
    part.eval()
    assert torch.equal(part.project(x), expected[0])
    assert len(called) == 3
    assert list(part.state_dict()) == names
