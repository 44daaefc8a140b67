"""Preparing a data set once, knowing it by what is in it, and what happens when something comes in between."""

import argparse
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leae.data import prepare, sources
from leae.data.faces import ATTRIBUTES
from leae.data.prepare import open_dataset
from leae.errors import UsageError, run_command
from tests.conftest import number_of, write_image
from tests.data.conftest import count_of, numbers_of, write_celeba, write_folder
from tests.processes import drop_privileges

PREPARED = Path("data") / "prepared"
FACES = ("faces", "--faces", "1200", "--image-size", "32")  # a second's work


def start(*options, before=lambda: None, output="output"):
    """The command in a process of its own, after a call of `before`; what it prints goes to a file."""

    def live():
        sys.stdout = sys.stderr = open(output, "w", buffering=1)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        before()
        parser = argparse.ArgumentParser()
        prepare.add_arguments(parser)
        run_command(lambda: prepare.main(parser.parse_args(options)), "prepare")

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    return child


def said(output="output"):
    """The lines that a process left on its screen, the last states of progress bars among them."""
    text = Path(output).read_text()
    assert "Traceback" not in text
    return [line.split("\r")[-1].strip() for line in text.splitlines()]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def what_is_prepared():
    """The folders, whole or not, without the locks."""
    return sorted(path.name for path in PREPARED.iterdir() if path.suffix != ".lock")


BAD_ARGUMENTS = {
    "DATASET is 3": (3, 16),
    "IMAGE_SIZE is 0; .* at least 1": ("faces", 0),
    "IMAGE_SIZE is 2049; .* at most 2048": ("faces", 2049),
    "IMAGE_SIZE is 16.0; .* whole number": ("faces", 16.0),
    "FACES is 0": ("faces", 16, 0),
    "FACES is 1000001": ("faces", 16, 10**6 + 1),
}


@pytest.mark.parametrize(("says", "arguments"), BAD_ARGUMENTS.items())
def test_arguments_are_checked_before_any_work(workplace, arguments, says):
    with pytest.raises(UsageError, match=says):
        open_dataset(*arguments)
    assert list(workplace.iterdir()) == []


def test_a_prepared_set_is_used_again_and_prepared_anew_when_its_source_changes(workplace, capsys):
    write_folder(workplace / "pictures", 20)
    open_dataset("pictures", 16)
    manifest = next(PREPARED.glob("*/manifest.json"))
    written = manifest.stat().st_mtime_ns
    open_dataset("pictures", 16)
    assert manifest.stat().st_mtime_ns == written
    write_image(workplace / "pictures" / "a" / "001.png", 77)
    os.utime("pictures/a/001.png", (1, 1))
    write_image(workplace / "pictures" / "new.png", 99)
    numbers = numbers_of(open_dataset("pictures", 16))
    assert "changed since it was prepared" in capsys.readouterr().out
    assert sorted(numbers["train"] + numbers["test"]) == [0, *range(2, 20), 77, 99]


def test_an_array_that_is_gone_or_was_drawn_by_another_renderer_is_prepared_again(workplace, monkeypatch, capsys):
    identity = open_dataset("faces", 16, 10).identity
    (PREPARED / "faces-10-16" / "train.npy").unlink()
    assert open_dataset("faces", 16, 10).identity == identity
    assert "train.npy is damaged" in capsys.readouterr().out
    monkeypatch.setattr(sources.faces, "VERSION", 2)
    open_dataset("faces", 16, 10)
    assert "changed since it was prepared" in capsys.readouterr().out


