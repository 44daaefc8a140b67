"""The judge: whom it follows, what it measures with, where gradients go."""

import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.conv_autoencoder import ConvAutoencoder
from leae.errors import UsageError
from leae.judge import Judge


def encoder(latent="pooled", seed=0):
    torch.manual_seed(seed)
    made = Autoencoder(16, 3, hidden_dim=4, latent=latent, latent_dim=4, map_channels=4).double().encoder
    with torch.no_grad():  # an affine part that does something
        made.norm.weight.copy_(torch.rand(4) + 0.5)
        made.norm.bias.copy_(torch.randn(4))
    return made


def views(seed=0, count=6):
    return torch.rand(count, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normalise(codes, ruler, norm):
    """Batch norm with the statistics of another batch, from its definition."""
    over = (0,) if codes.dim() == 2 else (0, 2, 3)
    shape = (1, -1) if codes.dim() == 2 else (1, -1, 1, 1)
    mean, variance = ruler.mean(over, keepdim=True), ruler.var(over, correction=0, keepdim=True)
    return (codes - mean) / (variance + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize("ruler", ["shared", "own"])
def test_codes_are_normalised_by_the_ruler(latent, ruler):
    source = encoder(latent)
    judge = Judge(source, ruler=ruler)
    real, clean, masked = views(0), views(1) * 0.5, views(2) + 0.1
    codes = [source.project(view) for view in (real, clean, masked)]
    expected = [normalise(c, codes[0] if ruler == "shared" else c, source.norm) for c in codes]
    for ours, plain in zip(judge(real, clean, masked), expected, strict=True):
        torch.testing.assert_close(ours, plain)


class LinearEncoder(torch.nn.Module):
    """An encoder that turns a loss of contrast in images into exactly that loss of contrast in codes."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3 * 16 * 16, 4).double()
        self.norm = torch.nn.BatchNorm1d(4, eps=1e-12).double()

    def project(self, images):
        return self.linear(images.flatten(1))


def test_only_the_shared_ruler_sees_what_all_reconstructions_have_in_common():
    real = views()
    washed_out = 0.5 * real + 0.2
    target, judged = Judge(LinearEncoder(), ruler="own")(real, washed_out)
    torch.testing.assert_close(target, judged)
    target, judged = Judge(LinearEncoder(), ruler="shared")(real, washed_out)
    assert (target - judged).square().mean() > 0.2  # half of a variance of 1 is missing


@pytest.mark.parametrize("ruler", ["shared", "own"])
def test_gradients_reach_the_reconstructions_and_neither_the_real_views_nor_the_weights(ruler):
    judge = Judge(encoder(), ruler=ruler)
    real, shown = views(0).requires_grad_(), views(1).requires_grad_()
    target, judged = judge(real, shown)
    (target - judged).square().mean().backward()
    assert shown.grad.abs().sum() > 0
    assert real.grad is None
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_judging_leaves_running_statistics_alone():
    source = encoder()
    judge = Judge(source)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    judge(views(0), views(1))
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())


def test_running_statistics_are_not_read_either():
    one, other = Judge(encoder()), Judge(encoder())
    other.encoder.norm.running_mean += 5
    for judge in (one, other):
        judge.eval()
    torch.testing.assert_close(one(views(0), views(1))[1], other(views(0), views(1))[1])


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_it_follows_the_encoder_by_an_exponential_moving_average(decay):
    first, later = encoder(seed=0), encoder(seed=1)
    judge = Judge(first, decay)
    for _ in range(3):
        judge.update(later)
    weights = zip(judge.encoder.parameters(), first.parameters(), later.parameters(), strict=True)
    for ours, old, new in weights:
        torch.testing.assert_close(ours, decay**3 * old + (1 - decay**3) * new)


def test_it_is_a_copy():
    source = encoder()
    judge = Judge(source)
    with torch.no_grad():
        next(source.parameters()).add_(1)
    assert not torch.equal(next(source.parameters()), next(judge.encoder.parameters()))
    assert all(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize(("decay", "ruler"), [(1.0, "shared"), (-0.1, "own"), (float("nan"), "own"), (0.9, "metre")])
def test_impossible_judges_are_refused(decay, ruler):
    with pytest.raises(UsageError, match="judge"):
        Judge(encoder(), decay, ruler)


def test_an_encoder_without_a_batch_norm_cannot_be_a_judge():
    with pytest.raises(UsageError, match="ends in Identity; it must end in a batch norm"):
        Judge(ConvAutoencoder().encoder)


def test_a_batch_norm_without_parameters_serves_as_well():
    source = ConvAutoencoder(3, 4, batch_norm=True).double().encoder
    real, clean = (torch.rand(6, 3, 32, 32, dtype=torch.float64) for _ in range(2))
    codes, shown = source.project(real), source.project(clean)
    spread = (codes.var(dim=0, correction=0) + source.norm.eps).sqrt()
    target, judged = Judge(source)(real, clean)
    torch.testing.assert_close(target, (codes - codes.mean(dim=0)) / spread)
    torch.testing.assert_close(judged, (shown - codes.mean(dim=0)) / spread)
