"""The page: what it shows, driven in a real browser, and what it refuses."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leae.analysis.player import SAMPLES, SLIDERS, Player
from leae.autoencoder import Autoencoder
from leae.data.batches import to_float
from leae.data.images import read_square
from leae.errors import UsageError
from tests.analysis.test_latents import data_for, space_of
from tests.conftest import RUNS, assert_one_line, run_leae, write_image
from tests.data.test_images import claiming

app = pytest.importorskip("leae.analysis.page", reason="needs --extra play")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def players():
    torch.manual_seed(0)
    models = [Autoencoder(16, 3, 4, "pooled", 8, 4), Autoencoder(16, 3, 4, "spatial", 4)]
    data = data_for(models[0])
    return [space_of(model, data, Player) for model in models]


@pytest.fixture(scope="module")
def address(players):
    with app.serve(players, "127.0.0.1", free_port()) as address:
        yield address


@pytest.fixture
def page(address):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs --extra browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        elsewhere = []
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(address)
        page.locator(".picture img:visible").nth(2).wait_for()  # before the first answer it may miss a click
        yield page
        assert all(url.startswith((address, f"blob:{address}", "data:")) for url in elsewhere)
        browser.close()


def pixels_at(page, number: int) -> np.ndarray:
    """What the number-th picture of the open tab shows; pictures 0 and 1 are A and B."""
    source = page.locator(".picture img:visible").nth(number).get_attribute("src")
    return np.asarray(Image.open(urllib.request.urlopen(source)).convert("RGB"))  # it is in the address


def assert_shows(page, number: int, images: torch.Tensor, least: int = 384, rows: int = 1) -> None:
    """Wait for a picture to show these images, in so many rows, to a rounding."""
    expected = np.concatenate([app.enlarge(part, least) for part in images.chunk(rows)]).astype(int)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        shown = pixels_at(page, number).astype(int)
        if shown.shape == expected.shape and abs(shown - expected).max() <= 1:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"picture {number} differs by {abs(shown - expected).max()}, {shown.shape}")


def stroke(page, brush: int, *points: tuple[float, float]) -> None:
    """Paint along these points, shares of the canvas's sides, without a stop between them."""
    page.locator("input[type=range]:visible").first.fill(str(brush))
    box = page.locator("canvas:visible").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def paint_everything(page) -> None:
    for row in (0.1, 0.5, 0.9):  # a browser under load leaves out all but a move's last event
        stroke(page, 100, (0.05, row), (0.95, row))


