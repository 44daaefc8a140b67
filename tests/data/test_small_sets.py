"""The textbooks' data sets: read from files as the originals are, and fetched from a server on this machine."""

import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torchvision.datasets

from leae.data import small_sets
from leae.data.prepare import open_dataset
from leae.data.small_sets import fit
from leae.data.sources import channels_of, find_source
from leae.errors import UsageError

COUNTS = {"train": 50, "test": 20}


@pytest.fixture(autouse=True)
def nothing_loaded_yet():
    small_sets.load.cache_clear()


def drawn(split, shape):
    """Images and labels that a test can draw again."""
    draw = np.random.default_rng(len(split))
    count = COUNTS[split]
    return draw.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 10


def idx_files():
    """MNIST's four files: a big-endian header of type and sizes, then bytes."""
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = drawn(split, (28, 28))
        header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in images.shape)
        files[f"{prefix}-images-idx3-ubyte"] = header + images.tobytes()
        header = b"\0\0\x08\x01" + len(labels).to_bytes(4, "big")
        files[f"{prefix}-labels-idx1-ubyte"] = header + labels.astype(np.uint8).tobytes()
    return files


CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_files():
    """CIFAR-10's pickles: 3072 bytes an image, red first, five training batches."""
    files = {}
    train, labels = drawn("train", (32, 32, 3))
    test, test_labels = drawn("test", (32, 32, 3))
    for number in range(5):
        part = slice(number * 10, number * 10 + 10)
        files[f"data_batch_{number + 1}"] = (train[part], labels[part])
    files["test_batch"] = (test, test_labels)
    packed = {
        name: pickle.dumps({"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": list(map(int, y))})
        for name, (images, y) in files.items()
    }
    return {**packed, "batches.meta": pickle.dumps({"label_names": CLASSES})}


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server(workplace, monkeypatch):
    """A server with small stand-ins for the three downloads: the folder that it serves, and what it was asked for."""
    served, asked = workplace / "served", []
    served.mkdir()
    for name, content in idx_files().items():
        (served / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    resources = [(path.name, md5(path.read_bytes())) for path in sorted(served.iterdir())]
    files, archive = cifar_files(), served / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served)

        def log_message(self, *arguments):
            asked.append(arguments)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}/"
        for reader in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
            monkeypatch.setattr(reader, "resources", resources)
            monkeypatch.setattr(reader, "mirrors", [address])
        cifar = torchvision.datasets.CIFAR10
        sums = [[name, md5(content)] for name, content in files.items()]
        monkeypatch.setattr(cifar, "url", address + archive.name)
        monkeypatch.setattr(cifar, "tgz_md5", md5(archive.read_bytes()))
        monkeypatch.setattr(cifar, "train_list", sums[:5])
        monkeypatch.setattr(cifar, "test_list", sums[5:6])
        monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]})
        yield served, asked
        running.shutdown()


def padded(images):
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_set_is_downloaded_once_and_read_with_its_labels(server, name):
    _, asked = server
    dataset = open_dataset(name, 32)
    for split in COUNTS:
        images, labels = drawn(split, (32, 32, 3) if name == "cifar10" else (28, 28))
        assert np.array_equal(dataset.images[split], images if name == "cifar10" else padded(images))
        assert np.array_equal(dataset.attributes[split], np.eye(10, dtype=bool)[labels])
    assert len(dataset.attribute_names) == 10
    expected = {"mnist": "7", "fashion-mnist": "Sneaker", "cifar10": "horse"}
    assert dataset.attribute_names[7] == expected[name]
    assert dataset.images["train"].shape[-1] == channels_of(name)

    asked.clear()
    small_sets.load.cache_clear()
    find_source(name, 32)
    assert asked == []


