"""The models against plain computations of the same formulas, in float64."""

import re

import pytest
import torch
import torch.nn.functional as F

from leae.autoencoder import Autoencoder, VariationalAutoencoder, build, require_pixels
from leae.conv_autoencoder import ConvAutoencoder
from leae.errors import UsageError


def small(kind=Autoencoder, **settings):
    sizes = {"image_size": 32, "hidden_dim": 8, "latent_dim": 8, "map_channels": 16}
    return kind(**{**sizes, **settings}).double()


def images(count=5, size=32, channels=3):
    return torch.rand(count, channels, size, size, dtype=torch.float64)


both_latents = pytest.mark.parametrize("latent", ["pooled", "spatial"])


@pytest.mark.parametrize(
    ("kind", "settings", "parameters", "latent_size", "compression"),
    [
        (Autoencoder, {"latent_dim": 128}, 11_153_155, 128, 384),
        (Autoencoder, {"latent_dim": 512}, 36_320_131, 512, 96),
        (Autoencoder, {"latent": "spatial", "latent_dim": 32}, 2_126_083, 8192, 6),
        (ConvAutoencoder, {}, 390_273, 32, 32),
        (ConvAutoencoder, {"batch_norm": True}, 390_273, 32, 32),
    ],
)
def test_published_models_have_the_published_sizes(kind, settings, parameters, latent_size, compression):
    model = build(kind, **settings)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert (model.latent_size, model.compression) == (latent_size, compression)


@pytest.mark.parametrize("size", [8, 32, 64, 96, 128, 256])
@both_latents
def test_any_multiple_of_eight_and_any_channels_make_codes_and_images(size, latent):
    model = Autoencoder(size, image_channels=2, hidden_dim=4, latent=latent, latent_dim=4, map_channels=4)
    batch = torch.rand(2, 2, size, size)
    assert model.encode(batch).shape == (2, *model.latent_shape)
    assert model.latent_shape == ((4,) if latent == "pooled" else (4, size // 8, size // 8))
    reconstructions = model(batch)
    assert reconstructions.shape == batch.shape
    assert 0 <= reconstructions.min() <= reconstructions.max() <= 1


def test_images_of_another_shape_are_refused():
    for wrong in (images(size=40), images(channels=1), images().float(), (255 * images()).byte(), images().numpy()):
        for model in (small(), small().eval()):
            with pytest.raises(UsageError, match=r"float64 \[N, 3, 32, 32\]"):
                model.encode(wrong)


@pytest.mark.parametrize("wrong", [255.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_model_in_use_refuses_images_outside_0_and_1_and_a_training_step_reads_none(wrong):
    batch = images()
    batch[3, 1, 2, 4] = wrong
    model = small()
    model.encode(batch)  # would have to wait for its device
    for use in (model.eval().encode, model):
        with pytest.raises(UsageError, match=re.escape(f"{wrong:.4g}")):
            use(batch)
        use(batch.clamp(0, 1).nan_to_num() + 1e-6)  # a rounding


@both_latents
def test_the_variational_one_has_twice_the_codes_and_no_batch_norm(latent):
    model, batch = small(VariationalAutoencoder, latent=latent).train(), images(4)
    mean, log_variance = model.posterior(batch)
    assert mean.shape == log_variance.shape == (4, *model.latent_shape)
    torch.testing.assert_close(torch.cat([mean, log_variance], dim=1), model.encoder.project(batch))
    torch.testing.assert_close(model.encode(batch), mean)
    torch.testing.assert_close(model(batch)[:1], model(batch[:1]))  # nothing ties a batch together
    assert model.latent_size == small(latent=latent).latent_size
    assert not [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]


def test_a_linear_output_works_on_pixels_scaled_to_minus_1_to_1():
    linear, sigmoid = small(output="linear").eval(), small().eval()
    sigmoid.load_state_dict(linear.state_dict())
    batch = images()
    scaled = sigmoid.encoder.norm(sigmoid.encoder.project(2 * batch - 1))
    torch.testing.assert_close(linear.encode(batch), scaled)
    codes = 20 * torch.randn(5, 8, dtype=torch.float64)  # far enough for values beyond the pixels' range
    raw = linear.decoder(codes)
    assert raw.abs().max() > 1
    torch.testing.assert_close(linear.decode(codes), ((raw + 1) / 2).clamp(0, 1))
    torch.testing.assert_close(sigmoid.decode(codes), torch.sigmoid(raw))


def plain_codes(encoder, x):
    for layer in (encoder.conv1, encoder.conv2, encoder.conv3):
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1))
    return F.linear(x.reshape(len(x), 128 * 4 * 4), encoder.to_latent.weight, encoder.to_latent.bias)


def plain_images(decoder, codes):
    x = F.relu(F.linear(codes, decoder.from_latent.weight, decoder.from_latent.bias)).reshape(-1, 128, 4, 4)
    x = F.relu(F.conv_transpose2d(x, decoder.conv1.weight, decoder.conv1.bias, stride=2, padding=1))
    x = F.relu(F.conv_transpose2d(x, decoder.conv2.weight, decoder.conv2.bias, stride=2, padding=1))
    return torch.sigmoid(F.conv_transpose2d(x, decoder.conv3.weight, decoder.conv3.bias, stride=2, padding=1))


def test_the_small_autoencoder_is_its_architecture_layer_by_layer():
    model, batch = ConvAutoencoder(2, latent_dim=5).double(), images(4, 32, channels=2)
    codes = model.encode(batch)
    assert codes.shape == (4, 5)
    torch.testing.assert_close(codes, plain_codes(model.encoder, batch))
    torch.testing.assert_close(model(batch), plain_images(model.decoder, codes))


def test_the_small_model_learns_dark_images_from_a_mean_squared_error():
    torch.manual_seed(0)
    model, grid = ConvAutoencoder(), torch.arange(32)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(40):
        rows, columns = torch.randint(5, 27, (2, 32, 1))
        images = ((grid - rows).abs() < 8)[:, None, :, None] & ((grid - columns).abs() < 3)[:, None, None]
        images = images.float()  # white bars on black
        loss = F.mse_loss(model(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < images.mean() / 2  # the error of black images


def test_white_is_in_range_in_every_precision():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        require_pixels(torch.tensor([0.0, 1.0], dtype=dtype))
