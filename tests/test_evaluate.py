"""Held-out figures against closed forms."""

import math

import numpy as np
import pytest
import torch

from leae.evaluate import held_out_psnr, mask_for_evaluation, mean_image_psnr, psnr, reconstruct
from leae.prep_data import to_float

CPU = torch.device("cpu")


def test_psnr_of_a_known_error():
    reference = torch.rand(3, 3, 8, 8)
    errors = torch.tensor([0.1, 0.01, 0.5])[:, None, None, None]
    torch.testing.assert_close(psnr(reference + errors, reference), torch.tensor([20.0, 40.0, -20 * math.log10(0.5)]))


class Dimmer(torch.nn.Module):
    """A model that makes everything darker by 0.1, or by 0.2 in training mode."""

    def forward(self, images):
        return images - (0.2 if self.training else 0.1)


def test_held_out_psnr_is_taken_in_evaluation_mode_against_the_clean_images():
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    model = Dimmer().train()
    quality = held_out_psnr(model, images, 0.35, CPU)
    assert quality["psnr_clean"] == pytest.approx(20, abs=1e-3)
    originals = to_float(images)
    expected = psnr(mask_for_evaluation(originals, 0.35) - 0.1, originals).mean().item()
    assert quality["psnr_masked"] == pytest.approx(expected, abs=1e-3)
    assert model.training


def test_the_same_image_has_the_same_mask_however_many_are_looked_at():
    images = torch.rand(40, 3, 32, 32)
    everything = mask_for_evaluation(images, 0.35)
    assert torch.equal(mask_for_evaluation(images[:7], 0.35), everything[:7])
    assert torch.equal(mask_for_evaluation(images[30:], 0.35, first=30), everything[30:])
    hidden = (everything != images).any(dim=1).float().mean(dim=(1, 2))
    assert ((hidden - 0.35).abs() < 0.02).all()


def test_mean_image_psnr():
    train = np.full((10, 8, 8, 3), 100, np.uint8)
    train[5:] = 200  # the mean image is 150 everywhere
    test = np.full((3, 8, 8, 3), 150 + 51, np.uint8)  # 0.2 away
    assert mean_image_psnr(train, test) == pytest.approx(-20 * math.log10(0.2), abs=1e-3)


def test_reconstruct_leaves_no_gradient_and_the_mode_it_found():
    model = torch.nn.Conv2d(3, 3, 1).eval()
    assert not reconstruct(model, torch.rand(2, 3, 8, 8)).requires_grad
    assert not model.training
