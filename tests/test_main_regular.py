"""main_regular.py as a user types it, at sizes that train in seconds."""

import json

import pytest
import torch

import leae
from leae.data.batches import to_float
from leae.data.prepare import open_dataset
from leae.training.evaluation import NoisyViews, psnr, reconstruct
from tests.conftest import SHORT, SMALL, TINY, metrics_of, run_script


def test_the_first_step_is_that_of_the_formula(workplace, monkeypatch):
    """One step without warm-up or decay, of plain autoencoding, against Adam's first step written down."""
    options = ["--objective", "plain", "--model", "conv", "--conv-latent-dim", "4", "--batch-size", "64"]
    options += ["--warmup", "0", "--schedule", "constant", "--weight-decay", "0", "--learning-rate", "0.001"]
    run_script(monkeypatch, "main_regular.py", *SHORT, *options, "--max-steps", "1")
    folder = workplace / "runs" / "plain-001"
    before, after = (
        leae.load(folder / f"checkpoints/{name}.safetensors").requires_grad_().double() for name in ("000", "100")
    )
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
    run_script(monkeypatch, "main_regular.py", *options, "--beta", "3.5")
    rows = [row for row in metrics_of(workplace / "runs" / "variational-001") if row["split"] == "train"]
    assert len(rows) == 4
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["reconstruction"]) + 3.5 * float(row["kl"]), rel=1e-4)
    assert 16 * 16 * 3 * 0.01 < float(rows[0]["reconstruction"]) < 16 * 16 * 3 * 0.25  # a sum, not a mean


def test_a_denoising_runs_figures_are_taken_on_noisy_views(workplace, monkeypatch):
    run_script(monkeypatch, "main_regular.py", *TINY, "--objective", "denoising", "--max-steps", "3")
    test = to_float(open_dataset("faces", 16, 64).images["test"])
    made = psnr(reconstruct(leae.load("runs/denoising-001"), NoisyViews(0.2)(test)), test).mean().item()
    assert float(metrics_of(workplace / "runs" / "denoising-001")[-1]["psnr_noisy"]) == pytest.approx(made, abs=1e-3)


def test_a_fair_pair_begins_with_the_same_weights_on_the_same_data(workplace, monkeypatch):
    for sizes in (SMALL, ["--model", "conv"]):
        run_script(monkeypatch, "main.py", *SHORT, *sizes, "--max-steps", "1")
        run_script(monkeypatch, "main_regular.py", *SHORT, *sizes, "--max-steps", "1")
    for number in ("001", "002"):
        ours, theirs = (workplace / "runs" / f"{kind}-{number}" for kind in ("masked", "self-teaching"))
        first = [(place / "checkpoints" / "000.safetensors").read_bytes() for place in (ours, theirs)]
        assert first[0] == first[1]
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
        ["--model", "conv", "--objective", "denoising"],
        [*SMALL, "--objective", "plain", "--sigreg-weight", "0.01"],
        [*SMALL[:4], "--latent", "spatial", "--spatial-dim", "4", "--objective", "variational"],
    ],
    ids=" ".join,
)
def test_loss_goes_down_in_every_combination(workplace, monkeypatch, options):
    whole = ["--batch-size", "64", "--log-every", "1", "--max-steps", "12"]  # of the faces: every step sees all
    rate = ["--learning-rate", "0.01", "--schedule", "constant", "--warmup", "0"]
    run_script(monkeypatch, "main_regular.py", *SHORT, *whole, *rate, *options, "--epochs", "12")
    (folder,) = (workplace / "runs").glob("*-001")
    losses = [float(row["loss"]) for row in metrics_of(folder) if row["split"] == "train"]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.99 * sum(losses[:3])
    assert (folder / "grids" / "samples-000012.png").exists() == ("variational" in options)
