"""The textbooks' data sets: read from files as the originals are, and fetched from a place like the originals'."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from sklearn.datasets import load_digits

from leae.data.prepare import open_dataset
from leae.data.small_sets import fit
from leae.data.sources import channels_of, find_source
from leae.errors import UsageError

COUNTS = {"train": 50, "test": 20}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def drawn(split, shape):
    """Images and labels that a test can draw again."""
    draw = np.random.default_rng(len(split))
    count = COUNTS[split]
    return draw.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 10


def idx_files():
    """MNIST's four files: a big-endian header of type and sizes, then bytes."""
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for array, name in zip(drawn(split, (28, 28)), ("images-idx3-ubyte", "labels-idx1-ubyte"), strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            yield f"{prefix}-{name}", header + array.astype(np.uint8).tobytes()


def cifar_files():
    """CIFAR-10's pickles: 3072 bytes an image, red first, five training batches."""
    for split, names in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("test", ["test_batch"])):
        images, labels = drawn(split, (32, 32, 3))
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        for name, some, theirs in zip(names, np.split(flat, len(names)), np.split(labels, len(names)), strict=True):
            yield name, pickle.dumps({"data": some, "labels": theirs.tolist()})
    yield "batches.meta", pickle.dumps({"label_names": CLASSES})


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def served(workplace, monkeypatch):
    """A folder with small stand-ins for the three downloads, from which torchvision fetches them."""
    served = workplace / "served"
    served.mkdir()
    for name, content in idx_files():
        (served / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=served))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    resources = [(path.name, md5(path.read_bytes())) for path in sorted(served.iterdir())]
    for reader in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(reader, "resources", resources)
        monkeypatch.setattr(reader, "mirrors", [address])
    cifar, archive, sums = torchvision.datasets.CIFAR10, served / "cifar-10-python.tar.gz", []
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in cifar_files():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
            sums.append([name, md5(content)])
    monkeypatch.setattr(cifar, "url", address + archive.name)
    monkeypatch.setattr(cifar, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(cifar, "train_list", sums[:5])
    monkeypatch.setattr(cifar, "test_list", sums[5:6])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums[6][1]})
    yield served
    server.shutdown()
    server.server_close()


def test_a_server_that_says_nothing_is_not_waited_for(workplace, monkeypatch):
    monkeypatch.setattr("leae.files.TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        with pytest.raises(UsageError, match=r"MNIST can neither be read from .* nor downloaded"):
            open_dataset("mnist", 32)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("name", "place", "seventh"),
    [("mnist", "MNIST/raw", "7"), ("fashion-mnist", "FashionMNIST/raw", "Sneaker"), ("cifar10", "", "horse")],
)
def test_a_set_is_downloaded_once_or_placed_by_hand_and_read_with_its_labels(served, name, place, seventh, by_hand):
    if by_hand:
        shutil.copytree(served, Path("data") / place)
        shutil.rmtree(served)
    dataset = open_dataset(name, 32)
    for split in COUNTS:
        images, labels = drawn(split, (32, 32, 3) if name == "cifar10" else (28, 28))
        if name != "cifar10":
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
        assert np.array_equal(dataset.images[split], images)
        assert np.array_equal(dataset.classes[split], labels)
    assert (len(dataset.class_names), dataset.class_names[7]) == (10, seventh)
    assert (dataset.attributes, dataset.attribute_names) == ({}, ())
    assert dataset.images["train"].shape[-1] == channels_of(name)
    shutil.rmtree(served, ignore_errors=True)
    find_source(name, 32)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(
    ("name", "file", "place"),
    [("cifar10", "cifar-10-python.tar.gz", "data"), ("mnist", "train-images-idx3-ubyte.gz", "data.MNIST.raw")],
)
def test_a_download_that_fails_or_is_another_is_refused_with_what_to_put_where(served, online, name, file, place):
    if online:
        (served / file).write_bytes(b"<html>a login page</html>")
    else:
        shutil.rmtree(served)
    with pytest.raises(UsageError, match=f"{file}.*{place}") as refusal:
        find_source(name, 32)
    assert "\n" not in str(refusal.value)
    assert not (served.parent / "data" / "cifar-10-batches-py").exists()  # nothing of a wrong archive is unpacked


