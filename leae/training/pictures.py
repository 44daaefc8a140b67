"""Pictures: labelled rows of images under a title, and the curves of a run."""

import math
from pathlib import Path

import matplotlib
import torch
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from leae.files import as_utf8, atomic_write

TILE = 128  # smallest side in pixels at which an image is shown
GAP = 4  # pixels between two images
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # Pillow's own lacks ×, − and σ
FONT_SIZE = 14
LINE = 20  # height in pixels of a line of text
OUTLINE = (255, 200, 0)
LETTERS, LINES = 300, 12  # of a text that is drawn; names in files may have more
LARGEST_DRAWN = 1e30  # of a figure; Matplotlib cannot draw what is near the ends of its range


def draw_grid(
    rows: dict[str, Tensor],
    title: str,
    boxes: list[tuple[int, int, int]] | None = None,
    columns: list[str] | None = None,
    captions: dict[str, list[str]] | None = None,
) -> Image.Image:
    """A picture of labelled rows of images under a title.

    `rows` are float [N, C, S, S] in [0, 1] by label, as many images and of the same size in every row. A label, like
    the title, may have several lines. `boxes` are, for each image, row, column and side in its pixels of a square to
    outline in every row. `columns` stand above the N columns, `captions` by label below each image of that row, one
    short line each.
    """
    captions, title = captions or {}, shortened(title)
    font = ImageFont.truetype(FONT, FONT_SIZE)
    sizes = next(iter(rows.values())).shape
    scale = max(1, -(-TILE // sizes[-1]))  # small images are enlarged, pixel by pixel
    tile = sizes[-1] * scale
    margin = 16 + max(_width(shortened(label), font) for label in rows)
    head = 12 + LINE * (len(title.split("\n")) + bool(columns))
    width = max(margin + sizes[0] * (tile + GAP), 16 + _width(title, font))
    picture = Image.new("RGB", (width, head + len(rows) * (tile + GAP) + len(captions) * LINE), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((8, 6), title, fill="black", font=font)
    for column, text in enumerate(columns or []):
        middle = margin + column * (tile + GAP) + tile // 2
        pen.text((middle, head - LINE // 2), text, fill="black", font=font, anchor="mm")
    top = head
    for label, images in rows.items():
        pen.text((8, top + tile // 2), shortened(label), fill="black", font=font, anchor="lm")
        pixels = to_pixels(images).repeat(scale, axis=1).repeat(scale, axis=2)
        for column, image in enumerate(pixels):
            left = margin + column * (tile + GAP)
            picture.paste(Image.fromarray(image), (left, top))
            if boxes:
                y, x, side = (scale * value for value in boxes[column])
                pen.rectangle((left + x - 1, top + y - 1, left + x + side, top + y + side), outline=OUTLINE)
            if label in captions:
                below = (left + tile // 2, top + tile + LINE // 2)
                pen.text(below, captions[label][column], fill="black", font=font, anchor="mm")
        top += tile + GAP + LINE * (label in captions)
    return picture


def to_pixels(images: Tensor):
    """Float [N, C, S, S] in [0, 1] → uint8 [N, S, S, 3], rounded; grey ones become RGB."""
    rounded = (images.detach().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()


def _width(text: str, font) -> int:
    return max(int(font.getlength(line)) for line in text.split("\n"))


def cut(text: str, width: int) -> str:
    """The text on one line of so many letters, its end left out where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def shortened(text: str) -> str:
    """The text without what is beyond so many LINES of so many LETTERS: a stranger's names make no large picture."""
    return "\n".join(cut(line, LETTERS) for line in text.split("\n")[:LINES])


def draw_metrics(rows: list[dict[str, str]], title: str) -> Figure:
    """The rows of metrics.csv as curves: loss and its terms, held-out PSNR, effective ranks, learning rate."""
    figure = Figure(figsize=(15, 8), dpi=110, layout="constrained")
    figure.suptitle(title)
    (losses, quality), (ranks, rates) = figure.subplots(2, 2)
    not_drawn = ("split", "step", "epoch", "images_per_second")
    for name in dict.fromkeys(n for row in rows for n in row if n not in not_drawn and "dimensions" not in n):
        points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
        points = [(step, value if abs(value) < LARGEST_DRAWN else math.nan) for step, value in points]
        axes = rates if name == "learning_rate" else losses
        axes = quality if name.startswith("psnr") else ranks if name.endswith("effective_rank") else axes
        axes.plot(*zip(*points, strict=True), ".-", label=name.removeprefix("psnr_").replace("_", " "))
    titles = {losses: "training loss and its terms", quality: "held-out PSNR (dB)"}
    for axes, said in (titles | {ranks: "effective rank of held-out codes", rates: "learning rate"}).items():
        axes.set(title=said, xlabel="step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))  # beside it: it covers no curve
    losses.set_yscale("log" if losses.lines else "linear")
    late = [y for line in losses.lines for y in line.get_ydata()[len(line.get_ydata()) // 2 :] if y > 0]
    losses.set_ylim(bottom=0.8 * min(late) if late else None)  # not at the consistency's beginning, which is near 0
    return figure


def save_picture(picture: Image.Image | Figure, path: Path, by: str = "leae") -> None:
    """Write a PNG file atomically; it says `by` what it was made: training, or a command, which can make it again."""
    about = PngInfo()
    about.add_text("Software", by)
    with atomic_write(path, "wb") as file:
        if isinstance(picture, Figure):
            ticks = {tick.label1 for tick in picture.findobj(Tick)}  # which are formulas on a logarithmic axis
            for text in set(picture.findobj(Text)) - ticks:
                text.set_parse_math(False)  # a name may have a $ in it
                text.set_text(as_utf8(shortened(text.get_text())))
            picture.savefig(file, format="PNG", pil_kwargs={"pnginfo": about})
        else:
            picture.save(file, format="PNG", pnginfo=about)
