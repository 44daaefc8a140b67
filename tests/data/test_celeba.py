"""Fetching CelebA from its mirror, played here by a server on this machine."""

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from leae.data.celeba import has_celeba
from leae.data.prepare import open_dataset
from tests.data.conftest import NAMES, SPLITS, assert_celeba, attributes_of

pytest.importorskip("huggingface_hub", reason="needs --extra celeba")
pyarrow = pytest.importorskip("pyarrow", reason="needs --extra celeba")
parquet = pytest.importorskip("pyarrow.parquet")
COMMIT = "0" * 39 + "1"


def parquet_file(numbers):
    """A file as the mirror has it: the image's bytes, an identity, and attributes as booleans."""
    rows = []
    for number in numbers:
        file = io.BytesIO()
        Image.new("RGB", (178, 218), (2 * number, 100, 50)).save(file, "JPEG", quality=98)
        attributes = dict(zip(NAMES, attributes_of(number), strict=True))
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "celeb_id": number, **attributes})
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


FILES = {f"data/{split}-00000-of-00001.parquet": parquet_file(numbers) for split, numbers in SPLITS.items()}


class Mirror(BaseHTTPRequestHandler):
    """What the real client asks a hub for: the data set, its tree, and its files."""

    def do_GET(self):
        path, headers = self.path.split("?")[0], {"Content-Type": "application/json"}
        if path.startswith("/api/datasets/flwrlabs/celeba/tree/"):
            tree = [{"type": "file", "path": n, "size": len(c), "oid": etag(c)} for n, c in FILES.items()]
            content = json.dumps(tree).encode()
        elif path.startswith("/api/datasets/flwrlabs/celeba"):
            siblings = [{"rfilename": file} for file in FILES]
            content = json.dumps({"id": "flwrlabs/celeba", "sha": COMMIT, "siblings": siblings}).encode()
        else:
            content = FILES[path.split(f"/resolve/{COMMIT}/")[-1]]
            headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": COMMIT}
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET


def etag(content):
    return hashlib.sha1(content).hexdigest()


def fetch(processes, workplace, endpoint):
    """The exit status of the command that fetches it, and what it said."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(workplace / "home")}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_ETAG_TIMEOUT": "2"}
    command = ("-m leae", "prepare", "celeba", "--image-size", 64)
    status = processes.run(*command, folder=workplace, environment=environment)
    return status, (workplace / "output").read_text()


def test_celeba_is_fetched_from_its_mirror_and_prepared(processes, workplace):
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever).start()
        status, said = fetch(processes, workplace, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert status == 0, said
    assert "CelebA: 12 train, 3 valid, 5 test; 2 attributes" in said
    assert_celeba(open_dataset("celeba", 64))
    assert [path.name for path in (workplace / "data" / "celeba").iterdir()] == ["img_align_celeba.zip"]


def test_lists_that_are_there_are_not_replaced(processes, workplace):
    path = workplace / "data" / "celeba" / "list_attr_celeba.csv"
    path.parent.mkdir(parents=True)
    path.write_text("somebody's")
    status, said = fetch(processes, workplace, "http://127.0.0.1:9")
    assert status == 2
    assert "data/celeba/list_attr_celeba.csv is there, but no images" in said
    assert path.read_text() == "somebody's"


def test_with_no_network_it_says_what_to_put_where(processes, workplace):
    status, said = fetch(processes, workplace, "http://127.0.0.1:9")  # where nothing listens
    assert status == 2
    assert "flwrlabs/celeba cannot be reached" in said
    assert "img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt" in said
    assert "Traceback" not in said
    assert not has_celeba(workplace / "data" / "celeba")
