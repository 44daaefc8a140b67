"""Finding the device to train on, and compiling for it."""

import copy
import os
import re
from functools import partial

import pytest
import torch
from functorch.compile import make_boxed_compiler
from torch._dynamo.backends.common import aot_autograd

from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.layers import float64_device
from leae.objective import SelfTeachingObjective
from leae.training.device import compiled, find_device, precision_on
from tests.conftest import CPU, newer_pytorch


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "meta", "hpu"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(UsageError, match=repr(name)):
        find_device(name)


def test_a_process_turns_to_its_own_gpu_before_it_allocates_and_memory_that_ran_out_is_called_that(monkeypatch):
    done = []

    def allocate(*size, device):
        done.append(device)
        raise torch.OutOfMemoryError("CUDA out of memory")

    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    monkeypatch.setattr("os.environ", os.environ | environment)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: done.append("set"))
    monkeypatch.setattr(torch, "empty", allocate)
    with pytest.raises(torch.OutOfMemoryError):
        find_device("cuda")
    assert done == ["set", torch.device("cuda", 1)]


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_a_gpu_computes_in_it_and_not_where_it_only_emulates(monkeypatch, supported, expected):
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or supported
    )
    assert precision_on(torch.device("cuda"), "auto") == expected
    assert precision_on(torch.device("cuda"), "float32") == "float32"


def test_on_an_apple_gpu_float64_is_the_cpus():
    assert [float64_device(torch.device(name)).type for name in ("mps", "cuda", "cpu")] == ["cpu", "cuda", "cpu"]


@newer_pytorch
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
        draws = objective.draw(judge, images, torch.Generator().manual_seed(step), step)
        plain = objective.terms(model, copy.deepcopy(judge), images, draws)
        torch.testing.assert_close(terms(model, judge, images, draws), plain)
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
    said = r"compile: .*\ntorch.compile does not work here \(.+\); going on without it\n"
    assert re.fullmatch(said, capsys.readouterr().out)


@newer_pytorch
def test_where_the_compiler_fails_at_the_backward_alone_the_step_goes_on_without_it(monkeypatch, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no compiler for this")

    backend = aot_autograd(fw_compiler=make_boxed_compiler(lambda graph, inputs: graph), bw_compiler=broken)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    cubes = compiled(lambda x: x**3, CPU)
    for _ in range(2):
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        cubes(x).sum().backward()
        assert x.grad.tolist() == [3, 12]
    assert capsys.readouterr().out.count("torch.compile does not work here") == 1
