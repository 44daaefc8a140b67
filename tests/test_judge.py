"""The judge: how it moves, what it measures with, where gradients go."""

import copy

import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.conv_autoencoder import ConvAutoencoder
from leae.errors import UsageError
from leae.judge import Judge
from tests.reference import normalise


def encoder(latent="pooled", seed=0, output="sigmoid"):
    torch.manual_seed(seed)
    made = Autoencoder(16, 3, 4, latent, 4, 4, output).double().encoder
    with torch.no_grad():  # an affine part that does something
        made.norm.weight.copy_(torch.rand(4) + 0.5)
        made.norm.bias.copy_(torch.randn(4))
    return made


def views(seed=0, count=6, size=16):
    return torch.rand(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["shared", "own"])
@pytest.mark.parametrize(
    ("source", "size"),
    [
        (encoder("pooled"), 16),
        (encoder("spatial"), 16),
        (encoder("pooled", output="linear"), 16),
        (ConvAutoencoder(3, 4, batch_norm=True).double().encoder, 32),  # a batch norm without parameters
    ],
    ids=["pooled", "spatial", "linear output", "conv"],
)
def test_codes_are_normalised_by_the_real_views_statistics_or_their_own(source, size, norm):
    shown = [views(0, size=size), views(1, size=size) * 0.5, views(2, size=size) + 0.1]
    scaled = [2 * view - 1 if source.output == "linear" else view for view in shown]
    codes = [source.convolve(view) for view in scaled]
    expected = [normalise(code, codes[0] if norm == "shared" else code, source.norm) for code in codes]
    target, reconstructions = Judge(source, norm=norm)(*shown)
    torch.testing.assert_close([target, *reconstructions], expected)
    assert not target.requires_grad


def test_without_a_target_codes_with_a_norm_of_their_own_need_no_real_view():
    judge = Judge(encoder(), norm="own")
    target, codes = judge(None, views(1), views(2))
    assert target is None
    torch.testing.assert_close(codes, judge(views(0), views(1), views(2))[1])
    with pytest.raises(UsageError, match=r"real is None.*norm is shared"):
        Judge(encoder(), norm="shared")(None, views(1))


@pytest.mark.parametrize("norm", ["shared", "own", "whitened"])
def test_gradients_reach_the_reconstructions_and_neither_the_real_views_nor_the_weights(norm):
    judge = Judge(encoder(), norm=norm)
    real, shown = views(0).requires_grad_(), views(1).requires_grad_()
    target, reconstructions = judge(real, shown)
    (reconstructions[0] - target).square().mean().backward()
    assert shown.grad.abs().sum() > 0
    assert real.grad is None
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_running_statistics_are_neither_moved_nor_read():
    one, other = Judge(encoder(), norm="shared"), Judge(encoder(), norm="shared").eval()
    before = copy.deepcopy(one.state_dict())
    first = one(views(0), views(1))
    assert all(torch.equal(before[name], value) for name, value in one.state_dict().items())
    other.encoder.norm.running_mean += 5
    torch.testing.assert_close(first, other(views(0), views(1)))


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
def test_each_kind_of_real_view_is_whitened_by_its_own_average_which_training_alone_moves(latent):
    judge = Judge(encoder(latent), epsilon=0.3, crop_ratios=(0.5, 1.0))
    for ratio in (1.0, 0.5):  # a first step's average is the covariance of its real view
        target, _ = judge(views(int(1 / ratio)), views(9), ratio=ratio)
        assert target.var(dim=[0, *range(2, target.dim())], correction=0).mean() == pytest.approx(1)
    before = copy.deepcopy(judge.state_dict())
    judge.eval()
    assert judge(views(3), views(4))[0].isfinite().all()
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())
    with pytest.raises(UsageError, match=r"ratio is 0\.3.*crop_ratios"):
        judge(views(3), views(4), ratio=0.3)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_it_is_an_exponential_moving_average_of_the_encoder(decay):
    first, later = encoder(seed=0), encoder(seed=1)
    judge = Judge(first, decay)
    for _ in range(3):
        judge.update(later)
    for ours, old, new in zip(*(each.parameters() for each in (judge.encoder, first, later)), strict=True):
        torch.testing.assert_close(ours, decay**3 * old + (1 - decay**3) * new)
        assert old.requires_grad  # what was copied still learns


def test_an_encoder_without_a_batch_norm_cannot_be_a_judge():
    with pytest.raises(UsageError, match="Identity"):
        Judge(ConvAutoencoder().encoder)


def test_crop_ratios_are_shares_of_a_side():
    for ratios, said in (((0.15, 2), "an entry of crop_ratios is 2"), (0.5, "crop_ratios is 0.5")):
        with pytest.raises(UsageError, match=said):
            Judge(encoder(), crop_ratios=ratios)
