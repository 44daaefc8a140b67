"""Checkpoint files: what was written comes back to the bit; what is damaged or forged is refused in one line."""

import json
import os
import resource
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

import leae
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.checkpoints import _checksum, find_weights, read_checkpoint, restore_checkpoint, state_of, write_checkpoint
from leae.errors import UsageError
from leae.judge import Judge

SIZES = {"image_size": 16, "hidden_dim": 4, "latent_dim": 4, "map_channels": 4}


def make_training(steps=1, **sizes):
    """A model, its optimizer and its judge, which have had some steps. The weights are channels-last, as in a run."""
    torch.manual_seed(0)
    model = Autoencoder(**{**SIZES, **sizes}).to(memory_format=torch.channels_last)
    judge, optimizer = Judge(model.encoder, crop_ratios=(1.0,)), torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        images = torch.rand(4, *model.image_shape)
        model(images).sum().backward()
        judge(images, images)  # folds the images into the moving average
        optimizer.step()
    return model, optimizer, judge


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint from which a run resumes."""
    path = tmp_path_factory.mktemp("checkpoints") / "last.safetensors"
    model, optimizer, judge = make_training()
    write_checkpoint(path, model, 7, state_of(model, optimizer, judge))
    return path


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(Autoencoder, {}), (Autoencoder, {"latent": "spatial"}), (VariationalAutoencoder, {"image_channels": 1})],
)
def test_load_needs_only_the_file_and_gives_the_same_reconstructions_to_the_bit(tmp_path, kind, sizes):
    model = kind(**{**SIZES, **sizes})
    images = torch.rand(4, *model.image_shape)
    model(images)  # moves the running statistics
    write_checkpoint(tmp_path / "100.safetensors", model, 5, state_of(model))
    loaded = leae.load(tmp_path / "100.safetensors")
    assert type(loaded) is kind
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))


def test_what_is_restored_makes_the_same_next_step_to_the_bit(written):
    model, optimizer, judge = make_training()
    fresh, its_optimizer, its_judge = make_training(steps=0)
    assert restore_checkpoint(written, fresh, its_optimizer, its_judge) == (7, {})
    images = torch.rand(4, *model.image_shape)
    for one, its in ((model, optimizer), (fresh, its_optimizer)):
        its.zero_grad()
        one(images).square().sum().backward()
        its.step()
    expected, found = state_of(model, optimizer, judge), state_of(fresh, its_optimizer, its_judge)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].stride() == tensor.stride()  # the fused kernel takes a moment's for granted


def forge(path, source, header=None, tensors=None):
    """A copy of a checkpoint with other metadata or tensors, and the checksum that a forger would compute."""
    original, content = read_checkpoint(source)
    header = {k: v for k, v in (original | (header or {})).items() if v is not None}
    content = {k: v for k, v in (content | (tensors or {})).items() if v is not None}
    header["crc32"] = _checksum(header, content)
    path.write_bytes(safetensors.torch.save(content, {"leae": json.dumps(header)}))
    return path


SETTINGS = make_training(steps=0)[0].settings
FORGED = {
    "another format": ({"format": 99}, {}, "99"),
    "no format": ({"format": None}, {}, "'format'"),
    "a step of text": ({"step": "7"}, {}, "'7'"),
    "a step before the first": ({"step": -1}, {}, "-1"),
    "an absurd step": ({"step": 10**400}, {}, "step 1000"),
    "a class that is none of ours": ({"class": "Linear"}, {}, "'Linear'"),
    "settings in a list": ({"settings": [1]}, {}, "mapping|list"),
    "a setting too many": ({"settings": {**SETTINGS, "colour": "red"}}, {}, "colour"),
    "absurd sizes": ({"settings": {**SETTINGS, "hidden_dim": 2**40}}, {}, "hidden_dim"),
    "sizes of 600 GB": ({"settings": {**SETTINGS, "hidden_dim": 2**16, "map_channels": 2**16}}, {}, "weights"),
    "a weight missing": ({}, {"model.encoder.stem.weight": None}, "weights"),
    "a weight of another shape": ({}, {"model.encoder.stem.weight": torch.ones(4, 3, 4, 5)}, "weights"),
    "an infinite moment": ({}, {"optimizer.encoder.stem.weight.exp_avg": torch.ones(4, 3, 4, 4) / 0}, "inf"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_checkpoint_is_refused_with_what_is_wrong_and_takes_no_memory(written, tmp_path, kind):
    header, tensors, says = FORGED[kind]
    path = forge(tmp_path / "file.safetensors", written, header, tensors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=rf"{path}.*({says})") as refusal:
        leae.load(path)
    assert "\n" not in str(refusal.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(
    ("header", "tensors"),
    [
        ({"settings": {**SETTINGS, "output": "linear"}}, {}),
        ({}, {"judge.encoder.stem.weight": None}),
        ({}, {"optimizer.encoder.stem.weight.exp_avg": torch.ones(2)}),
        ({}, {"optimizer.encoder.stem.weight.step": None}),
    ],
)
def test_what_is_of_another_run_is_not_restored(written, tmp_path, header, tensors):
    path = forge(tmp_path / "last.safetensors", written, header, tensors)
    with pytest.raises(UsageError, match=str(path)):
        restore_checkpoint(path, *make_training())


def test_what_is_not_a_safetensors_file_is_refused_and_nothing_in_it_executed(tmp_path, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch executed",)

    monkeypatch.chdir(tmp_path)
    torch.save({"format": 3, "model": Hostile()}, "pickle")
    Path("text").write_text("not a checkpoint")
    Path("huge header").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    Path("empty").touch()
    Path("folder").mkdir()
    os.mkfifo("pipe")  # which would be waited for
    for name in ("pickle", "text", "huge header", "empty", "folder", "pipe"):
        with pytest.raises(UsageError, match=f"^{name} "):
            leae.load(name)
    with pytest.raises(FileNotFoundError, match="nothing"):
        leae.load("nothing")
    assert not Path("executed").exists()


def test_a_folder_means_its_exported_model_or_its_last_kept_checkpoint(tmp_path):
    for name in ("model", "checkpoints/last", "checkpoints/100"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert find_weights(str(tmp_path)) == path
