"""The page of `leae play`, by Gradio: what stands where, and which answer is asked for when."""

import base64
import html
import io
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from torch import Tensor
from torchvision.utils import make_grid

from leae.analysis.embed import read_for
from leae.analysis.latents import separations
from leae.analysis.player import SLIDERS, Player
from leae.data.batches import to_float
from leae.errors import UsageError, require_whole
from leae.training.pictures import to_pixels

PICTURE = 384  # pixels at least that a picture is enlarged to
THUMBNAIL = 96  # the same of pictures to choose from
STRIP = 128  # the same of those in rows of several
GALLERY = 16  # held-out images to choose from
STEPS = 9  # images of a morph
UPLOAD = "30mb"  # at most
ABOUT = """# leae: what a trained autoencoder knows
Choose a picture. Each model turns it into a short code, and rebuilds the picture from that code alone."""
PAINT_ON = """Paint on picture A. The paint has A's mean colour, as masks have in training; each model rebuilds A from
what is left. PSNR: the higher, the nearer to A. Code shift: how far the code moved; 1 is as far as two different
pictures are apart."""
SAMPLED = """Pictures from random codes: above of N(0, I), below of a Gaussian with the mean and covariance of training
codes. Where training codes are far from N(0, I), most of its samples lie far from them and show no picture."""
CSS = """
img, canvas {image-rendering: pixelated}
.picture img {max-width: 100%; max-height: 384px}
.pictures .grid-container {grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)) !important; gap: 8px !important}
.pictures .grid-container {grid-auto-rows: auto !important; grid-template-rows: none !important}
.pictures .grid-wrap {min-height: 0 !important; max-height: none !important}
.pictures .thumbnail-item {aspect-ratio: 1; height: auto !important}
.html-container {padding: 0 !important}
@media (max-width: 600px) {.tab-container button {padding: 0 6px !important; font-size: 13px !important}}
"""

# The painter, a component in HTML; see painter.js.
PAINTER = """<canvas width=${size} height=${size} aria-label="picture A, to paint on"></canvas>
<div><label>brush <input type=range min=1 max=100 value=25 aria-label="size of the brush"></label>
<button type=button>clear</button></div>"""
PAINTER_CSS = """canvas {width: 100%; max-width: 384px; touch-action: none; cursor: crosshair}
div {display: flex; gap: 1em; align-items: center; margin-top: .5em}
input {accent-color: var(--color-accent); vertical-align: middle}
button {border: 1px solid; border-radius: 4px; padding: 0 .7em}"""
PAINT = Path(__file__).with_name("painter.js").read_text(encoding="utf-8")


