"""The small autoencoder against the architecture written down layer by layer."""

import pytest
import torch
import torch.nn.functional as F

from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder


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


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_it_is_the_architecture_layer_by_layer(channels):
    model, batch = ConvAutoencoder(channels, latent_dim=5).double(), images(channels)
    codes = model.encode(batch)
    assert codes.shape == (4, 5)
    torch.testing.assert_close(codes, plain_codes(model.encoder, batch))
    torch.testing.assert_close(model(batch), plain_images(model.decoder, codes))
    widths = [layer.weight.shape[0] for layer in (model.encoder.conv1, model.encoder.conv2, model.encoder.conv3)]
    assert widths == [32, 64, 128]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_has_the_size_of_the_textbooks_with_a_batch_norm_or_without(batch_norm):
    model = ConvAutoencoder(batch_norm=batch_norm)
    assert sum(parameter.numel() for parameter in model.parameters()) == 390_273
    assert (model.latent_size, model.compression) == (32, 32)


def test_its_sibling_shares_all_but_the_encoders_last_layer():
    plain, variational = ConvAutoencoder().state_dict(), VariationalConvAutoencoder().state_dict()
    assert plain.keys() == variational.keys()
    different = {name for name in plain if plain[name].shape != variational[name].shape}
    assert different == {"encoder.to_latent.weight", "encoder.to_latent.bias"}
    assert variational["encoder.to_latent.weight"].shape == (64, 2048)
