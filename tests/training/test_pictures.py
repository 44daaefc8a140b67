"""Pictures: what is in them pixel by pixel."""

import numpy as np
import torch
from PIL import Image, ImageFont

from leae.training.pictures import FONT, GAP, LINE, OUTLINE, TILE, draw_grid, draw_metrics, save_picture


def test_a_grid_shows_the_images_unchanged_under_their_labels():
    rows = {"original": torch.rand(3, 3, 32, 32), "mask": torch.rand(3, 3, 32, 32)}
    picture = draw_grid(rows, "title")
    pixels = np.asarray(picture)
    left = picture.width - 3 * 132
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            tile = pixels[32 + row * 132 :, left + column * 132 :][:128, :128]
            shown = tile[::4, ::4].transpose(2, 0, 1) / 255
            assert np.abs(shown - image.numpy()).max() <= 0.5 / 255 + 1e-6
            assert np.array_equal(tile, tile[::4, ::4].repeat(4, 0).repeat(4, 1))  # enlarged pixel by pixel
    grey = draw_grid({"original": torch.full((2, 1, 32, 32), 0.25)}, "")
    assert grey.getpixel((grey.width - 50, 100)) == (64, 64, 64)
    assert (pixels[:30] < 128).any()  # the title
    assert (pixels[32:, : left - 8] < 128).any()  # the labels


def test_boxes_are_outlined_around_their_pixels_in_every_row():
    rows = {"original": torch.zeros(2, 3, 32, 32), "two\nlines": torch.zeros(2, 3, 32, 32)}
    boxes = [(4, 8, 10), (0, 20, 12)]
    pixels = np.asarray(draw_grid(rows, "two\nlines", boxes))
    outline = np.zeros(pixels.shape[:2], bool)
    left, head = pixels.shape[1] - 2 * (TILE + GAP), pixels.shape[0] - 2 * (TILE + GAP)
    for row in range(2):
        for column, (y, x, side) in enumerate(boxes):
            top, start = head + row * (TILE + GAP) + 4 * y, left + column * (TILE + GAP) + 4 * x
            outline[top - 1 : top + 4 * side + 1, start - 1 : start + 4 * side + 1] = True
            outline[top : top + 4 * side, start : start + 4 * side] = False  # nothing inside is hidden
    assert np.array_equal((pixels == OUTLINE).all(axis=2), outline)


def test_headings_and_captions_stand_beside_the_images_and_hide_none():
    rows = {"one": torch.zeros(2, 3, 32, 32), "two": torch.zeros(2, 3, 32, 32)}
    captions = {"two": ["short", "10.5 dB"]}
    pixels = np.asarray(draw_grid(rows, "t", columns=["left", "right"], captions=captions))
    left, head = pixels.shape[1] - 2 * (TILE + GAP), 32 + LINE
    tiles = pixels[head:-LINE, left:].reshape(2, TILE + GAP, 2, TILE + GAP, 3)
    assert (tiles[:, :TILE, :, :TILE] == 0).all()
    assert (tiles[0, TILE:] == 255).all()  # no caption below the first row
    for texts in (pixels[head - LINE : head - 1, left:], pixels[-LINE:, left:]):
        written = (texts < 128).any(axis=(0, 2))
        assert written[:TILE].any()
        assert written[TILE + GAP :].any()


def test_the_font_has_the_signs_that_labels_use():
    font = ImageFont.truetype(FONT, 14)
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(sign)) != missing for sign in "×−σ·…é²Кλ")


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    rows = [{"split": "train", "step": "1", "loss": "0.5", "$^$": "1", "psnr_clean": "1e308"}]
    rows.append({"split": "train", "step": "2", "loss": "-1e308", "$^$": "inf", "psnr_clean": "-1e308"})
    save_picture(draw_metrics(rows, "a$^$b"), tmp_path / "metrics.png")
    assert Image.open(tmp_path / "metrics.png").size[0] > 100


def test_long_names_of_strangers_make_no_large_picture(tmp_path):
    long = "\n".join([*"ab", "W" * 5000, *["W"] * 1500])
    width, height = draw_grid({f"{long}{n}": torch.zeros(1, 3, 8, 8) for n in range(2)}, long).size
    assert max(width, height) < 10_000
    save_picture(draw_metrics([], "not UTF-8: \udcff"), tmp_path / "metrics.png")
    figure = draw_metrics([], long)
    save_picture(figure, tmp_path / "metrics.png")
    lines = figure.get_suptitle().split("\n")
    assert (len(lines), max(map(len, lines)), lines[:2]) == (12, 300, ["a", "b"])


def test_the_losses_fill_their_panel_at_the_heights_that_they_have_come_to(tmp_path):
    consistency = [1e-9, 0.03, 0.02, 0.02]
    rows = [
        {"split": "train", "step": str(n), "loss": "0.04", "consistency": str(y)} for n, y in enumerate(consistency)
    ]
    figure = draw_metrics(rows, "")
    save_picture(figure, tmp_path / "metrics.png")
    losses = figure.axes[0]
    assert 0.01 < losses.get_ylim()[0] < 0.02
    assert losses.get_position().x0 < 0.1  # the ticks are numbers, not the text of formulas
