"""Reconstruction losses and the KL divergence against closed forms and torch.distributions."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from leae.reconstruction import ReconstructionLoss, gaussian_kl, latent_from
from tests.conftest import gaussian

SHAPE = (3, 2, 8, 8)


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw = 2 * torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    return raw, torch.rand(SHAPE, dtype=torch.float64, generator=generator)


def test_squared_error_is_taken_in_the_range_of_the_output():
    raw, images = example()
    sigmoid, linear = ReconstructionLoss("mse", "sigmoid"), ReconstructionLoss("mse", "linear")
    torch.testing.assert_close(sigmoid(raw, images), ((1 / (1 + torch.exp(-raw)) - images) ** 2).sum() / raw.numel())
    torch.testing.assert_close(linear(raw, images), ((raw - (images * 2 - 1)) ** 2).sum() / raw.numel())


def test_cross_entropy_is_the_mean_negative_log_likelihood_of_a_bernoulli():
    raw, images = example()
    grey = -images * torch.log(torch.sigmoid(raw)) - (1 - images) * torch.log(1 - torch.sigmoid(raw))
    torch.testing.assert_close(ReconstructionLoss("bce")(raw, images), grey.mean())


def test_cross_entropy_and_its_gradient_stay_finite_however_sure_the_decoder_is():
    raw = torch.tensor([-1e4, 1e4]).view(2, 1, 1, 1).requires_grad_()
    wrong = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    loss = ReconstructionLoss("bce")(raw, wrong)
    assert loss == 1e4
    assert torch.autograd.grad(loss, raw)[0].flatten().tolist() == [-0.5, 0.5]
    assert ReconstructionLoss("bce")(raw, 1 - wrong) == 0


def test_kl_is_that_of_torch_distributions_summed_over_a_code_and_averaged_over_the_batch():
    mean, log_variance = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum() / len(mean)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_drawn_codes_have_the_posteriors_mean_and_deviation_and_its_gradients():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, math.log(0.25)]])
    count = 100_000
    codes = latent_from(mean, log_variance, gaussian(count, 2))
    deviation = torch.tensor([1.0, 0.5])
    assert ((codes.mean(dim=0) - mean[0]).abs() < 5 * deviation / count**0.5).all()
    assert ((codes.std(dim=0) / deviation - 1).abs() < 5 / (2 * count) ** 0.5).all()
    inputs = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True).unbind()
    assert torch.autograd.gradcheck(latent_from, inputs)
