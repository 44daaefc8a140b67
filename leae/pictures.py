"""Pictures made of images: labelled rows under a title."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE = 128  # smallest side in pixels at which an image is shown
GAP = 4  # pixels between two images
FONT_SIZE = 16
LINE = 20  # height in pixels of a line of text
OUTLINE = (255, 200, 0)


def draw_grid(rows: dict[str, Tensor], title: str, boxes: list[tuple[int, int, int]] | None = None) -> Image.Image:
    """A picture of labelled rows of images under a title.

    Args:
        rows: label → float [N, C, S, S] in [0, 1], as many images and of the same size in every row. A label, like
            the title, may have several lines.
        title: text.
        boxes: for each image the row, column and side in its pixels of a square to outline in every row.
    """
    font = ImageFont.load_default(FONT_SIZE)
    sizes = next(iter(rows.values())).shape
    scale = max(1, -(-TILE // sizes[-1]))  # small images are enlarged, pixel by pixel
    tile = sizes[-1] * scale
    margin = 16 + max(_width(label, font) for label in rows)
    head = 12 + LINE * len(title.split("\n"))
    width = max(margin + sizes[0] * (tile + GAP), 16 + _width(title, font))
    picture = Image.new("RGB", (width, head + len(rows) * (tile + GAP)), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((8, 6), title, fill="black", font=font)
    for row, (label, images) in enumerate(rows.items()):
        top = head + row * (tile + GAP)
        pen.text((8, top + tile // 2), label, fill="black", font=font, anchor="lm")
        pixels = to_pixels(images).repeat(scale, axis=1).repeat(scale, axis=2)
        for column, image in enumerate(pixels):
            left = margin + column * (tile + GAP)
            picture.paste(Image.fromarray(image.squeeze()), (left, top))
            if boxes:
                y, x, side = (scale * value for value in boxes[column])
                pen.rectangle((left + x - 1, top + y - 1, left + x + side, top + y + side), outline=OUTLINE)
    return picture


def to_pixels(images: Tensor):
    """Float [N, C, S, S] in [0, 1] → uint8 [N, S, S, C], rounded."""
    return (images.detach().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _width(text: str, font) -> int:
    return max(int(font.getlength(line)) for line in text.split("\n"))
