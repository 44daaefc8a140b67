"""Reconstruction metrics against independent computations on images with known distortions."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from leae.analysis.measure import PerceptualFigures, gradient_energy, reconstruction_figures, ssim
from leae.errors import UsageError
from leae.masking import fill_squares, inside_squares, mask_side
from leae.training.evaluation import MaskedViews
from tests.conftest import CPU


def squares(count, side=12, size=32):
    corners = torch.randint(0, size - side + 1, (count, 2), generator=torch.Generator().manual_seed(0))
    return corners, inside_squares(corners, side, size)


def plain_ssim(one, other):
    """The SSIM map of two grey images float64 [S, S], by scipy's Gaussian filter."""
    # torchmetrics' window is 11 wide and its borders are reflected; so are scipy's "mirror" with this truncation.
    blur = {"sigma": 1.5, "truncate": 5 / 1.5, "mode": "mirror"}
    means = [gaussian_filter(x, **blur) for x in (one, other)]
    variances = [gaussian_filter(x * x, **blur) - m * m for x, m in zip((one, other), means, strict=True)]
    covariance = gaussian_filter(one * other, **blur) - means[0] * means[1]
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    return similarity / ((means[0] ** 2 + means[1] ** 2 + c1) * (sum(variances) + c2))


def test_ssim_is_wangs_formula_over_the_image_and_over_the_square():
    draws = np.random.default_rng(0)
    references = draws.random((2, 3, 32, 32))
    images = (references + 0.2 * draws.standard_normal(references.shape)).clip(0, 1)
    _, inside = squares(2)
    whole, square = ssim(torch.from_numpy(images), torch.from_numpy(references), inside)
    for i in range(2):
        maps = np.mean([plain_ssim(images[i, c], references[i, c]) for c in range(3)], axis=0)
        assert square[i].item() == pytest.approx(maps[inside[i, 0].numpy()].mean(), abs=1e-6)
        assert whole[i].item() == pytest.approx(maps.mean(), abs=1e-6)


def test_gradient_energy_counts_neighbours_inside_only():
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    corners, inside = squares(2)
    energy = gradient_energy(images, inside)
    for image, (top, left), found in zip(images, corners.tolist(), energy, strict=True):
        box = image[:, top : top + 12, left : left + 12]
        plain = (box[:, 1:] - box[:, :-1]).square().sum() + (box[..., 1:] - box[..., :-1]).square().sum()
        assert found.item() == pytest.approx(plain.item())


def test_figures_of_an_answer_that_is_wrong_in_the_hole_only():
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)  # more than one batch
    views = MaskedViews(32, 0.35)
    figures = reconstruction_figures(lambda batch: batch, images, views, np.ones((1, 300)), CPU, "")
    assert figures["psnr_clean"] == math.inf
    assert figures["ssim_clean"] == pytest.approx(1)
    assert figures["sharpness_square_clean"] == pytest.approx(1)
    assert figures["sharpness_square_masked"] == 0  # the fill has no gradient
    side = mask_side(32, 0.35)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    masked = fill_squares(batch, views.corners(300), side)
    error = (masked - batch).square().sum(dim=(1, 2, 3))
    assert figures["psnr_square_masked"] == pytest.approx((-10 * torch.log10(error / (3 * side**2))).mean().item())
    assert figures["psnr_masked"] == pytest.approx((-10 * torch.log10(error / (3 * 32**2))).mean().item(), rel=1e-5)


def test_a_square_of_one_pixel_has_no_sharpness():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    views = MaskedViews(16, 0.003)
    assert views.side == 1
    figures = reconstruction_figures(lambda batch: batch / 2, images, views, np.ones((1, 5)), CPU, "")
    assert math.isnan(figures["sharpness_square_clean"].item())
    assert np.isfinite(figures["psnr_square_masked"]).all()


def test_perceptual_metrics_say_what_they_lack(monkeypatch):
    lacks = {
        OSError("no route to host"): "no route to host\\); go online once",
        ModuleNotFoundError("FID"): "--extra perceptual",
    }
    for error, says in lacks.items():

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance.__init__", fail)
        with pytest.raises(UsageError, match=says):
            PerceptualFigures(CPU)
