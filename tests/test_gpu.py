"""The training step on a GPU: against the CPU's, compiled, without waits of the host; and what of it a CPU can tell."""

import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import leae
from leae.analysis.bench import Training
from leae.autoencoder import Autoencoder
from leae.data.batches import Batches
from leae.judge import Judge
from leae.objective import OBJECTIVES, Draws, SelfTeachingObjective
from leae.training.device import autocast, find_device
from leae.training.run import Run
from leae.training.settings import script_constants
from tests.conftest import CPU, TINY, newer_pytorch, run_script

SIZES = {"IMAGE_SIZE": 32, "HIDDEN_DIM": 32, "LATENT_DIM": 32, "MAP_CHANNELS": 16, "BATCH_SIZE": 16}
SMALL = script_constants("main.py", gpu=True) | SIZES
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)


class On(TorchDispatchMode):
    """Refuses operations with a tensor on another device."""

    def __init__(self, device: str):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, options, result)) if isinstance(leaf, torch.Tensor)]
        assert {tensor.device.type for tensor in tensors} == {self.device}, operation
        return result


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=newer_pytorch)])
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_step_makes_every_tensor_on_its_device_and_reads_none(monkeypatch, device, kind, latent):
    """A GPU would have to wait for either. The tensors have no values: to read one, as `.item()` does, is an error.

    PyTorch has no backward for tensors that only claim to be on a GPU, and on "meta" no autocast, and lists as indices.
    """
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)
    if device == "meta":
        monkeypatch.setattr(torch, "autocast", lambda *kind, **options: nullcontext())
    draws = type("Draws", (torch.Generator,), {"device": torch.device(device)})()
    with FakeTensorMode() if device == "cuda" else nullcontext():
        with torch.device(device):
            model = Autoencoder(32, 3, hidden_dim=8, latent=latent, latent_dim=8, map_channels=8)
            images = torch.rand(8, 3, 32, 32)
        judge, objective = Judge(model.encoder), SelfTeachingObjective(kind)
        with On(device):
            terms = objective(model, judge, images, draws)
            if device == "meta":
                terms["loss"].backward()
            judge.update(model.encoder)


@pytest.fixture
def gpu():
    """A GPU, as a run finds it; afterwards PyTorch's settings are as they were."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield find_device("cuda")
    torch.cuda.set_sync_debug_mode("default")
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def trained(device: torch.device, precision: str = "float32", compiling: bool = False, steps: int = 6) -> Training:
    """A training of the GPU's constants, with a small model, after some steps: the images are on the GPU by then."""
    training = Training(SMALL, Batches(IMAGES, SMALL["BATCH_SIZE"], 0, device), precision, compiling)
    for _ in range(steps):
        training.step()
    return training


def movement(training: Training) -> torch.Tensor:
    """How a training's weights differ from those that it began with, as one vector on the CPU."""
    began, now = (trained_for.model.parameters() for trained_for in (trained(CPU, steps=0), training))
    return torch.cat([(end.detach().cpu() - begin).flatten() for begin, end in zip(began, now, strict=True)])


def terms_and_gradient(device: torch.device, precision: str) -> tuple[dict[str, float], torch.Tensor]:
    """Those of a first step from draws of the CPU."""
    training = trained(device, steps=0)
    images = torch.from_numpy(IMAGES[:16]).permute(0, 3, 1, 2).float() / 255
    masks, crops, directions = training.objective.draw(training.judge, images, torch.Generator().manual_seed(0))
    crops = {ratio: None if corners is None else corners.to(device) for ratio, corners in crops.items()}
    draws = Draws([mask.to(device) for mask in masks], crops, [some.to(device) for some in directions])
    with autocast(device, precision):
        terms = training.objective.terms(training.model, training.judge, images.to(device), draws)
    terms["loss"].backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in training.model.parameters()])
    return {name: term.item() for name, term in terms.items()}, gradient.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "bound", "angle"), [("float32", 1e-4, 1e-6), ("bfloat16", 0.05, 0.01)])
def test_a_step_on_a_gpu_is_the_cpus(gpu, precision, bound, angle):
    """In float32 without TF32; the angle is one less the cosine between both gradients."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    (ours, gradient), (exact, theirs) = terms_and_gradient(gpu, precision), terms_and_gradient(CPU, "float32")
    assert ours == pytest.approx(exact, rel=bound, abs=bound)
    assert 1 - torch.cosine_similarity(gradient, theirs, dim=0) < angle


@pytest.mark.gpu
def test_a_compiled_step_is_compiled_whole_and_once_waits_for_nothing_and_learns_the_same(gpu):
    torch.compiler.reset()
    counters.clear()
    fast, plain = trained(gpu, compiling=True), trained(gpu)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert not counters["inductor"]["cudagraph_skips"]
    for training in (fast, plain):
        assert isinstance(training.batches.images, torch.Tensor)
        torch.cuda.set_sync_debug_mode("error")
        training.step()
        torch.cuda.set_sync_debug_mode("default")
    assert counters["stats"]["unique_graphs"] == 1
    ours, theirs = movement(fast), movement(plain)
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.95
    assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=0.05)


@pytest.mark.gpu
def test_two_runs_with_one_seed_and_a_resumed_one_agree_up_to_rounding(workplace, monkeypatch):
    log, options = Run.log, [*TINY, "--device", "cuda", "--log-every", "1"]

    def stop_after_half(run, split, step, *rest):
        log(run, split, step, *rest)
        if (split, step) == ("train", 8):
            os.kill(os.getpid(), signal.SIGINT)

    for name in ("whole", "again"):
        run_script(monkeypatch, "main.py", *options, "--name", name)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "log", stop_after_half)
        run_script(monkeypatch, "main.py", *options, "--name", "resumed")
    run_script(monkeypatch, "main.py", "--resume", "runs/resumed", "--device", "cuda")

    def weights(name: str, percent: str = "100") -> torch.Tensor:
        model = leae.load(f"runs/{name}/checkpoints/{percent}.safetensors")
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    began, whole = weights("whole", "000"), weights("whole")
    for name in ("again", "resumed"):
        assert torch.equal(weights(name, "000"), began)
        assert (weights(name) - whole).norm() < 0.1 * (whole - began).norm()
