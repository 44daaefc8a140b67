"""The layers that PyTorch does not have, or not as fast: halving and doubling a map, and batch norm.

The first ones have the parameters and the values of the plain layers that their docstrings name, but cost less. The
batch norm takes its statistics over the global batch of all processes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.distributed import all_reduce_sum, world_size

FEW = 4  # output channels up to which `conv_transpose_to_few` is faster


def conv_transpose_to_few(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """A transposed convolution (kernel 4×4, stride 2, padding 1) to few channels, computed as one of stride 1.

    With few output channels, three say, a processor's wide arithmetic units have little to do. But the output pixels
    2i − 1 and 2i see the input pixels i − 1 and i alone, along one axis k₂·x[i−1] + k₀·x[i] and k₃·x[i−1] + k₁·x[i],
    so that one 2×2 convolution to four times as many channels gives all four pixels of every square.

    [N, in_channels, H, W], kernel [in_channels, out_channels, 4, 4], bias [out_channels] → [N, out_channels, 2H, 2W]
    """
    in_channels, channels = kernel.shape[:2]
    taps = kernel.view(in_channels, channels, 2, 2, 2, 2).flip(2, 4)  # [in, out, row i−1 or i, pixel, column, pixel]
    phases = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * channels, in_channels, 2, 2)
    phases = phases.contiguous(memory_format=torch.channels_last)
    squares = F.conv2d(x, phases, None if bias is None else bias.repeat(4), padding=1).permute(0, 2, 3, 1)
    squares = squares.unflatten(3, (2, 2, channels)).transpose(2, 3)  # [N, H + 1, pixel, W + 1, pixel, out]
    pixels = squares.flatten(3, 4).flatten(1, 2)
    return pixels[:, 1:-1, 1:-1].permute(0, 3, 1, 2)  # the squares at the border stand half outside


class Patches(torch.autograd.Function):
    """`Patches.apply` is all 4×4 patches, two pixels apart, of images: [N, C, H, W] → [N, H/2, W/2, 16·C].

    The images get a border of zeros. A patch has the order of a channels-last kernel: rows, columns, channels. Compiled
    from PyTorch's operations alone, the backward would scatter.
    """

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        windows = F.pad(images, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # [N, C, H/2, W/2, 4, 4]
        return windows.permute(0, 2, 3, 4, 5, 1).flatten(3)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        quarters = gradient.unflatten(3, (2, 2, 2, 2, -1))  # a patch is 2×2 squares of 2×2 pixels
        squares = sum(
            F.pad(quarters[:, :, :, row, :, column], (0, 0, 0, 0, 0, 0, column, 1 - column, row, 1 - row))
            for row in range(2)
            for column in range(2)
        )  # [N, H/2 + 1, W/2 + 1, 2, 2, C]
        return squares.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


class StridedConv(nn.Conv2d):
    """A 4×4 convolution of stride 2 on few channels: [N, in_channels, H, W] → [N, out_channels, H/2, W/2].

    Its gradient with respect to images, for the judge, is a transposed convolution to few channels.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.as_product(images) if images.is_cuda else _StridedConv.apply(images, self.weight, self.bias)

    def as_product(self, images: Tensor) -> Tensor:
        """The same as a matrix product, which is faster on a GPU, and slower on a CPU."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(Patches.apply(images), weight, self.bias).permute(0, 3, 1, 2)


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        images, weight = (tensor.to(gradient.dtype) for tensor in ctx.saved_tensors)  # autocast's, if it was on
        by_images = conv_transpose_to_few(gradient, weight) if ctx.needs_input_grad[0] else None
        wanted = (False, *ctx.needs_input_grad[1:])
        _, by_weight, by_bias = torch.ops.aten.convolution_backward(
            gradient, images, weight, [len(weight)], [2, 2], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )
        return by_images, by_weight, by_bias


class UpsampledConv(nn.Conv2d):
    """Nearest-neighbour upsampling by 2, then a 3×3 convolution: [N, in_channels, H, W] → [N, out_channels, 2H, 2W].

    It is computed as one transposed convolution. Each output pixel sees only 2×2 different input pixels through its
    3×3 window, so the nine taps are summed into four: with w the 3-tap kernel of one axis, output pixels 2i and 2i+1
    are w₀·x[i−1] + (w₁+w₂)·x[i] and (w₀+w₁)·x[i] + w₂·x[i+1], which is a 4-tap transposed convolution of stride 2
    with the kernel (w₂, w₁+w₂, w₀+w₁, w₀). The parameters stay those of the 3×3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.transpose(0, 1)
        for axis in (2, 3):
            first, second, third = kernel.unbind(axis)
            kernel = torch.stack((third, second + third, first + second, first), axis)  # at last [in, out, 4, 4]
        if self.out_channels <= FEW:
            return conv_transpose_to_few(x, kernel, self.bias)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class ChannelsLast(torch.autograd.Function):
    """`ChannelsLast.apply` leaves maps, [N, C, H, W], and their gradient as they are, but channels-last in memory.

    It stands where vectors become maps, or maps vectors: convolutions on either side are then spared copies.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


class Upsample(torch.autograd.Function):
    """`Upsample.apply` is nearest-neighbour upsampling by 2: [N, C, H, W] → [N, C, 2H, 2W].

    Its backward names PyTorch's own, a sum of four: compiled from `F.interpolate` alone, it would scatter.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return F.interpolate(x, scale_factor=2, mode="nearest")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return torch.ops.aten.upsample_nearest2d_backward(gradient, gradient.shape[2:], ctx.shape)


