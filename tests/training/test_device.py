"""Finding the device to train on, and compiling for it."""

import copy
import re
from functools import partial

import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.layers import float64_device
from leae.objective import SelfTeachingObjective
from leae.training.device import compiled, find_device
from tests.conftest import CPU


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "meta", "hpu"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=repr(name)):
        find_device(name)


def test_on_an_apple_gpu_float64_is_the_cpus():
    assert [float64_device(torch.device(name)).type for name in ("mps", "cuda", "cpu")] == ["cpu", "cuda", "cpu"]


def test_a_function_is_compiled_once_and_whole_for_all_steps(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.manual_seed(0)
    model = Autoencoder(16, 3, hidden_dim=4, latent_dim=6, map_channels=4)
    judge, objective = Judge(model.encoder), SelfTeachingObjective()
    terms = compiled(objective.terms, CPU)
    for step in range(4):
        images = torch.rand(8, 3, 16, 16)
        draws = objective.draw(judge, images, torch.Generator().manual_seed(step))
        plain = objective.terms(model, copy.deepcopy(judge), images, draws, step)
        torch.testing.assert_close(terms(model, judge, images, draws, step), plain)
    assert len(graphs) == 1


@pytest.mark.parametrize("error", [RuntimeError("no compiler"), ImportError(), KeyError("inductor")])
def test_where_the_compiler_fails_the_function_itself_is_called_which_is_said_once(monkeypatch, capsys, error):
    def broken(function, mode=None):
        def call(*arguments):
            raise error

        return call

    monkeypatch.setattr(torch, "compile", broken)
    double = compiled(lambda x: 2 * x, CPU)
    assert [double(3), double(4)] == [6, 8]
    assert re.fullmatch(r"torch.compile does not work here \(.+\); going on without it\n", capsys.readouterr().out)
