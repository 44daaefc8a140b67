"""Figures against independent computations on images with known distortions, and the baselines beside the runs."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import leae
from leae.analysis.measure import (
    Measured,
    PerceptualFigures,
    PixelPCA,
    Sample,
    gradient_energy,
    measure,
    reconstruction_figures,
    ssim,
    with_baselines,
)
from leae.analysis.trained import open_runs
from leae.data.batches import to_float
from leae.data.prepare import Dataset
from leae.errors import UsageError
from leae.masking import fill_squares, inside_squares, mask_side
from leae.training.evaluation import MaskedViews
from tests.conftest import CPU, RUNS


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
    assert figures["psnr_clean"] == 100
    assert figures["ssim_clean"] == pytest.approx(1)
    assert figures["sharpness_square_clean"] == pytest.approx(1)
    assert figures["sharpness_square_masked"] == 0  # the fill has no gradient
    side = mask_side(32, 0.35)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    masked = fill_squares(batch, views.corners(300), side)
    error = (masked - batch).square().sum(dim=(1, 2, 3))
    assert figures["psnr_square_masked"] == pytest.approx((-10 * torch.log10(error / (3 * side**2))).mean().item())
    assert figures["psnr_masked"] == pytest.approx((-10 * torch.log10(error / (3 * 32**2))).mean().item(), rel=1e-5)


def test_perceptual_metrics_say_what_they_lack(monkeypatch):
    for error in (OSError("no route to host"), ModuleNotFoundError("torch-fidelity")):

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance.__init__", fail)
        with pytest.raises(UsageError, match=f"{error}.*--extra perceptual"):
            PerceptualFigures(CPU)


def test_beside_the_runs_stand_an_untrained_encoder_and_a_pca_of_as_many_dimensions_and_chance(trained):
    runs = open_runs([*RUNS, "runs/variational-001"], "100", CPU)
    train = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    columns = with_baselines(runs, train, CPU)
    assert [column.name for column in columns] == [*(run.name for run in runs), "untrained 8", "PCA 8", "chance"]
    assert [column.name for column in with_baselines(runs, train[:5], CPU)][-2:] == ["PCA 5", "chance"]
    untrained, initial = columns[3].model, leae.load(f"{RUNS[0]}/checkpoints/000.safetensors")
    assert [p.shape for p in untrained.parameters()] == [p.shape for p in initial.parameters()]


def test_pca_is_the_best_linear_reconstruction_of_its_training_images(monkeypatch):
    draws = np.random.default_rng(0)
    scenes = draws.standard_normal((40, 5)) @ draws.standard_normal((5, 192)) + draws.standard_normal((40, 192)) / 9
    train = (128 + 15 * scenes).clip(0, 255).astype(np.uint8).reshape(40, 8, 8, 3)
    monkeypatch.setattr("leae.analysis.measure.MOST_NUMBERS", train.size)
    pca, images = PixelPCA(np.concatenate([train, 255 - train[:7]]), 5), to_float(train)  # of which these are beyond
    pixels = images.flatten(1).double()
    left, singular, right = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    best = (left[:, :5] * singular[:5]) @ right[:5] + pixels.mean(0)
    torch.testing.assert_close(pca(images).double(), best.view(images.shape).clamp(0, 1), rtol=0, atol=1e-4)
    assert pca.encode(images).shape == (40, 5)


def test_probes_of_masked_views_are_fitted_to_masked_views():
    class Contrary:
        """Its only number tells the attribute, and the opposite where a square is hidden."""

        def encode(self, images):
            hidden = (images.diff(dim=3) == 0).float().mean(dim=(1, 2, 3)) > 0.1
            return ((images.mean(dim=(1, 2, 3)) - 0.5) * torch.where(hidden, -1, 1))[:, None]

    draws = np.random.default_rng(0)
    labels = {split: draws.random((300, 1)) < 0.5 for split in ("train", "test")}
    noise = {split: draws.integers(0, 128, (300, 8, 8, 3)) for split in labels}
    images = {split: (noise[split] + 127 * labels[split][..., None, None]).astype(np.uint8) for split in labels}
    sample = Sample(Dataset("noise", "noise", "", images, labels, ("Bright",)), MaskedViews(8, 0.35), 300, 300, 0.5)
    one = Measured("contrary", Contrary(), reconstructs=False)
    measure(one, sample, CPU)
    assert len(one.attributes) == 10
    assert all(of["Bright"] == 1 for of in one.attributes.values())