def enlarge(images: Tensor, least: int = PICTURE, rows: int = 1) -> np.ndarray:
    """Images [N, C, S, S] in rows of as many, enlarged pixel by pixel: uint8 [height, width, 3]."""
    times = -(-least // images.shape[-1])
    [pixels] = to_pixels(make_grid(images, len(images) // rows, padding=0)[None])
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def data_url(pixels: np.ndarray) -> str:
    """Pixels uint8 [height, width, 3] as a PNG file in an address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_html(images: Tensor, least: int = PICTURE, rows: int = 1) -> str:
    """Images as `enlarge` has them, to be shown: Gradio would write a file anew while a browser is still reading it."""
    return f'<img src="{data_url(enlarge(images, least, rows))}" alt="">'


def painted_mask(painted: str, size: int) -> Tensor:
    """Which pixels are painted, bool [size, size]: those of a text's "1", row by row. Another length is none."""
    if len(painted) != size * size:
        return torch.zeros(size, size, dtype=torch.bool)
    return torch.tensor([letter == "1" for letter in painted]).view(size, size)


def build_page(players: list[Player]) -> gr.Blocks:
    """The page for runs on the same data."""
    space, model = players[0], players[0].run.model
    size = model.image_shape[-1]
    attributes = list(separations(space))[:SLIDERS]
    directions = [player.directions(attributes) for player in players]
    sliders = attributes or [f"component {number + 1}" for number in range(len(directions[0]))]
    shown = space.order[:GALLERY].sort().values
    images = space.images(shown)
    start = [images[:1], images[-1:]]
    spatial = [player for player in players if len(player.run.model.latent_shape) > 1]
    quick = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    each = quick | {"trigger_mode": "multiple"}  # for events with data, of which Gradio would repeat the first one's

    def show(value: str = "") -> gr.HTML:
        return gr.HTML(value, elem_classes="picture")

    def listen(tab: gr.Tab, triggers: list, function: Callable, inputs: list, outputs: list) -> None:
        """When the tab is opened, and at these events while it is open, a function returns a list of the outputs."""

        def answer(label: str, *values):
            answers = function(*values) if label == tab.label else [gr.skip()] * len(outputs)
            return answers if len(outputs) > 1 else answers[0]  # Gradio takes a single one bare

        tab.select(lambda: tab.label, None, opened, **quick)
        gr.on([page.load, opened.change, *triggers], answer, [opened, *inputs], outputs, **quick)

    def columns(these: list[Player], pictures: int = 1, text: bool = False) -> list:
        """A column for each run: so many pictures and, below these, so that they are level, its name and a text."""
        outputs = []
        for player in these:
            with gr.Column(min_width=280):
                outputs += [show() for _ in range(pictures)]
                about = html.escape(f"{player.run.method}, {player.run.size}")  # of a stranger's run, perhaps
                gr.HTML(f"<b>{html.escape(player.run.name)}</b><br>{about}")
                outputs += [gr.Markdown()] if text else []
        return outputs

    def read_paint(event: gr.EventData):
        return str(event.painted)[: size * size]

    def painter():
        """A picture to paint on, and a state with what is painted."""
        tools = {"html_template": PAINTER, "js_on_load": PAINT, "css_template": PAINTER_CSS, "size": size}
        canvas, painted = gr.HTML(data_url(enlarge(start[0], 1)), **tools), gr.State("")
        canvas.input(read_paint, None, painted, **each)
        return canvas, painted

    def fill(painted, picture):
        answers = [player.fill(picture, painted_mask(painted, size)) for player in players]
        return [part for answer, said in answers for part in (as_html(answer), said)]

    def morph(share, *pictures):
        outputs = []
        for player in players:
            first, second = player.encode(torch.cat(pictures))
            shares = torch.cat([torch.tensor([share]), torch.linspace(0, 1, STEPS)])
            decoded = player.decode(torch.lerp(first, second, shares[:, None]))
            outputs += [as_html(decoded[:1]), as_html(decoded[1:], STRIP)]
        return outputs

    def walk(picture, *amounts):
        steps = [torch.tensor(amounts, dtype=torch.float32) @ direction for direction in directions]
        return [as_html(p.decode(p.encode(picture) + step)) for p, step in zip(players, steps, strict=True)]

    def mix(painted, *pictures):
        return [as_html(player.mix(torch.cat(pictures), painted_mask(painted, size))) for player in spatial]

    def sample(seed, spread):
        return [as_html(p.sample(fitted, int(seed), spread), STRIP, 2) for p in players for fitted in (False, True)]

    with gr.Blocks(title="leae", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        first, second, opened = gr.State(start[0]), gr.State(start[1]), gr.State("Mask")
        gr.Markdown(ABOUT)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                gr.HTML(html.escape(f"Pictures that no model was trained on: {space.dataset.title}"))
                small = [enlarge(image[None], THUMBNAIL) for image in images]
                plain = {"show_label": False, "format": "png", "buttons": [], "interactive": False}
                gallery = gr.Gallery(small, height="auto", allow_preview=False, elem_classes="pictures", **plain)
            with gr.Column(scale=1, min_width=200):
                gr.Markdown("Or your own photograph: its central square is used")
                photo = gr.File(show_label=False, height=150, elem_id="photo")
            with gr.Column(scale=1, min_width=240):
                which = gr.Radio(["A", "B"], value="A", label="the next picture becomes", elem_id="which")
                with gr.Row():
                    thumbs = []
                    for name, image in zip("AB", start, strict=True):
                        with gr.Column(min_width=96):
                            gr.Markdown(f"**{name}**")
                            thumbs.append(show(as_html(image, THUMBNAIL)))
        with gr.Tabs():
            with gr.Tab("Mask") as masks:
                gr.Markdown(PAINT_ON)
                with gr.Row():
                    with gr.Column(min_width=280):
                        mask, masked = painter()
                    filled = columns(players, text=True)
            with gr.Tab("Morph") as morphs:
                gr.Markdown(f"Interpolation between the codes of A and B: one picture, and below {STEPS} steps.")
                share = gr.Slider(0, 1, 0.5, step=0.01, label="from A (0) to B (1)")
                with gr.Row():
                    morphed = columns(players, pictures=2)
            known = "Classes" if space.dataset.class_names else "Attributes"
            with gr.Tab(known if attributes else "Components") as walks:
                of = "of the class and of all others" if known == "Classes" else "with and without the attribute"
                unit = f"the difference between the mean codes of training pictures {of}"
                gr.Markdown(f"Change picture A: +1 adds {unit if attributes else 'a standard deviation'} to its code.")
                with gr.Row():
                    amounts = [gr.Slider(-3, 3, 0, step=0.1, label=name, min_width=340) for name in sliders]
                reset = gr.Button("reset", size="sm")
                with gr.Row():
                    with gr.Column(min_width=280):
                        original = show(as_html(start[0]))
                        gr.Markdown("**A**, the picture itself")
                    walked = columns(players)
            if spatial:
                with gr.Tab("Brush codes") as mixes:
                    gr.Markdown("Paint on A: there, the code becomes B's. For models with a spatial latent.")
                    with gr.Row():
                        with gr.Column(min_width=280):
                            brush, brushed = painter()
                        mixed = columns(spatial)
            with gr.Tab("Samples") as samples:
                gr.Markdown(SAMPLED)
                with gr.Row():
                    spread = gr.Slider(0, 2, 1, step=0.05, label="spread (standard deviations)", scale=4, min_width=300)
                    draw = gr.Button("draw again", size="sm")
                seed = gr.State(0)
                with gr.Row():
                    sampled = columns(players, pictures=2)

        def choose(slot, event: gr.SelectData):
            require_whole(0, len(images) - 1, index=event.index)
            return take(slot, images[event.index][None])

        def upload(slot, path):
            [read] = read_for(model, Path(path).parent, [Path(path).name], space.run.upscale)
            if isinstance(read, str):
                gr.Warning(f"Cannot use this picture: {html.escape(read)}")
                return [gr.skip()] * 4 + [None]
            return [*take(slot, to_float(read[None])), None]  # closed, so that the next one can be given

        def take(slot, picture):
            changed, unchanged = [picture, as_html(picture, THUMBNAIL)], [gr.skip(), gr.skip()]
            return changed + unchanged if slot == "A" else unchanged + changed

        taken = [first, thumbs[0], second, thumbs[1]]
        gallery.select(choose, which, taken, **each)
        photo.upload(upload, [which, photo], [*taken, photo], **quick)
        first.change(as_html, first, original, **quick)
        for canvas, painted in [(mask, masked), (brush, brushed)] if spatial else [(mask, masked)]:
            first.change(lambda picture: (data_url(enlarge(picture, 1)), ""), first, [canvas, painted], **quick)
        listen(masks, [masked.change, first.change], fill, [masked, first], filled)
        listen(morphs, [share.change, first.change, second.change], morph, [share, first, second], morphed)
        listen(walks, [first.change, *(amount.change for amount in amounts)], walk, [first, *amounts], walked)
        reset.click(lambda: [0.0] * len(sliders) if len(sliders) > 1 else 0.0, None, amounts, **quick)
        if spatial:
            listen(mixes, [brushed.change, first.change, second.change], mix, [brushed, first, second], mixed)
        draw.click(lambda number: number + 1, seed, seed, **quick)
        listen(samples, [seed.change, spread.change], sample, [seed, spread], sampled)
    return page


def own_page_only(app, names: set[str]):
    """Refuse what another web site's page sends: it has that site's Origin or, after DNS rebinding, its Host."""

    refusal = PlainTextResponse("not from here: use an IP address, or start with --host and this name", 403)

    async def answer(scope, receive, send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        known = name in names or re.fullmatch(r"[\d.]+|[\da-f]*:[\da-f:]+", name)  # no site's name is an address
        own = known and origin in (None, f"http://{host}", f"https://{host}")
        reply = app if own or scope["type"] == "lifespan" else refusal
        await reply(scope, receive, send)

    return answer


@contextmanager
def serve(players: list[Player], host: str, port: int) -> Iterator[str]:
    """The page, from this machine while the block lasts: its address. A `UsageError` if the port cannot be had."""
    with tempfile.TemporaryDirectory(prefix="leae-play-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # for uploads, and for what is shown
        page = build_page(players)
        look = {"css": CSS, "theme": gr.themes.Default(font=["system-ui", "sans-serif"])}
        names = {"localhost", host.lower(), socket.gethostname().lower()}
        look["app_kwargs"] = {"middleware": [Middleware(own_page_only, names=names)]}
        options = look | {"max_file_size": UPLOAD, "footer_links": [], "ssr_mode": False, "share": False, "quiet": True}
        try:
            page.launch(server_name=host, server_port=port, prevent_thread_lock=True, **options)
        except OSError as error:
            said = f"port {port} of {host} is in use, or the host is not this machine's"
            raise UsageError(f"{said}; choose another --port or --host") from error
        try:
            yield f"http://{host}:{port}"
        finally:
            page.close(verbose=False)