@pytest.mark.parametrize(
    ("name", "place"), [("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")]
)
@pytest.mark.parametrize("content", ["packed anew", "damaged"])
def test_what_lies_there_is_not_downloaded_over(served, name, place, content):
    path = Path("data") / place
    shutil.copytree(served, path.parent)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1) if content == "packed anew" else b"")
    before = path.read_bytes()
    if (name, content) == ("mnist", "packed anew"):
        assert len(find_source(name, 32).splits["train"]) == COUNTS["train"]
    else:
        with pytest.raises(UsageError, match=f"{path.name} is another than the official one; delete"):
            find_source(name, 32)
    assert path.read_bytes() == before


def test_a_file_that_was_replaced_is_not_read_from_the_copy_that_was_unpacked_before(served):
    path = Path("data") / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    shutil.copytree(served, path.parent)
    sound, plain = path.read_bytes(), path.with_suffix("")
    content = gzip.decompress(sound)
    path.write_bytes(gzip.compress(content[:8] + bytes((9 - n) % 10 for n in content[8:])))
    wrong = find_source("mnist", 32).fingerprint
    path.write_bytes(sound)
    with pytest.raises(UsageError, match=f"{plain.name} is not what is in {path.name}: delete one"):
        find_source("mnist", 32)
    plain.unlink()
    assert find_source("mnist", 32).fingerprint != wrong


@pytest.mark.parametrize(
    ("name", "own", "lost"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"),
    ],
)
def test_unpacked_files_of_ones_own_are_not_replaced(served, name, own, lost):
    find_source(name, 32)
    own = Path("data") / own
    content = own.read_bytes()[:-1] + b"\1"
    own.write_bytes(content)
    (Path("data") / lost).unlink()
    with suppress(UsageError):  # torchvision reads no other CIFAR-10 than the official one
        find_source(name, 32)
    assert own.read_bytes() == content


def test_a_download_that_was_killed_is_begun_again(served, monkeypatch):
    reader = torchvision.datasets.MNIST
    with monkeypatch.context() as stopped:
        stopped.setattr(reader, "resources", [*reader.resources[:3], ("no", "")])
        with pytest.raises(UsageError, match="four files"):
            find_source("mnist", 32)
    assert len(find_source("mnist", 32).splits["train"]) == COUNTS["train"]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(64, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)),
        (torch.zeros(5, 28, 28), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(5, 28, 28, dtype=torch.uint8), torch.arange(-3, 2)),
    ],
)
def test_files_of_an_old_torchvision_that_do_not_fit_are_refused(workplace, images, labels):
    folder = workplace / "data" / "MNIST" / "processed"
    folder.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save((images, labels), folder / name)
    (folder.parent / "raw").mkdir()
    (folder.parent / "raw" / "train-images-idx3-ubyte").touch()  # so that nothing is fetched
    with pytest.raises(UsageError, match=r"its train (images|labels)|tuple index"):
        find_source("mnist", 32)


def test_a_damaged_file_is_refused(served, workplace):
    find_source("mnist", 32)
    os.truncate(workplace / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte", 1000)
    with pytest.raises(UsageError, match=r"data.MNIST.raw"):
        find_source("mnist", 32)


def test_digits_need_nothing_and_share_none_between_the_splits(workplace):
    dataset, digits = open_dataset("digits", 8), load_digits()
    together = np.concatenate([dataset.images["train"], dataset.images["test"]])[..., 0]
    assert np.abs(together / 255 - digits.images / 16).max() <= 0.5 / 255
    labels = np.concatenate([dataset.classes["train"], dataset.classes["test"]])
    assert np.array_equal(labels, digits.target)
    assert np.bincount(dataset.classes["test"]).min() >= 15  # every digit is tested on


def test_28_pixels_are_padded_by_2_and_then_all_are_scaled():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    assert np.array_equal(fit(image, 32), np.pad(image, ((2, 2), (2, 2), (0, 0))))
    enlarged = fit(np.full((28, 28, 1), 200, np.uint8), 128)
    assert (enlarged[64, 64, 0], enlarged[3:5].max()) == (200, 0)  # two pixels of padding are eight
    for shape in ((32, 32, 3), (8, 8, 1)):
        assert (fit(np.full(shape, 77, np.uint8), 16) == np.full((16, 16, shape[2]), 77)).all()
