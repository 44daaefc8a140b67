"""main_regular.py as a user types it, at sizes that train in seconds."""

import json

import pytest
import torch

import leae
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.data.batches import to_float
from leae.data.prepare import open_dataset
from leae.training import run
from leae.training.checkpoints import write_checkpoint
from leae.training.evaluation import MaskedViews, NoisyViews, reconstruct
from tests.conftest import SHORT, SMALL, TINY, assert_same_tensors, metrics_of, run_script

OBJECTIVES = ["masked", "plain", "denoising", "variational"]


def run_regular(monkeypatch, *options):
    run_script(monkeypatch, "main_regular.py", *options)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("model", ["residual", "conv"])
def test_every_objective_trains_both_models_and_the_checkpoint_comes_back_to_the_bit(
    workplace, monkeypatch, objective, model
):
    saved = {}

    def write_and_keep(path, model, *others):
        saved[path.stem] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        write_checkpoint(path, model, *others)

    monkeypatch.setattr(run, "write_checkpoint", write_and_keep)
    sizes = SMALL if model == "residual" else ["--model", "conv", "--conv-latent-dim", "8"]
    run_regular(monkeypatch, *SHORT, *sizes, "--objective", objective, "--max-steps", "2")
    folder = workplace / "runs" / f"{objective}-001"
    loaded = leae.load(folder / "checkpoints" / "100.safetensors")
    classes = {
        ("residual", False): Autoencoder,
        ("residual", True): VariationalAutoencoder,
        ("conv", False): ConvAutoencoder,
        ("conv", True): VariationalConvAutoencoder,
    }
    assert type(loaded) is classes[model, objective == "variational"]

    trained = type(loaded)(**loaded.settings)
    trained.load_state_dict(saved["100"])
    size = 16 if model == "residual" else 32
    test = to_float(open_dataset("faces", size, 64).images["test"])
    assert torch.equal(reconstruct(loaded, test), reconstruct(trained, test))
    grids = {path.name for path in (folder / "grids").iterdir()}
    assert ("samples-000002.png" in grids) == (objective == "variational")


def test_the_first_step_is_that_of_the_formula(workplace, monkeypatch):
    """One step without warm-up or decay, of plain autoencoding, against Adam's first step written down."""
    options = ["--objective", "plain", "--model", "conv", "--conv-latent-dim", "4", "--batch-size", "64"]
    options += ["--warmup", "0", "--schedule", "constant", "--weight-decay", "0", "--learning-rate", "0.001"]
    run_regular(monkeypatch, *SHORT, *options, "--max-steps", "1")
    folder = workplace / "runs" / "plain-001"
    before, after = (leae.load(folder / "checkpoints" / f"{name}.safetensors").double() for name in ("000", "100"))
    images = to_float(open_dataset("faces", 32, 64).images["train"]).double()  # a batch of all
    loss = ((before(images) - images) ** 2).mean()
    row = next(row for row in metrics_of(folder) if row["split"] == "train")
    assert float(row["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, list(before.parameters()))
    for old, new, gradient in zip(before.parameters(), after.parameters(), gradients, strict=True):
        certain = gradient.abs() > 1e-5  # where float32 cannot mistake the sign
        step = -0.001 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close((new - old)[certain], step[certain], rtol=0, atol=2e-6)


def test_the_variational_loss_is_summed_over_an_image_and_weighs_kl_by_beta(workplace, monkeypatch):
    options = [*SHORT, *SMALL, "--objective", "variational", "--max-steps", "4", "--log-every", "1"]
    run_regular(monkeypatch, *options, "--beta", "3.5")
    rows = [row for row in metrics_of(workplace / "runs" / "variational-001") if row["split"] == "train"]
    assert len(rows) == 4
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["reconstruction"]) + 3.5 * float(row["kl"]), rel=1e-4)
    assert 16 * 16 * 3 * 0.01 < float(rows[0]["reconstruction"]) < 16 * 16 * 3 * 0.25  # a sum, not a mean


