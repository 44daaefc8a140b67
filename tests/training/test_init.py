"""A new run that begins from another one's weights, and its name."""

import json
import shutil

import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.checkpoints import read_checkpoint, state_of, write_checkpoint
from leae.errors import UsageError
from leae.judge import Judge
from leae.training.run import Run, init_from_checkpoint
from tests.conftest import TINY, metrics_of, run_script
from tests.test_checkpoints import SIZES, make_training
from tests.training.test_run import make_run

DATA = [*TINY, "--faces", "144", "--held-out", "1000", "--batch-size", "16"]  # the trained runs'
LAST = "checkpoints/last.safetensors"


@pytest.fixture
def source(trained_place, workplace):
    """A copy of a trained run, with its data."""
    shutil.copytree(trained_place / "data", "data")
    return shutil.copytree(trained_place / "runs" / "self-teaching-001", workplace / "source")


def test_the_first_evaluation_is_the_sources_last_and_resuming_needs_no_source(source, workplace, monkeypatch):
    line = ["--init", f"source/{LAST}", "--name", "photos-own", "--learning-rate", "5e-4", "--max-steps", "1"]
    run_script(monkeypatch, "main.py", *DATA, *line)
    run = workplace / "runs" / "photos-own"
    measured = ("psnr_clean", "psnr_masked", "encoder_effective_rank", "judge_effective_rank")
    first, last = metrics_of(run)[0], metrics_of(source)[-1]
    assert [first[name] for name in measured] == [last[name] for name in measured]
    content = json.loads((run / "settings.json").read_text())
    assert content["init"] == {"file": f"source/{LAST}", "step": read_checkpoint(source / LAST)[0]["step"]}
    assert content["settings"]["INIT"] == f"source/{LAST}"
    header, tensors = read_checkpoint(run / LAST)
    assert header["step"] == tensors["optimizer.decoder.head.bias.step"] == 1  # the optimizer is fresh
    shutil.rmtree(source)
    run_script(monkeypatch, "main.py", "--resume", "runs/photos-own")
    assert len(metrics_of(run)) == 3


def test_a_baseline_begins_from_a_self_taught_run(source, workplace, monkeypatch):
    run_script(monkeypatch, "main_regular.py", *DATA, "--init", "source", "--output", "linear", "--max-steps", "1")
    encoder = read_checkpoint(workplace / "runs" / "masked-001" / "checkpoints" / "000.safetensors")[1]
    for name, tensor in read_checkpoint(source / "checkpoints" / "100.safetensors")[1].items():
        assert torch.equal(encoder[name], tensor)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("norm", ["whitened", "shared"])
@pytest.mark.parametrize("crop_ratios", [(1.0,), (0.5, 1.0)])
def test_a_judge_of_the_same_kind_is_taken_over_and_else_the_encoder_copied(tmp_path, norm, crop_ratios, live):
    model, optimizer, judge = make_training()  # its norm is "whitened", for whole images
    judge.update(model.encoder)
    run = {"JUDGE_LIVE": False, "JUDGE_NORM": "whitened", "CROP_RATIOS": (1.0,)}
    write_checkpoint(tmp_path / "last.safetensors", model, 7, state_of(model, optimizer, judge), run=run)
    torch.manual_seed(1)
    new = Autoencoder(**SIZES, output="linear")
    its_judge = Judge(new.encoder, norm=norm, crop_ratios=crop_ratios, live=live)
    settings = {"JUDGE_LIVE": live, "JUDGE_NORM": norm, "CROP_RATIOS": crop_ratios}
    assert init_from_checkpoint(tmp_path / "last.safetensors", new, its_judge, settings) == 7
    same = settings == run
    for name, tensor in model.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor)
    for name, tensor in (judge if same else model).encoder.state_dict().items():
        assert torch.equal(its_judge.encoder.state_dict()[name], tensor)
    if norm == "whitened":
        assert torch.equal(its_judge.whitenings[0].weight, judge.whitenings[0].weight) == same


def test_weights_that_do_not_fit_are_refused_with_the_sizes_that_differ(tmp_path):
    model = make_training(steps=0)[0]
    write_checkpoint(tmp_path / "100.safetensors", model, 7, state_of(model))
    with pytest.raises(UsageError, match=r"^hidden_dim is 8, and 4 in .*100.safetensors; map_channels is 8, and 4 in"):
        new = Autoencoder(**{**SIZES, "hidden_dim": 8, "map_channels": 8})
        init_from_checkpoint(tmp_path / "100.safetensors", new, None, {})


def test_a_judge_that_is_not_of_its_runs_settings_is_refused(tmp_path):
    model = make_training(steps=0)[0]
    settings = {"JUDGE_LIVE": False, "JUDGE_NORM": "own", "CROP_RATIOS": (0.5,)}
    write_checkpoint(tmp_path / "last.safetensors", model, 7, state_of(model), run=settings)
    judge = Judge(model.encoder, norm="own", crop_ratios=(0.5,))
    with pytest.raises(UsageError, match=r"the judge in .*last.safetensors is not of its run's settings"):
        init_from_checkpoint(tmp_path / "last.safetensors", model, judge, settings)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_from_the_weights_again(workplace):
    trained, fresh = make_training(), make_training(steps=0)
    write_checkpoint(workplace / "file", trained[0], 7, state_of(trained[0]))
    run = make_run(INIT="file")
    run.lock.release()
    resumed = Run.resume(run.folder, "self-teaching")
    resumed.load_initial_weights(fresh[0])
    assert torch.equal(fresh[0].decoder.head.weight, trained[0].decoder.head.weight)
    assert resumed.restore(*fresh) == 0
