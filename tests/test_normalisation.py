"""Batch normalisation by any ruler, and what stays in float32."""

import pytest
import torch

from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.judge import Judge
from leae.masking import crop_and_resize, draw_boxes
from leae.normalisation import BatchNorm1d, BatchNorm2d, at_least_float32, batch_statistics, normalise
from leae.objective import SelfTeachingObjective
from leae.reconstruction import ReconstructionLoss


@pytest.mark.parametrize(
    ("shape", "ours", "theirs"),
    [
        ((20, 5), BatchNorm1d, torch.nn.BatchNorm1d),
        ((6, 5, 3, 2), BatchNorm2d, torch.nn.BatchNorm2d),
    ],
)
def test_alone_it_is_pytorchs_batch_norm(shape, ours, theirs):
    codes = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    mine, plain = ours(5).double(), theirs(5).double()
    assert mine.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(mine(codes), plain(codes))
    torch.testing.assert_close(mine.eval()(codes), plain.eval()(codes))
    mean, variance = batch_statistics(codes)
    over = (0, 2, 3)[: codes.dim() - 1]
    torch.testing.assert_close(mean, codes.mean(over))
    torch.testing.assert_close(variance, codes.var(over, correction=0))


def test_a_ruler_with_gradients_gives_the_gradients_of_the_formula():
    codes, ruler = (torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).unbind()
    norm = BatchNorm1d(3).double()
    torch.nn.init.normal_(norm.weight)
    inputs = (codes.requires_grad_(), ruler.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, r: normalise(c, r, norm), inputs)


def test_coarse_numbers_become_float32_and_fine_ones_stay():
    assert at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize("ruler", ["shared", "own"])
def test_under_autocast_codes_pixels_crops_and_losses_are_float32_and_close(latent, ruler):
    torch.manual_seed(0)
    model = Autoencoder(16, 3, hidden_dim=8, latent=latent, latent_dim=8, map_channels=8)
    judge, images = Judge(model.encoder, 0.9, ruler), torch.rand(32, 3, 16, 16)
    objective = SelfTeachingObjective(16, crop_ratios=(0.5, 1.0))
    exact = objective(model, judge, images, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder.project(images).dtype == torch.bfloat16  # so the convolutions are
        codes = model.encode(images)
        assert codes.dtype == model.decode(codes).dtype == torch.float32
        boxes = draw_boxes(32, 8, 16, torch.Generator().manual_seed(0))
        coarse = objective(model, judge, images, torch.Generator().manual_seed(0))
        cropped = crop_and_resize(images, boxes, 8)
    assert torch.equal(cropped, crop_and_resize(images, boxes, 8))
    for name, term in exact.items():
        assert coarse[name].dtype == torch.float32
        torch.testing.assert_close(coarse[name], term, rtol=0.05, atol=0.01)


def test_under_autocast_the_baselines_losses_are_float32():
    model, images = VariationalAutoencoder(16, 3, hidden_dim=8, latent_dim=4, map_channels=8), torch.rand(8, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = model.posterior(images)
        raw = model.decoder(mean)
        losses = [ReconstructionLoss(kind)(raw, images) for kind in ("mse", "bce")]
    assert raw.dtype == torch.bfloat16
    assert {value.dtype for value in (mean, log_variance, *losses)} == {torch.float32}
