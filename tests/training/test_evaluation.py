"""What is measured of a run while it trains: held-out PSNR against closed forms, and a collapse of the codes."""

import numpy as np
import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.codes import effective_rank, sigreg_statistics
from leae.conv_autoencoder import VariationalConvAutoencoder
from leae.data.batches import to_float
from leae.judge import Judge
from leae.training import evaluation
from leae.training.evaluation import Evaluation, MaskedViews, NoisyViews, evaluation_mode, psnr, reconstruct
from tests.conftest import CPU, gaussian


class Dimmer(torch.nn.Module):
    """A model that makes everything darker by 0.1, or by 0.2 in training mode; its codes are those that a test sets."""

    def __init__(self, codes=None):
        super().__init__()
        self.codes, self.norm = codes, torch.nn.BatchNorm1d(4, affine=False)

    def forward(self, images):
        return images - (0.2 if self.training else 0.1)

    def encode(self, images):
        return self.codes[: len(images)]

    project = encode


def draw_images(count, size=16, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("views", [MaskedViews(16, 0.35), NoisyViews(0.2)])
def test_psnr_is_taken_in_evaluation_mode_against_the_clean_images_beside_two_answers_without_a_model(views):
    train, held_out = draw_images(5000), draw_images(300)[::-1]
    model, originals = Dimmer(gaussian(256, 4)).train(), to_float(held_out.copy())
    measures = Evaluation(train, held_out, views, CPU)(model)
    mean = to_float(train).double().mean(dim=0).float()
    expected = {
        "psnr_clean": 20,
        f"psnr_{views.name}": psnr(views(originals) - 0.1, originals).mean().item(),
        f"psnr_{views.name}_input": psnr(views(originals), originals).mean().item(),
        "psnr_mean_image": psnr(mean, originals).mean().item(),
    }
    assert {name: measures[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert model.training


@pytest.mark.parametrize(("views", "difference"), [(MaskedViews(32, 0.35), 19**2 / 32**2), (NoisyViews(0.1), 1)])
def test_the_same_image_has_the_same_view_however_many_are_evaluated(views, difference):
    images = 0.4 + 0.2 * torch.rand(40, 3, 32, 32)
    everything = views(images)
    assert (everything != images).any(dim=1).double().mean() == pytest.approx(difference, abs=1e-3)
    assert difference < 1 or (everything - images).std().item() == pytest.approx(0.1, rel=0.01)
    assert torch.equal(views(images[:7]), everything[:7])
    assert torch.equal(views(images[30:], first=30), everything[30:])


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
    found, true, _ = sigreg_statistics(seen[0])
    assert found < 3 * true


def test_a_part_that_was_in_evaluation_mode_stays_in_it():
    model = Autoencoder(image_size=16, latent_dim=4, hidden_dim=4, map_channels=4)
    frozen = [*model.encoder.modules()]
    model.encoder.eval()
    with evaluation_mode(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [part not in frozen for part in model.modules()]


def test_evaluation_leaves_no_gradient_and_the_mode_it_found_also_after_an_error():
    model = torch.nn.Conv2d(3, 3, 1)
    assert not reconstruct(model, torch.rand(2, 3, 8, 8)).requires_grad
    with pytest.raises(ZeroDivisionError), evaluation.evaluation_mode(model):
        raise ZeroDivisionError
    assert model.training
    assert not reconstruct(model.eval(), torch.rand(2, 3, 8, 8)).requires_grad
    assert not model.training


HEALTHY = gaussian(40, 4)
ON_A_LINE = gaussian(40, 1) * torch.ones(4) + 1e-3 * gaussian(40, 4)
WITH_A_DEAD_ONE = gaussian(40, 4) * torch.tensor([1, 1, 1, 0.0])


def watch(count=40):
    return Evaluation(draw_images(8, 8), draw_images(count, 8), MaskedViews(8, 0.35), CPU)


@pytest.mark.parametrize("codes", [HEALTHY, ON_A_LINE, WITH_A_DEAD_ONE])
def test_effective_rank_and_dead_dimensions_are_those_of_the_held_out_codes(codes):
    judge = Judge(Dimmer(codes))
    judge.encoder.codes = codes
    measures = watch()(Dimmer(codes), judge)
    assert measures["encoder_effective_rank"] == effective_rank(codes)
    dead = int((codes.std(dim=0) == 0).sum())
    assert measures["encoder_dead_dimensions"] == measures["judge_dead_dimensions"] == dead
    assert measures["encoder_dimensions"] == measures["judge_dimensions"] == 4


def test_codes_that_are_not_finite_or_too_few_to_tell_are_not_measured(capsys):
    measured = {"encoder_effective_rank", "encoder_dead_dimensions", "encoder_dimensions"}
    assert not watch()(Dimmer(HEALTHY / 0)).keys() & measured
    assert not watch(15)(Dimmer(ON_A_LINE)).keys() & measured
    assert watch(16)(Dimmer(HEALTHY)).keys() >= measured
    assert capsys.readouterr().err == ""


def test_a_perfect_image_has_100_db_so_that_means_are_finite():
    images = torch.rand(3, 3, 8, 8)
    images[0] = 0  # a black one, which is its own masked view
    assert psnr(images, images).tolist() == [100, 100, 100]
    assert psnr(images + 0.1, images).tolist() == pytest.approx([20] * 3, abs=1e-3)
