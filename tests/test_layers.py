"""The layers against the plain layers they stand for, values and gradients, in float64; and what autocast leaves."""

import pytest
import torch
import torch.nn.functional as F

from leae import layers
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.judge import Judge
from leae.layers import ChannelsLast, SpaceToDepthShortcut, StridedConv, Upsample, UpsampledConv
from leae.masking import crop_and_resize, draw_boxes
from leae.objective import SelfTeachingObjective
from leae.reconstruction import ReconstructionLoss

both_memory_formats = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


def random(*shape, memory_format=torch.contiguous_format):
    tensor = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    return tensor.requires_grad_()


def assert_same_with_gradients(ours, plain, inputs, **tolerance):
    torch.testing.assert_close(ours, plain, **tolerance)
    cotangent = torch.randn_like(plain)
    gradients = (torch.autograd.grad(output, inputs, cotangent, retain_graph=True) for output in (ours, plain))
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, **tolerance)


@both_memory_formats
def test_transposed_convolution_to_few_channels_is_a_transposed_convolution(memory_format):
    x, kernel, bias = random(2, 5, 6, 7, memory_format=memory_format), random(5, 3, 4, 4), random(3)
    plain = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    assert_same_with_gradients(layers.conv_transpose_to_few(x, kernel, bias), plain, (x, kernel, bias))
    torch.testing.assert_close(layers.conv_transpose_to_few(x, kernel), plain - bias.view(1, -1, 1, 1))


@both_memory_formats
@pytest.mark.parametrize("wanted", ["images and weights", "images", "weights"])  # the judge's weights get no gradient
def test_strided_convolution_is_a_4x4_convolution_of_stride_2(memory_format, wanted):
    layer = StridedConv(3, 5).double().to(memory_format=memory_format).requires_grad_("weights" in wanted)
    images = random(2, 3, 6, 8, memory_format=memory_format).requires_grad_("images" in wanted)
    plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    inputs = [tensor for tensor in (images, layer.weight, layer.bias) if tensor.requires_grad]
    assert_same_with_gradients(layer(images), plain, inputs)
    assert_same_with_gradients(layer.as_product(images), plain, inputs)  # on a GPU


def test_strided_convolution_gets_gradients_under_autocast():
    layer, images = StridedConv(3, 5), torch.rand(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    with torch.autocast("cpu", torch.bfloat16):  # another one, as each keeps the weights that it has cast
        plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    assert output.dtype == torch.bfloat16
    assert_same_with_gradients(output, plain, (images, layer.weight, layer.bias), rtol=0.02, atol=0.02)


@both_memory_formats
@pytest.mark.parametrize("out_channels", [1, 3, 8])  # few, and more
def test_upsampled_convolution_is_nearest_upsampling_and_a_3x3_convolution(out_channels, memory_format):
    layer = UpsampledConv(5, out_channels).double().to(memory_format=memory_format)
    x = random(2, 5, 6, 7, memory_format=memory_format)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)
    assert_same_with_gradients(layer(x), plain, (x, layer.weight, layer.bias))


@both_memory_formats
def test_upsampling_and_channels_last_change_no_value_or_gradient(memory_format):
    x = random(2, 5, 6, 4, memory_format=memory_format)
    assert_same_with_gradients(Upsample.apply(x), F.interpolate(x, scale_factor=2, mode="nearest"), (x,))
    assert_same_with_gradients(ChannelsLast.apply(x), x.clone(), (x,))
    ordered = ChannelsLast.apply(x)
    (gradient,) = torch.autograd.grad(ordered, x, torch.ones(2, 5, 6, 4, dtype=x.dtype))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (ordered, gradient))


@both_memory_formats
@pytest.mark.parametrize("channels", [(4, 8), (8, 16), (8, 8), (8, 4), (6, 2), (3, 12), (6, 8), (9, 6)])
def test_shortcut_is_space_to_depth_and_the_mean_of_adjacent_channels(channels, memory_format):
    in_channels, out_channels = channels  # groups of 2, 2, 4, 8, 12, 1, 3, 6
    x = random(2, in_channels, 6, 8, memory_format=memory_format)
    plain = F.pixel_unshuffle(x, 2).unflatten(1, (out_channels, -1)).mean(dim=2)
    shortcut = SpaceToDepthShortcut(in_channels, out_channels).double()
    assert_same_with_gradients(shortcut(x), plain, (x,))
    assert not list(shortcut.parameters())


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize("norm", ["shared", "own", "whitened"])
def test_under_autocast_convolutions_are_bfloat16_and_codes_pixels_crops_and_losses_float32(latent, norm):
    torch.manual_seed(0)
    model = Autoencoder(16, 3, hidden_dim=8, latent=latent, latent_dim=8, map_channels=8)
    judge, images = Judge(model.encoder, 0.9, norm, crop_ratios=(0.5,)), torch.rand(32, 3, 16, 16)
    objective = SelfTeachingObjective(crop_ratios=(0.5, 1.0))
    exact = objective(model, judge, images, torch.Generator().manual_seed(0))
    boxes = draw_boxes(32, 8, 16, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder.project(images).dtype == torch.bfloat16
        codes = model.encode(images)
        normalised = layers.normalise(codes.bfloat16(), judge.encoder.norm)
        assert {tensor.dtype for tensor in (codes, model.decode(codes), normalised)} == {torch.float32}
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