@in_a_browser
def test_painting_morphing_attributes_brushed_codes_and_samples(page, players):
    space = players[0]
    shown = space.order[: app.GALLERY].sort().values
    first, second = space.images(shown[:1]), space.images(shown[-1:])
    assert page.get_by_role("tab").all_inner_texts() == ["Mask", "Morph", "Attributes", "Brush codes", "Samples"]
    for number, player in enumerate(players):
        assert_shows(page, 2 + number, player.decode(player.encode(first)))
    stroke(page, 1, (0.1, 0.5), (0.9, 0.5))  # so quick that the first part of it is still on its way
    line = torch.zeros(16, 16, dtype=torch.bool)
    line[7:9, 1:15] = True
    for player in players:
        page.get_by_text(player.fill(first, line)[1]).wait_for()
    paint_everything(page)
    flat = first.mean(dim=(2, 3), keepdim=True).expand_as(first)
    for number, player in enumerate(players):
        answer = player.decode(player.encode(flat))
        assert_shows(page, 2 + number, answer)
        inside = -10 * torch.log10((answer - first).square().mean()).item()
        every = player.encode(to_float(space.dataset.images["train"]))
        shift = (player.encode(flat) - player.encode(first)).norm() / torch.pdist(every).square().mean().sqrt()
        said = f"PSNR {inside:.1f} dB inside the paint. Code shift {shift:.2f}"
        page.get_by_text(re.compile(said)).nth(0).wait_for()  # of the last stroke
    page.get_by_role("button", name="clear").first.click()
    assert_shows(page, 2, players[0].decode(players[0].encode(first)))

    page.get_by_role("tab", name="Morph").click()
    page.locator("input[type=range]:visible").first.fill("0.25")
    for number, player in enumerate(players):
        quarter = torch.lerp(player.encode(first), player.encode(second), 0.25)
        assert_shows(page, 2 + 2 * number, player.decode(quarter))
        steps = torch.lerp(player.encode(first), player.encode(second), torch.linspace(0, 1, 9)[:, None])
        assert_shows(page, 3 + 2 * number, player.decode(steps), 128)

    page.get_by_role("tab", name="Attributes").click()
    page.locator("input[type=range]:visible").first.fill("2")
    bright = space.has_label("Bright")
    for number, player in enumerate(players):
        training = player.training
        step = 2 * (training[bright].mean(dim=0) - training[~bright].mean(dim=0))
        assert_shows(page, 3 + number, player.decode(player.encode(first) + step))
    assert_shows(page, 2, first)  # unchanged, beside them
    page.get_by_role("button", name="reset", exact=True).click()
    assert_shows(page, 3, players[0].decode(players[0].encode(first)))

    page.get_by_role("tab", name="Brush codes").click()
    assert_shows(page, 2, players[1].decode(players[1].encode(first)))
    paint_everything(page)
    assert_shows(page, 2, players[1].decode(players[1].encode(second)))

    page.get_by_role("tab", name="Samples").click()
    assert not torch.equal(players[0].sample(False, 0, 1.0), players[0].sample(False, 1, 1.0))
    for draw in (0, 1):
        for number, player in enumerate(players):
            assert_shows(page, 2 + 2 * number, player.sample(False, draw, 1.0), 128, rows=2)
            assert_shows(page, 3 + 2 * number, player.sample(True, draw, 1.0), 128, rows=2)
        page.get_by_role("button", name="draw again").click()
    page.locator("input[type=range]:visible").first.fill("0")
    assert_shows(page, 3, players[0].decode(players[0].training.mean(dim=0).expand(SAMPLES, -1)), 128, rows=2)


@in_a_browser
def test_photographs_of_ones_own_are_cut_and_other_files_are_a_line(page, players, tmp_path):
    write_image(tmp_path / "own.png", 5, size=(40, 30))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(claiming(60_000, 60_000))
    (tmp_path / "half.png").write_bytes((tmp_path / "own.png").read_bytes()[:60])
    for name, says in (("notes.txt", "none of PNG"), ("bomb.png", "3600000000 pixels"), ("half.png", "unreadable")):
        page.locator("#photo input[type=file]").set_input_files(tmp_path / name)
        page.get_by_text(re.compile(f"Cannot use this picture: .*{says}")).first.wait_for()
    write_image(tmp_path / "other.png", 90, size=(40, 30))
    for slot, name in (("A", "own.png"), ("B", "other.png"), ("B", "own.png")):  # nothing is closed between
        page.get_by_text(slot, exact=True).first.click()
        page.locator("#photo input[type=file]").set_input_files(tmp_path / name)
        own = to_float(read_square((tmp_path / name).read_bytes(), 16)[None])
        assert_shows(page, "AB".index(slot), own, 96)
    page.get_by_text("A", exact=True).first.click()
    page.locator(".pictures button.thumbnail-item").nth(3).click()
    chosen = players[0].images(players[0].order[: app.GALLERY].sort().values[3:4])
    assert_shows(page, 0, chosen, 96)
    assert_shows(page, 2, players[0].decode(players[0].encode(chosen)))


@in_a_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_every_tab_can_be_reached_and_nothing_is_cut_or_out_of_line(page, players, width):
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("Samples", "Brush codes", "Attributes", "Morph", "Mask"):
        page.get_by_role("tab", name=name).click()
        page.locator(".picture img:visible").nth(2).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        gallery = page.locator(".pictures .grid-wrap").first
        assert gallery.evaluate("wrap => wrap.scrollHeight <= wrap.clientHeight + 1")
    boxes = [page.locator("canvas:visible").bounding_box()]
    boxes += [page.locator(".picture img:visible").nth(2 + number).bounding_box() for number in range(len(players))]
    one, along = boxes[0], "x" if width == 400 else "y"  # one below the other, or side by side
    for box in boxes:
        assert [box["width"], box["height"]] == pytest.approx([one["width"], one["height"]], abs=1)
        assert box[along] == pytest.approx(one[along], abs=1)


