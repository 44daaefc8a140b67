"""The small autoencoder against the architecture written down layer by layer."""

import pytest
import torch
import torch.nn.functional as F

from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.errors import UsageError


def images(channels=1, count=4):
    return torch.rand(count, channels, 32, 32, dtype=torch.float64)


def plain_codes(encoder, x):
    for layer in (encoder.conv1, encoder.conv2, encoder.conv3):
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1))
    return F.linear(x.reshape(len(x), 128 * 4 * 4), encoder.to_latent.weight, encoder.to_latent.bias)


def plain_images(decoder, codes):
    x = F.relu(F.linear(codes, decoder.from_latent.weight, decoder.from_latent.bias)).reshape(-1, 128, 4, 4)
    x = F.relu(F.conv_transpose2d(x, decoder.conv1.weight, decoder.conv1.bias, stride=2, padding=1))
    x = F.relu(F.conv_transpose2d(x, decoder.conv2.weight, decoder.conv2.bias, stride=2, padding=1))
    return torch.sigmoid(F.conv_transpose2d(x, decoder.conv3.weight, decoder.conv3.bias, stride=2, padding=1))


def test_it_has_the_size_of_the_textbooks():
    model = ConvAutoencoder()
    assert sum(parameter.numel() for parameter in model.parameters()) == 390_273
    assert (model.latent_size, model.compression) == (32, 32)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_it_is_the_architecture_layer_by_layer(channels):
    model = ConvAutoencoder(channels, latent_dim=5).double()
    batch = images(channels)
    codes = model.encode(batch)
    assert codes.shape == (4, 5)
    torch.testing.assert_close(codes, plain_codes(model.encoder, batch))
    torch.testing.assert_close(model.decode(codes), plain_images(model.decoder, codes))
    torch.testing.assert_close(model(batch), plain_images(model.decoder, codes))
    widths = [layer.weight.shape[0] for layer in (model.encoder.conv1, model.encoder.conv2, model.encoder.conv3)]
    assert widths == [32, 64, 128]


def test_its_sibling_shares_all_but_the_encoders_last_layer():
    plain, variational = ConvAutoencoder().state_dict(), VariationalConvAutoencoder().state_dict()
    assert plain.keys() == variational.keys()
    different = {name for name in plain if plain[name].shape != variational[name].shape}
    assert different == {"encoder.to_latent.weight", "encoder.to_latent.bias"}
    assert variational["encoder.to_latent.weight"].shape == (64, 2048)


def test_the_posterior_is_two_halves_of_the_last_layer_and_the_code_is_its_mean():
    model, batch = VariationalConvAutoencoder(latent_dim=5).double(), images()
    mean, log_variance = model.posterior(batch)
    both = plain_codes(model.encoder, batch)
    torch.testing.assert_close(mean, both[:, :5])
    torch.testing.assert_close(log_variance, both[:, 5:])
    torch.testing.assert_close(model.encode(batch), mean)
    torch.testing.assert_close(model(batch), plain_images(model.decoder, mean))


def test_with_a_batch_norm_codes_are_standardised_and_there_are_no_more_parameters():
    model = ConvAutoencoder(batch_norm=True).double()
    assert sum(parameter.numel() for parameter in model.parameters()) == 390_273
    batches = images(count=20), images(count=20) / 3
    for code, batch in zip(model.encode_views(*batches), batches, strict=True):  # each by its own statistics
        plain = plain_codes(model.encoder, batch)
        spread = (plain.var(dim=0, correction=0) + model.encoder.norm.eps).sqrt()
        torch.testing.assert_close(code, (plain - plain.mean(dim=0)) / spread)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConvAutoencoder(latent_dim=0), "latent_dim is 0"),
        (lambda: ConvAutoencoder(image_channels=0), "image_channels is 0"),
        (lambda: ConvAutoencoder(output="tanh"), "output is 'tanh'.*sigmoid or linear"),
        (lambda: VariationalConvAutoencoder(batch_norm=True), "no batch norm"),
        (lambda: ConvAutoencoder()(torch.rand(2, 1, 28, 28)), r"\[2, 1, 28, 28\].*\[N, 1, 32, 32\]"),
        (lambda: ConvAutoencoder()(torch.rand(2, 3, 32, 32)), r"\[N, 1, 32, 32\]"),
    ],
)
def test_what_it_cannot_be_is_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()
