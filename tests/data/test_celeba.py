"""Fetching CelebA from its mirror, played here by a server on this machine."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from leae.data.celeba import has_celeba
from leae.data.prepare import open_dataset
from tests.conftest import ROOT, number_of

pytest.importorskip("huggingface_hub")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COMMAND = """
from argparse import Namespace
from leae.data import prepare
from leae.errors import run_command
run_command(lambda: prepare.main(Namespace(dataset="celeba", image_size=64, faces=1)), "prepare")
"""
COMMIT = "0" * 39 + "1"
SPLITS = {"train": range(0, 12), "valid": range(12, 15), "test": range(15, 20)}


def parquet_file(numbers):
    """A file as the mirror has it: the image's bytes, an identity, and attributes as booleans."""
    rows = []
    for number in numbers:
        file = io.BytesIO()
        Image.new("RGB", (178, 218), (2 * number, 100, 50)).save(file, "JPEG", quality=98)
        image = {"bytes": file.getvalue(), "path": None}
        rows.append({"image": image, "celeb_id": number, "Smiling": number % 2 == 0, "Eyeglasses": number % 3 == 0})
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture
def mirror():
    files = {
        f"img_align+identity+attr/{split}-00000-of-00001.parquet": parquet_file(numbers)
        for split, numbers in SPLITS.items()
    }
    files["README.md"] = b"not wanted"

    class Mirror(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            path = self.path.split("?")[0].replace("%2B", "+")
            name = path.split(f"/resolve/{COMMIT}/")[-1]
            headers = {}
            if path.startswith("/api/datasets/flwrlabs/celeba/tree/"):
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                content = json.dumps(tree).encode()
            elif path.startswith("/api/datasets/flwrlabs/celeba"):
                siblings = [{"rfilename": file} for file in files]
                content = json.dumps({"id": "flwrlabs/celeba", "sha": COMMIT, "siblings": siblings}).encode()
            elif name in files:
                content = files[name]
                headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            else:
                self.send_error(404)
                return
            self.send_response(200)
            for key, value in {"Content-Length": len(content), "Content-Type": "application/json", **headers}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def fetch(workplace, endpoint):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(workplace / "home")}
    environment |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_ETAG_TIMEOUT": "2"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=workplace, env=environment, capture_output=True, text=True
    )


def test_celeba_is_fetched_from_its_mirror_and_prepared(workplace, mirror):
    result = fetch(workplace, mirror)
    assert result.returncode == 0, result.stderr
    assert "CelebA: 12 train, 3 valid, 5 test; 2 attributes" in result.stdout
    dataset = open_dataset("celeba", 64)
    assert dataset.attribute_names == ("Smiling", "Eyeglasses")
    for split, numbers in SPLITS.items():
        assert [number_of(image) for image in dataset.images[split]] == list(numbers)
        assert dataset.attributes[split].tolist() == [[n % 2 == 0, n % 3 == 0] for n in numbers]
    assert sorted(path.name for path in (workplace / "data" / "celeba").glob("*.*")) == [
        "img_align_celeba.zip",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
    ]


def test_with_no_network_it_says_what_to_put_where(workplace):
    result = fetch(workplace, "http://127.0.0.1:9")  # where nothing listens
    assert result.returncode == 2
    assert "flwrlabs/celeba cannot be reached" in result.stderr
    assert "img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt" in result.stderr
    assert "Traceback" not in result.stderr
    assert not has_celeba(workplace / "data" / "celeba")