def test_a_signal_ends_the_page_even_if_others_code_caught_it_while_it_started(trained, monkeypatch, capsys):
    @contextmanager
    def serve(*options):
        with suppress(BaseException):  # as a module made by Cython does while it is imported
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it goes on"))
        signal.alarm(20)
        yield "its address"
        signal.alarm(0)

    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as stop:
        run_leae(monkeypatch, "play", RUNS[0])
    assert stop.value.code == 128 + signal.SIGTERM
    assert urllib.request.proxy_bypass("127.0.0.1")  # this machine is never asked through a proxy


def test_a_proxy_that_nothing_is_installed_for_does_not_matter(tmp_path):
    environment = {**os.environ, "ALL_PROXY": "socks5://127.0.0.1:9", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "leae", "play", "runs/none"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
    assert re.fullmatch("leae play: runs/none is not a run's folder.*\n", said)  # behind all imports


def status_of(request: str | urllib.request.Request) -> int:
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def test_files_of_the_machine_are_not_served_and_uploads_are_limited(address, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    assert status_of(address) == 200
    for path in ("/etc/passwd", tmp_path / "secret.txt", "pyproject.toml", "../pyproject.toml", __file__):
        assert status_of(f"{address}/gradio_api/file={path}") in (403, 404)
    for size, expected in ((10_000, 200), (32_000_000, 413)):
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        body = head + bytes(size) + b"\r\n--x--\r\n"
        assert status_of(urllib.request.Request(f"{address}/gradio_api/upload", body, form)) == expected


def test_a_port_in_use_and_a_missing_extra_are_one_line(players, workplace, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"port {port} .*--port"),
            app.serve(players, "127.0.0.1", port),
        ):
            pass
    assert_one_line(monkeypatch, capsys, "play", "runs/none", "--host", "::1", says="--host is")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_one_line(monkeypatch, capsys, "play", "runs/none", says="gradio.* uv run --extra play")


def test_codes_that_are_all_the_same_have_no_unit_for_a_shift(players, monkeypatch):
    monkeypatch.setitem(vars(players[0]), "between", 0.0)
    painted = torch.arange(16) < torch.full((16, 1), 8)
    _, said = players[0].fill(players[0].images(torch.tensor([0])), painted)
    assert re.fullmatch(r"PSNR -?[\d.]+ dB inside the paint, -?[\d.]+ dB outside", said)


def test_without_attributes_sliders_are_principal_components_and_forged_paint_is_none(players):
    torch.manual_seed(0)  # they are approximated, from a random start
    directions, training = players[0].directions([]), players[0].training
    values, vectors = torch.linalg.eigh(training.T.cov(correction=0))
    expected = (vectors * values.sqrt()).T.flip(0)[:SLIDERS]
    signs = (directions * expected).sum(dim=1, keepdim=True).sign()
    torch.testing.assert_close(directions * signs, expected, rtol=1e-3, atol=1e-4)
    assert app.painted_mask("1" * 256, 16).all()
    for forged in ("", "1", "x" * 256, "[object Object]" * 99, "1" * 255):
        assert not app.painted_mask(forged, 16).all()


SITE = "http://example.com"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://{host}"}, 200),
        ({"Host": "localhost:80"}, 200),
        ({"Origin": SITE}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.com"}, 403),
        ({"Host": "example.com", "Origin": SITE}, 403),
        ({"Host": "example.com:7860"}, 403),
        ({"Host": "cafe"}, 403),
        ({"Host": "[::1]:80"}, 200),
    ],
)
def test_another_web_site_cannot_ask_the_page(address, headers, status, tmp_path):
    host = address.removeprefix("http://")
    headers = {name: value.format(host=host) for name, value in headers.items()}
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
    for path, content in (("/", None), ("/gradio_api/upload", body)):
        types = {"Content-Type": "multipart/form-data; boundary=b"} if content else {}
        request = urllib.request.Request(address + path, content, types | headers)
        try:
            answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).status
        except urllib.error.HTTPError as error:
            answer = error.code
        assert answer == status