def test_files_that_were_placed_by_hand_are_used_without_the_network(server, workplace):
    served, asked = server
    (workplace / "data").mkdir()
    shutil.copy(served / "cifar-10-python.tar.gz", workplace / "data")
    shutil.copytree(served, workplace / "data" / "MNIST" / "raw")
    for name in ("mnist", "cifar10"):
        assert len(open_dataset(name, 32).images["train"]) == 50
    assert asked == []


def test_a_download_that_is_not_what_it_should_be_is_refused(server, workplace):
    served, _ = server
    for name, file in (("cifar10", "cifar-10-python.tar.gz"), ("mnist", "train-images-idx3-ubyte.gz")):
        (served / file).write_bytes(b"<html>a login page</html>")
        with pytest.raises(UsageError, match=f"nor downloaded.*put .*{file}.* by hand") as refusal:
            find_source(name, 32)
        assert "\n" not in str(refusal.value)
    assert not (workplace / "data" / "cifar-10-batches-py").exists()  # nothing of a wrong archive is unpacked


def test_without_a_network_the_message_says_what_to_put_where(server):
    shutil.rmtree(server[0])
    for name, folder in (("mnist", "data.MNIST.raw"), ("fashion-mnist", "data.FashionMNIST.raw"), ("cifar10", "data")):
        with pytest.raises(UsageError, match=f"404.*online, or put .*gz.* into {folder} by hand"):
            find_source(name, 32)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "labels", "label values", "shape"])
def test_damaged_files_are_refused(server, workplace, damage):
    find_source("mnist", 32)
    small_sets.load.cache_clear()
    raw = workplace / "data" / "MNIST" / "raw"
    images, labels = raw / "train-images-idx3-ubyte", raw / "t10k-labels-idx1-ubyte"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "empty":
        images.write_bytes(b"")
    elif damage == "text":
        images.write_text("not images")
    elif damage == "labels":
        labels.write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    elif damage == "label values":
        labels.write_bytes(labels.read_bytes()[:-1] + b"\x63")
    elif damage == "shape":
        images.write_bytes(
            images.read_bytes()[:8] + (14).to_bytes(4, "big") + (56).to_bytes(4, "big") + bytes(50 * 784)
        )
    with pytest.raises(UsageError, match=r"delete data.MNIST.raw and try|is damaged or not the official file"):
        find_source("mnist", 32)


def test_digits_need_nothing_and_share_none_between_the_splits(workplace):
    dataset = open_dataset("digits", 8)
    assert {split: images.shape for split, images in dataset.images.items()} == {
        "train": (1618, 8, 8, 1),
        "test": (179, 8, 8, 1),
    }
    from sklearn.datasets import load_digits

    digits = load_digits()
    together = np.concatenate([dataset.images["train"], dataset.images["test"]])[..., 0]
    assert np.abs(together / 255 - digits.images / 16).max() <= 0.5 / 255
    labels = np.concatenate([dataset.attributes["train"], dataset.attributes["test"]]).argmax(axis=1)
    assert np.array_equal(labels, digits.target)
    assert dataset.attribute_names == tuple("0123456789")
    assert dataset.attributes["test"].sum(axis=0).min() >= 15  # every digit is tested on


def test_28_pixels_are_padded_by_2_and_then_scaled():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    assert np.array_equal(fit(image, 32)[2:-2, 2:-2], image)
    assert fit(image, 32)[:2].max() == 0
    enlarged = fit(np.full((28, 28, 1), 200, np.uint8), 128)
    assert enlarged.shape == (128, 128, 1)
    assert enlarged[64, 64, 0] == 200
    assert enlarged[:4].max() == 0  # two pixels of padding are eight


def test_other_sizes_are_scaled():
    colour = np.full((32, 32, 3), (10, 100, 200), np.uint8)
    for size in (16, 32, 64):
        assert np.array_equal(fit(colour, size), np.full((size, size, 3), (10, 100, 200), np.uint8))
    grey = np.full((8, 8, 1), 77, np.uint8)
    assert np.array_equal(fit(grey, 32), np.full((32, 32, 1), 77, np.uint8))
