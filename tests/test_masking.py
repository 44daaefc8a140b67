"""Masks and crops against loops over images and PyTorch's own interpolation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leae.masking import add_noise, crop_and_resize, draw_boxes, draw_gaussian, fill_squares, mask_side
from tests import reference as plain

SEEDS = st.integers(0, 2**31)


def boxes(count, side, size, seed=0):
    return draw_boxes(count, side, size, torch.Generator().manual_seed(seed))


@given(size=st.integers(8, 40), data=st.data(), seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_masked_square_is_filled_with_the_images_own_mean(size, data, seed):
    side = data.draw(st.integers(1, size - 1))
    assert mask_side(size, (side / size) ** 2) == side
    images = torch.rand(3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    corners = boxes(3, side, size, seed)
    torch.testing.assert_close(fill_squares(images, corners, side), plain.mask(images, corners, side))


def test_noise_is_gaussian_with_its_deviation_in_every_channel_and_clamped():
    images = torch.full((100, 3, 32, 32), 0.5, dtype=torch.float64)
    standard = draw_gaussian(images, torch.Generator().manual_seed(0))
    noise = add_noise(images, 0.1, standard) - images  # 5 σ from either end
    count = noise.numel()
    assert abs(noise.mean()) < 5 * 0.1 / count**0.5
    assert abs(noise.std() / 0.1 - 1) < 5 / (2 * count) ** 0.5
    assert abs((noise.abs() < 0.1).double().mean() - 0.6827) < 5 * 0.5 / count**0.5
    channels = torch.corrcoef(noise.transpose(0, 1).flatten(1)) - torch.eye(3)
    assert channels.abs().max() < 5 / (count / 3) ** 0.5
    assert add_noise(images, 5.0, standard).aminmax() == (0, 1)


def test_boxes_lie_inside_and_reach_every_position_evenly():
    corners = boxes(20_000, side=5, size=8)
    counts = torch.bincount(corners[:, 0] * 4 + corners[:, 1], minlength=16)
    assert len(counts) == 16  # rows and columns 0 to 3: no box crosses the edge
    assert (counts - 20_000 / 16).abs().max() < 5 * (20_000 / 16) ** 0.5


@given(size=st.integers(4, 24), data=st.data(), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_crop_is_the_box_resized_bilinearly_with_aligned_corners(size, data, seed):
    side = data.draw(st.integers(2, size))
    images = torch.rand(3, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    corners = boxes(3, side, size, seed)
    crops = crop_and_resize(images, corners, side)
    assert side < size or torch.equal(crops, images)
    assert crops.is_contiguous(memory_format=torch.channels_last)  # else the judge copies, and is compiled again
    torch.testing.assert_close(crops, plain.crop(images, corners, side))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_a_crop_is_zero_outside_the_box_and_exact_inside(dtype):
    for side in range(2, 32):
        images = torch.rand(4, 3, 32, 32, dtype=dtype, requires_grad=True)
        corners = boxes(4, side, 32, seed=side)
        crop_and_resize(images, corners, side).sum().backward()
        for gradient, (top, left) in zip(images.grad, corners.tolist(), strict=True):
            inside = torch.zeros(32, 32, dtype=torch.bool)
            inside[top : top + side, left : left + side] = True
            assert (gradient[:, ~inside] == 0).all()
            assert (gradient[:, inside] > 0).all()
    images = torch.rand(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: crop_and_resize(x, boxes(2, 3, 6), 3), (images,))
