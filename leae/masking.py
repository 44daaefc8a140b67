"""Views of images: square masks filled with the image's own mean colour, noise, crop boxes, crop-and-resize.

What is random is drawn on the images' device from a generator that the caller makes, for the whole batch at once: where
several processes share a batch, each draws for all and keeps its own rows.
"""

import math

import torch
from torch import Tensor

from leae.distributed import local_rows, world_size
from leae.errors import require, require_in


def mask_side(image_size: int, mask_ratio: float) -> int:
    """Side in pixels of a square that covers `mask_ratio` of the image's area; ValueError unless some are hidden."""
    require_in("(0, 1)", mask_ratio=mask_ratio)
    side = round(math.sqrt(mask_ratio) * image_size)
    expected = f"such that the mask hides some of {image_size}×{image_size} pixels and not all"
    require(0 < side < image_size, "mask_ratio", mask_ratio, expected)
    return side


def require_ratios(ratios: tuple[float, ...]) -> None:
    """Refuse crop ratios that are no tuple of different numbers in (0, 1]: `UsageError`."""
    some = isinstance(ratios, tuple) and len(ratios) > 0
    require(some, "crop_ratios", ratios, "a tuple of at least one number, as in (0.15,) or (0.15, 1.0)")
    for ratio in ratios:
        require_in("(0, 1]", **{"an entry of crop_ratios": ratio})
    require(len(set(ratios)) == len(ratios), "crop_ratios", ratios, "different numbers")


def crop_side(image_size: int, crop_ratio: float) -> int:
    """Side in pixels of a crop box that is `crop_ratio`, in (0, 1], of the image's; ValueError below 2 pixels."""
    require_in("(0, 1]", crop_ratio=crop_ratio)
    side = round(crop_ratio * image_size)
    expected = f"at least {2 / image_size:.2g}, a box of 2×2 of {image_size}×{image_size} pixels"
    require(side >= 2, "crop_ratio", crop_ratio, expected)
    return side


def draw_boxes(count: int, side: int, image_size: int, generator: torch.Generator) -> Tensor:
    """Row and column of the top left pixel of `count` boxes, anywhere inside the image: int64 [count, 2]."""
    return torch.randint(0, image_size - side + 1, (count, 2), generator=generator, device=generator.device)


def inside_squares(corners: Tensor, side: int, size: int) -> Tensor:
    """Which pixels of images of `size` pixels lie inside their squares, by top left pixel: bool [N, 1, size, size]."""
    offset = torch.arange(size, device=corners.device) - corners[:, :, None]  # [N, 2, S]: from the first row, column
    rows, columns = ((offset >= 0) & (offset < side)).unbind(1)  # [N, S] each
    return rows[:, None, :, None] & columns[:, None, None, :]


def fill_squares(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Images, float [N, C, S, S], whose square at corners, int64 [N, 2], is filled with the mean of all its pixels."""
    return torch.where(inside_squares(corners, side, images.shape[-1]), images.mean(dim=(2, 3), keepdim=True), images)


def mask_squares(images: Tensor, mask_ratio: float, generator: torch.Generator) -> Tensor:
    """Images, float [N, C, S, S], with a square of `mask_ratio` of the area at a random place filled as above."""
    size = images.shape[-1]
    side = mask_side(size, mask_ratio)
    return fill_squares(images, local_rows(draw_boxes(len(images) * world_size(), side, size, generator)), side)


def add_noise(images: Tensor, deviation: float, noise: Tensor) -> Tensor:
    """The noisy view of images in [0, 1], clamp(x + σ · noise, 0, 1), with noise as `draw_gaussian` draws it."""
    return (images + deviation * noise).clamp(0, 1)


def draw_gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gaussian numbers for every entry of a batch, of its shape, dtype and device."""
    shape = (len(like) * world_size(), *like.shape[1:])
    return local_rows(torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype))


def crop_and_resize(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut a square box out of each image, float [N, C, S, S], and resize it bilinearly to the image's full size.

    `corners`, int64 [N, 2], are row and column of each box's top left pixel; `side` is from 2 to S pixels. The centres
    of the box's corner pixels map to those of the result's corner pixels. Each output row is a mix of two input rows,
    each output column of two input columns, so the whole is two batched matrix products; they are differentiable, and
    pixels outside the box have weight zero, hence gradient zero.
    """
    size = images.shape[-1]
    pixels = torch.arange(size, device=images.device, dtype=images.dtype)
    steps = pixels * ((side - 1) / (size - 1))  # where the output's pixels lie, counted from the box's corner
    # The hat function max(0, 1 − |distance|) is bilinear interpolation's weight of an input pixel. Distances are
    # taken inside the box, before its corner is added, so that no rounding reaches past the box's last pixel.
    hat = (1 - (steps[:, None] - pixels[:side]).abs()).clamp(min=0)  # [S, side]
    place = corners[:, :, None] + torch.arange(side, device=images.device)  # [N, 2, side]
    place, hat = place[:, :, None].expand(-1, -1, size, -1), hat.expand(len(images), 2, -1, -1)
    weights = images.new_zeros(len(images), 2, size, size).scatter_(3, place, hat)
    rows, columns = weights.unbind(1)  # [N, S, S] each: output position × input position
    # Not in bfloat16, which is coarser than pixels are shown. On a GPU that may use TF32, these products do.
    with torch.autocast(images.device.type, enabled=False):
        crops = rows[:, None] @ images @ columns[:, None].mT
    return crops.contiguous(memory_format=torch.channels_last)
