"""The model against plain computations of the same formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F

from leae.autoencoder import Autoencoder, DownBlock, UpBlock, VariationalAutoencoder
from leae.errors import UsageError


def small(**settings):
    return Autoencoder(**{"image_size": 32, "hidden_dim": 8, "latent_dim": 6, "map_channels": 8, **settings}).double()


def images(count=5, size=32, channels=3):
    return torch.rand(count, channels, size, size, dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "parameters", "numbers", "compression"),
    [
        ({"latent_dim": 128}, 11_153_155, 128, 384),
        ({"latent_dim": 512}, 36_320_131, 512, 96),
        ({"latent": "spatial", "latent_dim": 32}, 2_126_083, 8192, 6),
    ],
)
def test_published_models_have_the_published_sizes(settings, parameters, numbers, compression):
    model = Autoencoder(**settings)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert (model.latent_size, model.compression) == (numbers, compression)


def test_blocks_are_the_designs_formulas():
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    down = DownBlock(8, 16).double()
    residual = F.conv2d(x, down.conv1.weight, down.conv1.bias, stride=2, padding=1)
    residual = F.conv2d(F.silu(residual), down.conv2.weight, down.conv2.bias, padding=1)
    shortcut = F.pixel_unshuffle(x, 2).unflatten(1, (16, 2)).mean(dim=2)
    torch.testing.assert_close(down(x), F.silu(residual + shortcut))

    up = UpBlock(8, 4).double()
    upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
    residual = F.conv2d(upsampled, up.conv1.weight, up.conv1.bias, padding=1)
    residual = F.conv2d(F.silu(residual), up.conv2.weight, up.conv2.bias, padding=1)
    shortcut = F.conv2d(upsampled, up.shortcut.weight, up.shortcut.bias)
    torch.testing.assert_close(up(x), F.silu(residual + shortcut))


@pytest.mark.parametrize("size", [8, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("latent", ["pooled", "spatial"])
def test_any_multiple_of_eight_and_any_channels_make_codes_and_images(size, latent):
    model = Autoencoder(size, image_channels=2, hidden_dim=4, latent=latent, latent_dim=4, map_channels=4)
    batch = torch.rand(2, 2, size, size)
    codes = model.encode(batch)
    assert codes.shape == ((2, 4) if latent == "pooled" else (2, 4, size // 8, size // 8))
    reconstructions = model(batch)
    assert reconstructions.shape == batch.shape
    assert 0 <= reconstructions.min() <= reconstructions.max() <= 1


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
def test_views_that_share_a_pass_are_encoded_as_if_each_had_its_own(latent):
    torch.manual_seed(0)
    together, apart = small(latent=latent, latent_dim=8), small(latent=latent, latent_dim=8)
    apart.load_state_dict(together.state_dict())
    first, second = images(), images() / 3
    for ours, plain in zip(
        together.encode_views(first, second), (apart.encode(first), apart.encode(second)), strict=True
    ):
        torch.testing.assert_close(ours, plain)
        over = (0, 2, 3)[: ours.dim() - 1]
        torch.testing.assert_close(ours.mean(over), torch.zeros(8, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(together.encoder.norm.running_mean, apart.encoder.norm.running_mean)
    torch.testing.assert_close(together.encoder.norm.running_var, apart.encoder.norm.running_var)


def test_evaluation_does_not_depend_on_the_other_images_of_the_batch():
    model = small().eval()
    batch = images(4)
    torch.testing.assert_close(model(batch)[:1], model(batch[:1]))


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        ({"image_size": 100}, ["100", "96", "104"]),
        ({"image_size": 4}, ["4", "8", "16"]),
        ({"image_size": 0}, ["0", "8"]),
        ({"latent": "vector"}, ["vector", "pooled", "spatial"]),
        ({"hidden_dim": 0}, ["hidden_dim", "at least 1"]),
        ({"latent_dim": 0}, ["latent_dim", "at least 1"]),
        ({"image_channels": 0}, ["image_channels"]),
        ({"hidden_dim": 128, "map_channels": 100}, ["map_channels", "100", "128"]),
        ({"hidden_dim": 32, "latent": "spatial", "latent_dim": 30}, ["latent_dim", "30", "32"]),
        ({"map_channels": 0}, ["map_channels"]),
        ({"output": "tanh"}, ["output", "tanh", "sigmoid or linear"]),
    ],
)
def test_impossible_sizes_are_refused_with_sizes_that_work(settings, mentions):
    with pytest.raises(UsageError) as refusal:
        Autoencoder(**settings)
    assert all(text in str(refusal.value) for text in mentions)


def test_images_of_another_shape_are_refused():
    model = small()
    for wrong in (images(size=40), images(channels=1)):
        with pytest.raises(UsageError, match=r"takes \[N, 3, 32, 32\]"):
            model.encode(wrong)


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
def test_the_variational_one_has_twice_the_codes_and_no_batch_norm(latent):
    sizes = {"image_size": 32, "hidden_dim": 8, "latent": latent, "latent_dim": 8, "map_channels": 16}
    model = VariationalAutoencoder(**sizes).double()
    mean, log_variance = model.posterior(images())
    both = model.encoder.project(images())
    assert mean.shape == log_variance.shape == (5, *model.latent_shape)
    assert both.shape[1] == 16
    batch = images(4)
    mean, log_variance = model.posterior(batch)
    torch.testing.assert_close(torch.cat([mean, log_variance], dim=1), model.encoder.project(batch))
    torch.testing.assert_close(model.encode(batch), mean)
    torch.testing.assert_close(model.train()(batch)[:1], model(batch[:1]))  # nothing ties a batch together
    assert model.latent_size == Autoencoder(**sizes).latent_size
    assert not [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]


def test_a_spatial_variational_map_that_cannot_be_is_refused_with_those_that_can():
    with pytest.raises(UsageError, match=r"is 96, the double of which does not divide .* 64, 128 are the nearest"):
        VariationalAutoencoder(32, hidden_dim=32, latent="spatial", latent_dim=96)
    for latent_dim in (64, 128):
        VariationalAutoencoder(32, hidden_dim=32, latent="spatial", latent_dim=latent_dim)


def test_a_linear_output_works_on_pixels_scaled_to_minus_1_to_1():
    linear, sigmoid = small(output="linear").eval(), small().eval()
    sigmoid.load_state_dict(linear.state_dict())
    batch = images()
    torch.testing.assert_close(linear.encode(batch), sigmoid.encoder(2 * batch - 1))
    codes = 20 * torch.randn(5, 6, dtype=torch.float64)  # far enough for values beyond the pixels' range
    raw = linear.decoder(codes)
    assert raw.abs().max() > 1
    torch.testing.assert_close(linear.decode(codes), ((raw + 1) / 2).clamp(0, 1))
    torch.testing.assert_close(sigmoid.decode(codes), torch.sigmoid(raw))
