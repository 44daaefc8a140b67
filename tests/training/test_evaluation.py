"""Held-out figures against closed forms."""

import numpy as np
import pytest
import torch

from leae.conv_autoencoder import VariationalConvAutoencoder
from leae.data.batches import to_float
from leae.training import evaluation
from leae.training.evaluation import MaskedViews, NoisyViews, evaluate, psnr, reconstruct
from tests.conftest import CPU


class Dimmer(torch.nn.Module):
    """A model that makes everything darker by 0.1, or by 0.2 in training mode."""

    def forward(self, images):
        return images - (0.2 if self.training else 0.1)


@pytest.mark.parametrize("views", [MaskedViews(16, 0.35), NoisyViews(0.2)])
def test_psnr_is_taken_in_evaluation_mode_against_the_clean_images(views):
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    model = Dimmer().train()
    measures = evaluate(model, images, views, CPU)
    assert measures["psnr_clean"] == pytest.approx(20, abs=1e-3)
    originals = to_float(images)
    expected = psnr(views(originals) - 0.1, originals).mean().item()
    assert measures[f"psnr_{views.name}"] == pytest.approx(expected, abs=1e-3)
    assert model.training


@pytest.mark.parametrize(("views", "difference"), [(MaskedViews(32, 0.35), 19**2 / 32**2), (NoisyViews(0.1), 1)])
def test_the_same_image_has_the_same_view_however_many_are_evaluated(views, difference):
    images = 0.4 + 0.2 * torch.rand(40, 3, 32, 32)
    everything = views(images)
    assert (everything != images).any(dim=1).double().mean() == pytest.approx(difference, abs=1e-3)
    assert difference < 1 or (everything - images).std().item() == pytest.approx(0.1, rel=0.01)
    assert torch.equal(views(images[:7]), everything[:7])
    assert torch.equal(views(images[30:], first=30), everything[30:])


def test_the_summary_names_the_models_figures_and_those_of_two_answers_without_a_model():
    train = np.random.default_rng(0).integers(0, 256, (5000, 4, 4, 1), dtype=np.uint8)
    mean = to_float(train).double().mean(dim=0).float()
    torch.testing.assert_close(evaluation.mean_image(train), mean)
    test, views = train[:3], NoisyViews(0.1)
    line = evaluation.summary(
        {"psnr_clean": 30.123, "psnr_noisy": 25.5} | evaluation.references(train, test, views, CPU), views
    )
    itself, average = (psnr(view, to_float(test)).mean().item() for view in (views(to_float(test)), mean))
    assert "30.12 dB clean, 25.50 dB noisy" in line
    assert f" input {itself:.2f} dB, mean training image {average:.2f} dB" in line


def test_a_grids_rows_are_originals_views_and_reconstructions_of_both():
    images, views = torch.rand(3, 3, 16, 16), NoisyViews(0.2)
    rows = evaluation.grid_rows(Dimmer(), images, views)
    assert list(rows) == ["original", "noisy", "reconstruction", "from noisy"]
    assert torch.equal(rows["original"], images)
    assert torch.equal(rows["noisy"], views(images))
    torch.testing.assert_close(rows["reconstruction"], images - 0.1)
    torch.testing.assert_close(rows["from noisy"], views(images) - 0.1)


def test_samples_are_decoded_from_standard_gaussian_codes_that_stay_the_same():
    model = VariationalConvAutoencoder(latent_dim=7)
    seen = []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    first, second = evaluation.sample_images(model, 800, 0, CPU), evaluation.sample_images(model, 800, 0, CPU)
    assert first.shape == (800, 1, 32, 32)
    assert torch.equal(first, second)
    assert seen[0].shape == (800, 7)
    assert (seen[0].mean(dim=0).abs() < 5 / 800**0.5).all()
    assert ((seen[0].std(dim=0) - 1).abs() < 5 / 1600**0.5).all()


def test_evaluation_leaves_no_gradient_and_the_mode_it_found_also_after_an_error():
    model = torch.nn.Conv2d(3, 3, 1)
    assert not reconstruct(model, torch.rand(2, 3, 8, 8)).requires_grad
    with pytest.raises(ZeroDivisionError), evaluation.evaluation_mode(model):
        raise ZeroDivisionError
    assert model.training
    assert not reconstruct(model.eval(), torch.rand(2, 3, 8, 8)).requires_grad
    assert not model.training
