"""Prepared data sets and the batches cut from them."""

import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leae.data import prepare as prep_data
from leae.data.faces import ATTRIBUTES, render_face
from leae.data.prepare import Batches, find_source, open_dataset, to_float
from leae.errors import UsageError
from tests.conftest import ROOT, number_of, write_image

CPU = torch.device("cpu")


def prepared(*arguments, **options):
    return open_dataset(find_source(*arguments, **options))


def write_folder(root, count, **options):
    for number in range(count):
        write_image(root / ("a" if number % 2 else "b/c") / f"{number:03d}.png", number, **options)


# --- plain folders ---------------------------------------------------------------------------------------------


def test_a_folder_is_searched_recursively_and_split_once_and_for_all(workplace):
    write_folder(workplace / "pictures", 60)
    dataset = prepared("pictures", 16)
    assert {split: images.shape for split, images in dataset.images.items()} == {
        "train": (54, 16, 16, 3),
        "test": (6, 16, 16, 3),
    }
    numbers = {split: [number_of(image) for image in images] for split, images in dataset.images.items()}
    assert sorted(numbers["train"] + numbers["test"]) == list(range(60))
    assert numbers["test"] != list(range(6))

    again = prep_data.folder_source(workplace / "pictures", 16)
    assert [int(name[-7:-4]) for name in again.splits["test"]] == numbers["test"]


def test_every_kind_of_image_file_counts(workplace):
    for number, suffix in enumerate((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".JPG")):
        write_image(workplace / "pictures" / f"{number}{suffix}", number)
    (workplace / "pictures" / "notes.txt").write_text("not an image")
    dataset = prepared("pictures", 16)
    assert sum(map(len, dataset.images.values())) == 6


def test_an_empty_folder_is_refused(workplace):
    (workplace / "pictures").mkdir()
    with pytest.raises(UsageError, match=r"no images.*\.png"):
        prepared("pictures", 16)


def test_one_image_cannot_be_split(workplace):
    write_folder(workplace / "pictures", 1)
    with pytest.raises(UsageError, match="at least two"):
        prepared("pictures", 16)


@pytest.mark.parametrize("name", ["mnits", "no/such/folder", ""])
def test_an_unknown_data_set_is_refused_with_those_there_are(workplace, name):
    with pytest.raises(UsageError, match=f"{name}.*celeba.*faces.*folder"):
        prepared(name, 16)