class SpaceToDepthShortcut(nn.Module):
    """Space-to-depth by 2, then the mean of each group of adjacent channels. No parameters.

    Space-to-depth turns channel c into the four adjacent channels 4c + 2·dy + dx. So a group of two is the mean of
    two pixels side by side, and one of 4k the mean of k channels over squares of 2×2: pooling, without a shuffled copy.

    [N, in_channels, H, W] → [N, out_channels, H/2, W/2], where out_channels divides 4·in_channels.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.group = 4 * in_channels // out_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.group == 2:
            pairs = F.avg_pool2d(x, (1, 2)).permute(0, 2, 3, 1).unflatten(1, (-1, 2))  # [N, H/2, dy, W/2, in]
            return pairs.permute(0, 1, 3, 4, 2).flatten(3).permute(0, 3, 1, 2)
        if self.group % 4 == 0:
            squares = F.avg_pool2d(x, 2)
            channels = squares.permute(0, 2, 3, 1).unflatten(3, (-1, self.group // 4)).unbind(4)
            return (sum(channels) / len(channels)).permute(0, 3, 1, 2)
        return F.pixel_unshuffle(x, 2).unflatten(1, (-1, self.group)).mean(dim=2)


def float64_device(device: torch.device) -> torch.device:
    """Where what is on a device is computed in float64: on the CPU for Apple's GPUs, which have none, else there."""
    return torch.device("cpu") if device.type == "mps" else device


def at_least_float32(values: Tensor) -> Tensor:
    """bfloat16 or float16, as autocast's layers give, to float32, for what is computed with it; others as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def batch_statistics(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the global batch and over positions: [N, D] or [N, D, H, W] → [D] each."""
    if world_size() == 1:
        variance, mean = torch.var_mean(codes, dim=[0, *range(2, codes.dim())], correction=0)
        return mean, variance
    samples = codes.movedim(1, -1).flatten(0, -2)
    count = world_size() * len(samples)
    mean = all_reduce_sum(samples.sum(dim=0)) / count
    return mean, all_reduce_sum((samples - mean).square().sum(dim=0)) / count


def normalise(codes: Tensor, norm: nn.Module) -> Tensor:
    """Codes [N, D] or [N, D, H, W] by a batch norm with their own batch statistics, through which gradients flow."""
    codes = at_least_float32(codes)
    if world_size() == 1:
        return F.batch_norm(codes, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return _standardise(codes, *batch_statistics(codes), norm)


def _standardise(codes: Tensor, mean: Tensor, variance: Tensor, norm: nn.Module) -> Tensor:
    """As F.batch_norm does with a mean and a variance [D], but with gradients through these."""
    scaled = (codes.movedim(1, -1) - mean) * (variance + norm.eps).rsqrt()
    return (scaled if norm.weight is None else scaled * norm.weight + norm.bias).movedim(-1, 1)


def normalise_with(codes: Tensor, others: Tensor, norm: nn.Module) -> Tensor:
    """Codes by a batch norm with the batch statistics of others, which are constants."""
    mean, variance = batch_statistics(at_least_float32(others))
    codes = at_least_float32(codes)
    return F.batch_norm(codes, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's over the batch, and over positions: [N, D] or [N, D, H, W]; of all processes, in float32 or better."""

    def _check_input_dim(self, codes: Tensor) -> None:
        """Any number of positions is right."""

    def forward(self, codes: Tensor) -> Tensor:
        codes = at_least_float32(codes)
        if not self.training or world_size() == 1:
            return super().forward(codes)
        mean, variance = batch_statistics(codes)
        count = world_size() * codes.numel() // len(mean)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # the unbiased one, as PyTorch does
        return _standardise(codes, mean, variance, self)