def test_denoising_figures_are_taken_on_noisy_views(workplace, monkeypatch, capsys):
    run_regular(monkeypatch, *TINY, "--objective", "denoising", "--max-steps", "3")
    rows = metrics_of(workplace / "runs" / "denoising-001")
    model = leae.load(workplace / "runs" / "denoising-001" / "checkpoints" / "100.safetensors")
    test = to_float(open_dataset("faces", 16, 64).images["test"])
    noisy = NoisyViews(0.2)(test)
    errors = (reconstruct(model, noisy) - test).square().mean(dim=(1, 2, 3))
    assert float(rows[-1]["psnr_noisy"]) == pytest.approx((-10 * errors.log10()).mean().item(), abs=1e-3)
    assert "psnr_masked" not in rows[-1]
    itself = -10 * (noisy - test).square().mean(dim=(1, 2, 3)).log10()
    assert f"the noisy images as they are {itself.mean():.2f} dB" in capsys.readouterr().out


def test_the_masked_baseline_is_measured_as_the_self_teaching_run_is(workplace, monkeypatch):
    run_regular(monkeypatch, *TINY, "--max-steps", "3")
    model = leae.load(workplace / "runs" / "masked-001" / "checkpoints" / "100.safetensors")
    test = to_float(open_dataset("faces", 16, 64).images["test"])
    row = metrics_of(workplace / "runs" / "masked-001")[-1]
    for column, view in (("psnr_clean", test), ("psnr_masked", MaskedViews(16, 0.35)(test))):
        errors = (reconstruct(model, view) - test).square().mean(dim=(1, 2, 3))
        assert float(row[column]) == pytest.approx((-10 * errors.log10()).mean().item(), abs=1e-3)


def test_a_fair_pair_begins_with_the_same_weights_on_the_same_data(workplace, monkeypatch):
    for sizes in (SMALL, ["--model", "conv"]):
        run_script(monkeypatch, "main.py", *SHORT, *sizes, "--max-steps", "1")
        run_regular(monkeypatch, *SHORT, *sizes, "--max-steps", "1")
    for number in ("001", "002"):
        ours, theirs = (workplace / "runs" / f"{kind}-{number}" for kind in ("masked", "self-teaching"))
        assert_same_tensors(*(place / "checkpoints" / "000.safetensors" for place in (ours, theirs)))
        one, other = (json.loads((place / "settings.json").read_text()) for place in (ours, theirs))
        assert one["data"] == other["data"]


@pytest.mark.parametrize(
    "options",
    [
        ["--dataset", "digits", *SMALL],  # grey images under the residual model
        ["--dataset", "digits", *SMALL, "--objective", "variational", "--reconstruction-loss", "bce"],
        ["--dataset", "faces", "--model", "conv"],  # colour under the small one
        [*SMALL, "--reconstruction-loss", "bce"],
        [*SMALL, "--output", "linear"],
        ["--model", "conv", "--output", "linear", "--objective", "variational"],
        [*SMALL[:4], "--latent", "spatial", "--spatial-dim", "4", "--objective", "variational"],
    ],
    ids=" ".join,
)
def test_loss_goes_down_in_every_combination(workplace, monkeypatch, options):
    whole = ["--batch-size", "64", "--log-every", "1", "--max-steps", "12"]  # of the faces: every step sees all
    rate = ["--learning-rate", "0.01", "--schedule", "constant", "--warmup", "0"]
    run_regular(monkeypatch, *SHORT, *whole, *rate, *options, "--epochs", "12")
    (folder,) = (workplace / "runs").glob("*-001")
    losses = [float(row["loss"]) for row in metrics_of(folder) if row["split"] == "train"]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.99 * sum(losses[:3])


@pytest.mark.gpu
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_trains_on_a_gpu(workplace, monkeypatch, objective):
    run_regular(monkeypatch, *TINY, "--device", "cuda", "--objective", objective)
    assert (workplace / "runs" / f"{objective}-001" / "checkpoints" / "100.safetensors").exists()
