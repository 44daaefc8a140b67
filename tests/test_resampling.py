"""The layers that change a map's size against the plain layers they stand for, values and gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F

from leae.errors import UsageError
from leae.resampling import SpaceToDepthShortcut, StridedConv, UpsampledConv, conv_transpose_to_few

FORMATS = (torch.contiguous_format, torch.channels_last)


def random(*shape, memory_format=torch.contiguous_format):
    tensor = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    return tensor.requires_grad_()


def assert_same_with_gradients(ours, theirs, inputs):
    torch.testing.assert_close(ours, theirs)
    cotangent = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(theirs, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_transposed_convolution_to_few_channels_is_a_transposed_convolution(memory_format):
    x, kernel, bias = random(2, 5, 6, 7, memory_format=memory_format), random(5, 3, 4, 4), random(3)
    plain = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    assert_same_with_gradients(conv_transpose_to_few(x, kernel, bias), plain, (x, kernel, bias))
    torch.testing.assert_close(conv_transpose_to_few(x, kernel), plain - bias.view(1, -1, 1, 1))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("learns", [True, False])  # the judge's weights get no gradient, its images do
def test_strided_convolution_is_a_4x4_convolution_of_stride_2(memory_format, learns):
    layer = StridedConv(3, 5).double().to(memory_format=memory_format).requires_grad_(learns)
    images = random(2, 3, 6, 8, memory_format=memory_format)
    plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    assert_same_with_gradients(layer(images), plain, (images, layer.weight, layer.bias) if learns else (images,))


def test_strided_convolution_of_images_that_want_no_gradient_still_learns():
    layer = StridedConv(3, 5).double()
    images = random(2, 3, 6, 8).detach()
    plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    assert_same_with_gradients(layer(images), plain, (layer.weight, layer.bias))


def test_strided_convolution_gets_gradients_under_autocast():
    layer = StridedConv(3, 5)
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
        plain = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=1)
    assert output.dtype == torch.bfloat16
    inputs = (images, layer.weight, layer.bias)
    for mine, other in zip(
        torch.autograd.grad(output.float().square().sum(), inputs),
        torch.autograd.grad(plain.float().square().sum(), inputs),
        strict=True,
    ):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("out_channels", [1, 3, 8])  # few, and more
def test_upsampled_convolution_is_nearest_upsampling_and_a_3x3_convolution(out_channels, memory_format):
    layer = UpsampledConv(5, out_channels).double().to(memory_format=memory_format)
    x = random(2, 5, 6, 7, memory_format=memory_format)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)
    assert_same_with_gradients(layer(x), plain, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("in_channels", "out_channels"),
    [(4, 8), (8, 16), (8, 8), (8, 4), (6, 2), (3, 12), (6, 8), (9, 6)],  # groups of 2, 2, 4, 8, 12, 1, 3, 6
)
def test_shortcut_is_space_to_depth_and_the_mean_of_adjacent_channels(in_channels, out_channels, memory_format):
    x = random(2, in_channels, 6, 8, memory_format=memory_format)
    plain = F.pixel_unshuffle(x, 2).unflatten(1, (out_channels, -1)).mean(dim=2)
    shortcut = SpaceToDepthShortcut(in_channels, out_channels).double()
    assert_same_with_gradients(shortcut(x), plain, (x,))
    assert not list(shortcut.parameters())


def test_a_shortcut_that_cannot_be_group_means_is_refused():
    with pytest.raises(UsageError, match="5 channels cannot be group means of 4 × 4 = 16; choose a divisor of 16"):
        SpaceToDepthShortcut(4, 5)