def test_a_few_unreadable_images_are_skipped_and_named(workplace, capsys):
    write_folder(workplace / "pictures", 200)
    (workplace / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (workplace / "pictures" / "empty.png").touch()
    dataset = prepared("pictures", 16)
    assert sum(map(len, dataset.images.values())) == 200
    warning = capsys.readouterr().err
    assert "2 of 202 images" in warning
    assert "broken.jpg" in warning
    assert "empty.png" in warning


def test_too_many_unusable_images_are_an_error_and_leave_nothing(workplace):
    write_folder(workplace / "pictures", 50)
    write_image(workplace / "pictures" / "tiny.png", 1, size=(12, 40))
    with pytest.raises(UsageError, match=r"1 of 51 images.*tiny.png \(12×40 pixels, smaller than 16×16"):
        prepared("pictures", 16)
    assert list((workplace / "data" / "prepared").iterdir()) == []


def test_a_prepared_set_is_used_again_and_prepared_anew_when_its_source_changes(workplace, capsys):
    write_folder(workplace / "pictures", 20)
    first = prepared("pictures", 16)
    manifest = next((workplace / "data" / "prepared").glob("*/manifest.json"))
    written = manifest.stat().st_mtime_ns
    prepared("pictures", 16)
    assert manifest.stat().st_mtime_ns == written

    write_image(workplace / "pictures" / "new.png", 99)
    second = prepared("pictures", 16)
    assert "changed since it was prepared" in capsys.readouterr().out
    assert sum(map(len, second.images.values())) == sum(map(len, first.images.values())) + 1


def test_a_file_that_is_replaced_by_one_of_the_same_name_is_noticed(workplace):
    write_folder(workplace / "pictures", 20)
    prepared("pictures", 16)
    path = workplace / "pictures" / "a" / "001.png"
    before = path.stat()
    write_image(path, 77)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    numbers = [number_of(image) for images in prepared("pictures", 16).images.values() for image in images]
    assert 77 in numbers


def test_preparation_that_is_interrupted_leaves_nothing_that_would_be_trusted(workplace, monkeypatch):
    write_folder(workplace / "pictures", 200)
    real, calls = prep_data.read_files, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(prep_data, "read_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared("pictures", 16)
    assert list((workplace / "data" / "prepared").iterdir()) == []
    monkeypatch.undo()
    os.chdir(workplace)
    assert sum(map(len, prepared("pictures", 16).images.values())) == 200


def test_a_prepared_array_that_is_gone_is_prepared_again(workplace):
    write_folder(workplace / "pictures", 20)
    prepared("pictures", 16)
    next((workplace / "data" / "prepared").glob("*/train.npy")).unlink()
    assert sum(map(len, prepared("pictures", 16).images.values())) == 20


def test_hidden_files_are_left_out(workplace):
    write_folder(workplace / "pictures", 20)
    (workplace / "pictures" / "a" / "._001.png").write_bytes(b"what macOS writes beside a file")
    write_image(workplace / "pictures" / ".cache" / "1.png", 1)
    assert sum(map(len, prepared("pictures", 16).images.values())) == 20


def test_however_many_faces_are_trained_on_the_same_are_held_out(workplace):
    few, many = (prepared("faces", 16, face_count=count) for count in (20, 40))
    assert np.array_equal(few.images["test"], many.images["test"][:2])


def test_a_half_written_manifest_is_not_trusted(workplace):
    write_folder(workplace / "pictures", 20)
    prepared("pictures", 16)
    manifest = next((workplace / "data" / "prepared").glob("*/manifest.json"))
    manifest.write_text(manifest.read_text()[:40])
    assert sum(map(len, prepared("pictures", 16).images.values())) == 20


@pytest.fixture(scope="module")
def faces_on_disk(tmp_path_factory):
    """A place where a few faces are prepared; the source, the files' contents and the data set as it should be."""
    place = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(prep_data, "CHECKED", 1000)  # so that the files have several checksums
        patch.setattr(prep_data, "CHECKED_AT_ONCE", 300)
        source = find_source("faces", 16, 10)
        dataset = open_dataset(source)
        images = {split: np.array(array) for split, array in dataset.images.items()}
        contents = {path: path.read_bytes() for path in (place / "data" / "prepared" / source.key).iterdir()}
        yield source, contents, dataset, images


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_byte_of_a_prepared_set_is_damaged_it_is_never_used(faces_on_disk, data):
    source, contents, dataset, images = faces_on_disk
    path = data.draw(st.sampled_from(sorted(contents)))
    damaged = bytearray(contents[path])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.none() | st.integers(0, len(damaged)))
    state = path.stat()
    path.write_bytes(damaged[:cut])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # a failing disk does not tell
    found = open_dataset(source)
    assert (found.title, found.attribute_names) == (dataset.title, dataset.attribute_names)
    for split in ("train", "test"):
        assert np.array_equal(found.images[split], images[split])
        assert np.array_equal(found.attributes[split], dataset.attributes[split])


def test_damage_is_told_of(workplace, capsys):
    write_folder(workplace / "pictures", 20)
    prepared("pictures", 16)
    path = next((workplace / "data" / "prepared").glob("*/train.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    prepared("pictures", 16)
    assert "train.npy is damaged; preparing it again" in capsys.readouterr().out


def test_more_than_the_disk_has_room_for_is_refused_before_anything_is_read(workplace, monkeypatch):
    write_folder(workplace / "pictures", 20)
    monkeypatch.setattr(prep_data.shutil, "disk_usage", lambda path: SimpleNamespace(free=15_000))
    with pytest.raises(UsageError, match=r"would take 0.0 GB, and 0.0 GB are free; make room"):
        prepared("pictures", 16)
    assert list((workplace / "data" / "prepared").iterdir()) == []


def test_celeba_is_not_scaled_up(workplace):
    write_celeba(workplace / "data" / "celeba")
    with pytest.raises(UsageError, match="IMAGE_SIZE is 136; it must be at most 128 for CelebA"):
        prepared("celeba", 136)


def test_many_images_are_read_by_several_processes_in_order(workplace, monkeypatch):
    monkeypatch.setattr(prep_data, "CHUNK", 3)
    monkeypatch.setattr(prep_data, "SERIAL_SECONDS", 0.0)
    write_folder(workplace / "pictures", 100)
    source = prep_data.folder_source(workplace / "pictures", 16)
    images = prepared("pictures", 16).images["train"]
    assert [number_of(image) for image in images] == [int(name[-7:-4]) for name in source.splits["train"]]


# --- rendered faces --------------------------------------------------------------------------------------------


def test_rendered_faces_come_with_their_attributes_and_share_no_face(workplace):
    dataset = prepared("faces", 32, face_count=30)
    assert dataset.attribute_names == ATTRIBUTES
    assert {split: len(images) for split, images in dataset.images.items()} == {"train": 30, "test": 3}
    image, attributes = render_face(0, prep_data.FIRST_HELD_OUT_FACE + 1, 32)
    assert np.array_equal(dataset.images["test"][1], image)
    assert np.array_equal(dataset.attributes["test"][1], attributes)


def test_auto_means_celeba_if_it_is_there_and_says_so(workplace, capsys):
    assert prepared("auto", 32, face_count=10).title == "rendered faces"
    assert "leae.data.prepare celeba" in capsys.readouterr().out
    write_celeba(workplace / "data" / "celeba")
    assert prepared("auto", 32, face_count=10).title == "CelebA"
    assert "CelebA" in capsys.readouterr().out


# --- CelebA ----------------------------------------------------------------------------------------------------

SPLIT_OF = {number: 0 if number < 12 else 1 if number < 15 else 2 for number in range(20)}
NAMES = ("Smiling", "Eyeglasses")


def attributes_of(number):
    return (number % 2 == 0, number % 3 == 0)


def celeba_lists(kind="txt"):
    rows = [(f"{number:06d}.jpg", SPLIT_OF[number]) for number in range(20)]
    signs = [["1" if value else "-1" for value in attributes_of(number)] for number in range(20)]
    if kind == "txt":
        partition = "".join(f"{name} {split}\n" for name, split in rows)
        attributes = f"20\n{' '.join(NAMES)} \n"
        attributes += "".join(f"{name} {'  '.join(s)}\n" for (name, _), s in zip(rows, signs, strict=True))
    else:
        partition = "image_id,partition\r\n" + "".join(f"{name},{split}\r\n" for name, split in rows)
        attributes = "image_id," + ",".join(NAMES) + "\r\n"
        attributes += "".join(f"{name},{','.join(s)}\r\n" for (name, _), s in zip(rows, signs, strict=True))
    return {f"list_eval_partition.{kind}": partition, f"list_attr_celeba.{kind}": attributes}


def write_celeba(root, layout="folder", kind="txt", size=(178, 218)):
    """A small CelebA as people have it: a folder, a nested folder, the official zip, or a mirror's archive."""
    pictures = root / "img_align_celeba"
    if layout == "nested":
        pictures = pictures / "img_align_celeba"
    for number in range(20):
        write_image(pictures / f"{number:06d}.jpg", number, size)
    for name, text in celeba_lists(kind).items():
        (root / name).write_text(text)
    if layout in ("zip", "mirror"):
        archive = root / ("img_align_celeba.zip" if layout == "zip" else "archive.zip")
        with zipfile.ZipFile(archive, "w") as opened:
            for path in sorted(pictures.iterdir()):
                nested = "img_align_celeba/" if layout == "mirror" else ""
                opened.write(path, f"{nested}img_align_celeba/{path.name}")
                path.unlink()
            if layout == "mirror":
                for name in celeba_lists(kind):
                    opened.write(root / name, name)
                    (root / name).unlink()
        pictures.rmdir()


@pytest.mark.parametrize("layout", ["folder", "nested", "zip", "mirror"])
@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_celeba_is_read_from_every_layout_with_splits_and_attributes(workplace, layout, kind):
    write_celeba(workplace / "data" / "celeba", layout, kind)
    dataset = prepared("celeba", 128)
    assert dataset.attribute_names == NAMES
    assert {split: len(images) for split, images in dataset.images.items()} == {"train": 12, "valid": 3, "test": 5}
    for code, split in enumerate(("train", "valid", "test")):
        expected = [number for number in range(20) if SPLIT_OF[number] == code]
        assert [number_of(image) for image in dataset.images[split]] == expected
        assert dataset.attributes[split].tolist() == [list(attributes_of(number)) for number in expected]
    unpacked = list((workplace / "data").rglob("*.jpg"))
    assert len(unpacked) == (0 if layout in ("zip", "mirror") else 20)


def test_a_folder_in_celebas_layout_is_read_as_such_and_its_image_folder_as_a_plain_one(workplace):
    write_celeba(workplace / "photos")
    assert set(prepared("photos", 64).images) == {"train", "valid", "test"}
    assert set(prepared("photos/img_align_celeba", 64).images) == {"train", "test"}


def test_attributes_of_a_skipped_image_are_skipped_too(workplace, monkeypatch):
    write_celeba(workplace / "data" / "celeba")
    (workplace / "data" / "celeba" / "img_align_celeba" / "000003.jpg").write_bytes(b"")
    monkeypatch.setattr(prep_data, "BAD_SHARE", 0.1)
    dataset = prepared("celeba", 64)
    kept = [number for number in range(12) if number != 3]
    assert [number_of(image) for image in dataset.images["train"]] == kept
    assert dataset.attributes["train"].tolist() == [list(attributes_of(number)) for number in kept]


def damage(root, what):
    partition, attributes = root / "list_eval_partition.txt", root / "list_attr_celeba.txt"
    if what == "no split file":
        partition.unlink()
    elif what == "missing images":
        (root / "img_align_celeba" / "000007.jpg").unlink()
    elif what == "unknown split":
        partition.write_text(partition.read_text().replace("000004.jpg 0", "000004.jpg 7"))
    elif what == "short attribute row":
        attributes.write_text(attributes.read_text().replace("000004.jpg 1", "000004.jpg"))
    elif what == "no attribute row":
        attributes.write_text("".join(line for line in attributes.open() if not line.startswith("000004")))
    elif what == "broken zip":
        for path in (root / "img_align_celeba").iterdir():
            path.unlink()
        (root / "img_align_celeba").rmdir()
        (root / "img_align_celeba.zip").write_bytes(b"PK\x03\x04 cut off")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no split file", "list_eval_partition.*beside the images"),
        ("missing images", "20 images, of which 1 are not.*000007.jpg"),
        ("unknown split", "line 5.*000004.jpg 7.*0, 1 or 2"),
        ("short attribute row", "000004.jpg.*2 values"),
        ("no attribute row", "no row for 1 images.*000004.jpg"),
        ("broken zip", "img_align_celeba.zip cannot be read"),
    ],
)
def test_a_damaged_celeba_is_refused_with_what_is_wrong(workplace, what, says):
    write_celeba(workplace / "data" / "celeba")
    damage(workplace / "data" / "celeba", what)
    with pytest.raises(UsageError, match=says):
        prepared("celeba", 64)


def test_images_smaller_than_celebas_crop_are_refused(workplace):
    write_celeba(workplace / "data" / "celeba", size=(120, 140))
    with pytest.raises(UsageError, match="120×140 pixels, smaller than 128×128"):
        prepared("celeba", 64)


def test_without_celeba_the_message_says_what_to_put_where(workplace):
    with pytest.raises(UsageError, match=r"data.celeba.*prep_data celeba.*img_align_celeba.zip.*list_eval_partition"):
        prepared("celeba", 64)


# --- batches ---------------------------------------------------------------------------------------------------


def numbered(count):
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def seen(batches, steps):
    return [(batches.at(step)[:, 0, 0, 0] * 255).round().int().tolist() for step in steps]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(24), 6, seed=0, device=CPU)
    assert batches.steps_per_epoch == 4
    epochs = [np.concatenate(seen(batches, range(4 * epoch, 4 * epoch + 4))).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(24))