@pytest.fixture(scope="module")
def faces_on_disk(tmp_path_factory):
    """A place where a few faces are prepared: the files' contents, and the data set as it should be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("faces"))
        patch.setattr(prepare, "BLOCK", 300)
        open_dataset("faces", 16, 10)
        dataset = open_dataset("faces", 16, 10)  # which verifies it
        contents = {path: path.read_bytes() for path in (PREPARED / "faces-10-16").iterdir()}
        assert len(contents) == 6
        yield contents, dataset.identity, [np.array(array) for array in arrays_of(dataset)]


def arrays_of(dataset):
    return [*dataset.images.values(), *dataset.attributes.values()]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_byte_of_a_prepared_set_is_damaged_it_is_never_used(faces_on_disk, data):
    contents, identity, arrays = faces_on_disk
    path = data.draw(st.sampled_from(sorted(contents)))
    damaged = bytearray(contents[path])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    changed = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(damaged[: data.draw(st.none() | st.integers(0, len(damaged)))])
    os.utime(path, ns=(changed + 1, changed + 1))
    found = open_dataset("faces", 16, 10)
    assert (found.title, found.attribute_names, found.identity) == ("rendered faces", ATTRIBUTES, identity)
    assert all(map(np.array_equal, arrays_of(found), arrays))


def test_arrays_are_verified_once_and_again_when_their_time_of_change_has_moved(workplace, monkeypatch):
    open_dataset("faces", 16, 10)
    verified, checksum = [], prepare._checksum
    monkeypatch.setattr(prepare, "_checksum", lambda path: verified.append(path.name) or checksum(path))
    arrays = ["test-attributes.npy", "test.npy", "train-attributes.npy", "train.npy"]
    for times in (1, 1, 2, 2):
        if times == 2:
            os.utime(PREPARED / "faces-10-16" / "test.npy", (1, 1))
        open_dataset("faces", 16, 10)
        assert sorted(verified) == sorted(times * arrays)


def test_a_data_set_stays_the_same_when_its_images_are_touched_copied_or_renamed_but_not_when_a_pixel_is_another(
    workplace,
):
    pictures = workplace / "pictures"
    write_folder(pictures, 20, size=(16, 16))
    identity = open_dataset("pictures", 16).identity
    for path in pictures.rglob("*.png"):
        os.utime(path, (1, 1))
    assert open_dataset("pictures", 16).identity == identity
    shutil.copytree("pictures", "copies")
    assert open_dataset("copies", 16).identity == identity
    pictures.rename("photos")
    assert open_dataset("photos", 16).identity == identity
    with Image.open("photos/a/001.png") as image:
        image.putpixel((3, 4), (3, 100, 50))
        image.save("photos/a/001.png")
    assert open_dataset("photos", 16).identity != identity


def test_celeba_stays_the_same_when_it_is_extracted(workplace):
    archive = write_celeba(workplace / "data" / "celeba", "zip") / "img_align_celeba.zip"
    identity = open_dataset("celeba", 64).identity
    shutil.unpack_archive(archive, archive.parent)
    archive.unlink()
    assert open_dataset("celeba", 64).identity == identity


def test_a_run_finds_its_data_set_by_identity_in_a_copy_of_what_was_prepared(workplace, monkeypatch):
    write_folder(workplace / "clone" / "pictures", 20)
    monkeypatch.chdir(workplace / "clone")
    dataset = open_dataset("pictures", 16)
    numbers = numbers_of(dataset)
    open_dataset("faces", 16, 10)
    shutil.copytree("data", workplace / "other" / "data")
    monkeypatch.chdir(workplace / "other")
    shutil.rmtree(workplace / "clone")
    found = open_dataset("pictures", 16, identity=dataset.identity)
    assert (found.name, found.title, found.identity) == ("pictures", "images in pictures", dataset.identity)
    assert numbers_of(found) == numbers
    with pytest.raises(UsageError, match="no data set 'pictures'"):
        open_dataset("pictures", 16)


def test_a_data_set_that_is_not_the_one_a_run_was_trained_on_is_refused(workplace):
    write_folder(workplace / "pictures", 20)
    identity = open_dataset("pictures", 16).identity
    write_image(workplace / "pictures" / "new.png", 99)
    assert open_dataset("pictures", 16, identity=identity).identity == identity  # what is prepared still has it
    shutil.rmtree(PREPARED)
    with pytest.raises(UsageError, match=r"^images in pictures: has changed .*; bring it back or start a new run$"):
        open_dataset("pictures", 16, identity=identity)
    (workplace / "pictures" / "new.png").unlink()
    assert open_dataset("pictures", 16, identity=identity).identity == identity


def test_one_percent_of_unusable_images_is_skipped_and_more_is_an_error_that_leaves_nothing(workplace, capsys):
    write_folder(workplace / "pictures", 198)
    (workplace / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (workplace / "pictures" / "empty.png").touch()
    assert count_of(open_dataset("pictures", 16)) == 198
    warning = capsys.readouterr().err
    assert all(part in warning for part in ("2 of 200 images", "broken.jpg", "empty.png", "left out"))
    shutil.rmtree(PREPARED)
    write_image(workplace / "pictures" / "tiny.png", 1, size=(12, 40))
    with pytest.raises(UsageError, match=r"3 of 201 images.*tiny.png \(12×40 pixels, smaller than 16×16.*at most 1%"):
        open_dataset("pictures", 16)
    assert what_is_prepared() == []


def test_an_image_that_vanishes_while_the_set_is_prepared_is_skipped(workplace, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "BAD_SHARE", 0.2)
    write_folder(workplace / "pictures", 9)
    source = sources.folder_source(Path("pictures"), 16)
    (workplace / "pictures" / "a" / "003.png").unlink()
    monkeypatch.setattr(prepare, "find_source", lambda *arguments: source)
    assert count_of(open_dataset("pictures", 16)) == 8
    assert "003.png (unreadable: " in capsys.readouterr().err


def test_more_than_the_disk_has_room_for_is_refused_before_anything_is_read(workplace, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: SimpleNamespace(free=15_000))
    monkeypatch.setattr(sources.faces, "render_face", None)
    with pytest.raises(UsageError, match=r"would take 0.0 GB, and 0.0 GB are free; make room"):
        open_dataset("faces", 16, 20)
    assert what_is_prepared() == []


def test_many_images_are_read_by_several_processes_in_order(workplace, monkeypatch):
    monkeypatch.setattr(prepare, "CHUNK", 3)
    monkeypatch.setattr(prepare, "SERIAL", 10)
    write_folder(workplace / "pictures", 100)
    source = sources.folder_source(workplace / "pictures", 16)
    random = torch.get_rng_state()
    images = open_dataset("pictures", 16).images["train"]
    assert [number_of(image) for image in images] == [int(name[-7:-4]) for name in source.splits["train"]]
    assert torch.equal(torch.get_rng_state(), random)


def test_of_processes_that_prepare_a_set_one_does_the_work_and_if_it_is_killed_the_next_one_does(workplace):
    first = start(*FACES)
    wait_until(lambda: PREPARED.exists() and any(PREPARED.glob(".*.tmp/*")))
    os.killpg(first.pid, signal.SIGSTOP)  # so that the others come while the first prepares
    others = [start(*FACES, output=name) for name in ("second", "third")]
    wait_until(lambda: Path("second").exists() and Path("third").exists())
    time.sleep(0.5)
    assert all(child.is_alive() for child in others)
    os.killpg(first.pid, signal.SIGKILL)
    for child in (first, *others):
        child.join()
    assert [child.exitcode for child in (first, *others)] == [-signal.SIGKILL, 0, 0]
    outputs = [Path(name).read_text() for name in ("second", "third")]
    assert all("rendered faces: 1,200 train, 120 test; 29 attributes" in output for output in outputs)
    assert sorted("100%" in output for output in outputs) == [False, True]
    assert what_is_prepared() == ["faces-1200-32"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_preparing_and_the_processes_that_read_and_leaves_nothing(workplace, number, status):
    readable, writable = os.pipe()  # which every process has open that descends from the one that is started
    child = start(*FACES)
    os.close(writable)
    array = PREPARED / ".faces-1200-32.tmp" / ".train.npy.tmp"
    wait_until(lambda: array.exists() and array.stat().st_size > 50_000)
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)  # a terminal signals all of them
    child.join()
    assert child.exitcode == status
    assert select.select([readable], [], [], 30)[0]  # all have ended
    os.close(readable)
    assert said()[-1] == "prepare: interrupted"
    assert what_is_prepared() == []


def test_a_reading_process_that_is_killed_makes_one_line(workplace, monkeypatch):
    here, render_face = os.getpid(), sources.faces.render_face

    def killing(seed, index, size):
        if index == 700:
            assert os.getpid() != here
            os.kill(os.getpid(), signal.SIGKILL)
        return render_face(seed, index, size)

    monkeypatch.setattr(sources.faces, "render_face", killing)
    with pytest.raises(UsageError, match=r"^a process that reads images was ended"):
        open_dataset("faces", 16, 1000)
    assert what_is_prepared() == []


def test_a_disk_that_fills_makes_one_line_and_leaves_nothing(workplace):
    limit = (50_000, 50_000)
    child = start("faces", "--faces", "40", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    child.join()
    assert child.exitcode == 2
    assert re.match("prepare: data/prepared/.*train.npy: File too large; raise the limit", said()[-1])
    assert what_is_prepared() == []


def test_what_is_prepared_is_used_from_a_read_only_place_and_nothing_else_can_be_prepared_there(workplace):
    open_dataset("faces", 16, 10)
    folders = [PREPARED / "faces-10-16", PREPARED, Path("data")]
    for folder in folders:
        folder.chmod(0o500)
    options = ("faces", "--image-size", "16", "--faces")
    children = [start(*options, count, before=drop_privileges, output=count) for count in ("10", "11")]
    for child in children:
        child.join()
    for folder in folders:
        folder.chmod(0o700)
    assert said("10")[-1].startswith("rendered faces: 10 train")
    assert children[1].exitcode == 2
    assert said("11") == ["prepare: data/prepared/.faces-11-16.tmp: Permission denied; change its permissions"]