def test_a_batch_is_a_function_of_seed_and_step_alone():
    steps = [7, 2, 2, 9]
    assert seen(Batches(numbered(24), 5, 3, CPU), steps) == seen(Batches(numbered(24), 5, 3, CPU), steps)
    assert seen(Batches(numbered(24), 5, 3, CPU), steps) != seen(Batches(numbered(24), 5, 4, CPU), steps)
    forward = Batches(numbered(24), 5, 3, CPU)
    assert seen(forward, range(10))[7] == seen(Batches(numbered(24), 5, 3, CPU), [7])[0]


def test_batches_are_float_in_0_to_1_and_channels_last():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    images.setflags(write=False)
    batch = Batches(images, 10, 0, CPU).at(0)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    order = [next(i for i in range(10) if np.array_equal(to_float(images)[i], image)) for image in batch]
    assert sorted(order) == list(range(10))
    assert torch.equal(to_float(images) * 255, torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2))


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(UsageError, match=r"10 training images.*batch of 16.*BATCH_SIZE"):
        Batches(numbered(10), 16, 0, CPU)


MEMORY_OF_A_PASS = """
import numpy as np, torch
from pathlib import Path
from leae.data import prepare as prep_data
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
images = np.load("images.npy", mmap_mode="r")
batches = prep_data.Batches(images, 8, 0, torch.device("cpu"), mapped_bytes=16 * 2**20)
batches.at(0)
before, most = resident(), 0
for step in range(batches.steps_per_epoch):
    batches.at(step)
    most = max(most, resident())
print(images.nbytes, most - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_a_pass_over_a_large_array_keeps_a_bounded_part_of_it_in_memory(workplace):
    np.save("images.npy", np.ones((4096, 128, 128, 3), np.uint8))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEMORY_OF_A_PASS]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    size, grown = map(int, said.split())
    assert size == 192 * 2**20
    assert grown < 64 * 2**20


def test_a_large_array_is_read_from_its_file_image_by_image(workplace):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.save("images.npy", images)
    mapped = np.load("images.npy", mmap_mode="r")
    plain = Batches(mapped, 7, 0, CPU)
    streamed = Batches(mapped, 7, 0, CPU, mapped_bytes=100)
    assert plain.file is None
    assert streamed.file is not None
    for step in range(10):
        assert torch.equal(streamed.at(step), plain.at(step))
    os.truncate("images.npy", 4000)
    with pytest.raises(UsageError, match=r"images.npy has become shorter"):
        list(map(streamed.at, range(7)))


class Ahead(Batches):
    """Batches as for a GPU without room for the array, on a machine without one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.ahead, self.chosen = ThreadPoolExecutor(1), []

    def _read_pinned(self, chosen):
        self.chosen.append(chosen.tolist())
        return torch.from_numpy(self._read(chosen))


def test_batches_that_are_read_ahead_are_the_same_and_read_once():
    ahead, plain = Ahead(numbered(24), 6, 0, CPU), Batches(numbered(24), 6, 0, CPU)
    assert seen(ahead, range(9)) == seen(plain, range(9))
    ahead.ahead.shutdown()
    assert len(ahead.chosen) == 10  # the next one, too
    jumping = Ahead(numbered(24), 6, 0, CPU)
    assert seen(jumping, [5, 2, 3]) == seen(plain, [5, 2, 3])


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu():
    images = numbered(24)
    gpu = Batches(images, 5, 0, torch.device("cuda"))
    for step in range(10):
        assert torch.equal(gpu.at(step).cpu(), Batches(images, 5, 0, CPU).at(step))


def test_the_manifest_says_what_was_prepared(workplace):
    write_folder(workplace / "pictures", 20)
    prepared("pictures", 16)
    manifest = json.loads(next((workplace / "data" / "prepared").glob("*/manifest.json")).read_text())
    assert manifest["title"] == "images in pictures"
    assert manifest["splits"] == ["train", "test"]
