"""Preparing a data set once, knowing it by what is in it, and what happens when something comes in between."""

import csv
import errno
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from leae.data import folders, prepare, sources
from leae.data.prepare import open_dataset
from leae.errors import UsageError
from leae.training.settings import script_constants
from tests.conftest import ROOT, assert_one_line, number_of, write_image
from tests.data.conftest import count_of, numbers_of, write_celeba, write_folder

PREPARED = Path("data") / "prepared"


@pytest.mark.parametrize("gpu", prepare.DEFAULTS)
def test_the_defaults_are_those_of_main_py(gpu):
    constants = script_constants(ROOT / "main.py", gpu)
    assert prepare.DEFAULTS[gpu] == {name: constants[name.upper()] for name in prepare.DEFAULTS[gpu]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["faces", "--image-size", "0"], "--image-size is 0"),
        (["faces", "--faces", "1000001"], "--faces is 1000001"),
        (["celeba", "--image-size", "129"], "--image-size is 129.* 128"),  # before it is fetched
    ],
)
def test_the_command_refuses_its_options_by_their_names(workplace, monkeypatch, capsys, options, says):
    assert_one_line(monkeypatch, capsys, "prepare", *options, says=says)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def what_is_prepared():
    """The folders, whole or not, without the locks."""
    return sorted(path.name for path in PREPARED.iterdir() if path.suffix != ".lock")


def test_a_prepared_set_is_used_again_and_prepared_anew_when_its_source_changes(workplace, monkeypatch, capsys):
    write_folder(workplace / "pictures", 20)
    open_dataset("pictures", 16)
    manifest = next(PREPARED.glob("*/manifest.json"))
    written = manifest.stat().st_mtime_ns
    open_dataset("pictures", 16)
    assert manifest.stat().st_mtime_ns == written
    write_image(workplace / "pictures" / "a" / "001.png", 77)
    os.utime("pictures/a/001.png", (1, 1))
    write_image(workplace / "pictures" / "a" / "new.png", 99)
    numbers = numbers_of(open_dataset("pictures", 16))
    assert sorted(numbers["train"] + numbers["test"]) == [0, *range(2, 20), 77, 99]
    monkeypatch.setattr(folders, "TEST_EVERY", 2)  # another rule for the splits
    assert len(open_dataset("pictures", 16).images["test"]) > len(numbers["test"])
    open_dataset("faces", 16, 10)
    monkeypatch.setattr(sources.faces, "VERSION", 2)
    open_dataset("faces", 16, 10)
    said = capsys.readouterr().out
    assert said.count("images in pictures: what was") == 2
    assert said.count("preparing rendered faces") == 2
    assert "rendered faces: what was" not in said  # the same faces by the new version


def test_a_hidden_folder_is_found_again_by_identity_and_times_alone_make_no_second_copy(workplace):
    write_folder(workplace / ".pictures", 20)
    identity = open_dataset(".pictures", 16).identity
    for path in Path(".pictures").rglob("*.png"):
        os.utime(path, (1, 1))
    before = what_is_prepared()
    assert open_dataset(".pictures", 16).identity == identity
    assert what_is_prepared() == before
    shutil.rmtree(".pictures")
    assert open_dataset(".pictures", 16, identity=identity).identity == identity


def test_damaged_data_take_the_place_of_no_sound_ones(workplace):
    write_folder(workplace / "pictures", 20)
    place = Path("pictures/a/001.png")
    first = place.read_bytes()
    identity = open_dataset("pictures", 16).identity
    write_image(place, 77)
    open_dataset("pictures", 16)  # beside which the first stay
    place.write_bytes(first)
    assert open_dataset("pictures", 16).identity == identity
    [folder] = PREPARED.glob("*-classes")
    with (folder / "train.npy").open("r+b") as file:
        file.seek(500)
        file.write(b"XXXX")
    write_image(place, 99)
    open_dataset("pictures", 16)
    assert open_dataset("pictures", 16, identity=identity).identity == identity


def test_other_names_of_attributes_are_other_data(workplace):
    identities = set()
    for names in ("smiling male hat", "male smiling hat"):
        write_celeba(workplace / names, "folder")
        path = workplace / names / "list_attr_celeba.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], " ".join(names.split()[: len(lines[1].split())]), *lines[2:]]) + "\n")
        identities.add(open_dataset(names, 64).identity)
    assert len(identities) == 2


def test_identity_is_that_of_the_pixels_wherever_they_lie_and_whenever_they_changed(workplace):
    write_folder(workplace / "pictures", 20, size=(16, 16))
    identity = open_dataset("pictures", 16).identity
    (workplace / "pictures").rename("photos")
    for path in Path("photos").rglob("*.png"):
        os.utime(path, (1, 1))
    assert open_dataset("photos", 16).identity == identity
    with Image.open("photos/a/001.png") as image:
        image.putpixel((3, 4), (3, 100, 50))
        image.save("photos/a/001.png")
    assert open_dataset("photos", 16).identity != identity


def test_nothing_stays_of_a_folder_that_is_prepared_for_a_run_on_other_images(workplace):
    for number in range(20):
        write_image(workplace / "private" / f"{number}.png", number)
    with pytest.raises(UsageError, match="has changed"):
        open_dataset("private", 16, identity="0" * 64)
    assert not list(workplace.rglob("*.npy"))
    assert open_dataset("private", 16).identity
    with pytest.raises(UsageError, match="has changed"):
        open_dataset("private", 16, identity="0" * 64)
    assert list(workplace.rglob("train.npy"))  # what was there stays


@pytest.mark.parametrize("wanted", [True, False])
def test_data_whose_manifest_is_damaged_are_not_lost_with_a_source_that_has_changed(workplace, capsys, wanted):
    write_folder(workplace / "pictures", 20)
    identity = open_dataset("pictures", 16).identity
    [folder] = PREPARED.glob("*/")
    content = (folder / "train.npy").read_bytes()
    (folder / "manifest.json").write_text("damaged")
    Path("pictures/a/001.png").unlink()
    if wanted:  # as by a command over a trained run, which changes nothing then
        with pytest.raises(UsageError, match="has changed"):
            open_dataset("pictures", 16, identity=identity)
        assert (folder / "train.npy").read_bytes() == content
    else:
        assert open_dataset("pictures", 16).identity != identity
        assert (folder.with_name(f"{folder.name}-damaged") / "train.npy").read_bytes() == content
        assert f"{folder.name}-damaged" in capsys.readouterr().out


def test_a_run_finds_its_data_set_by_identity_in_a_copy_of_what_was_prepared(workplace, monkeypatch):
    write_folder(workplace / "pictures", 20)
    dataset = open_dataset("pictures", 16)
    shutil.copytree("data", "other/data")
    monkeypatch.chdir("other")
    found = open_dataset("pictures", 16, identity=dataset.identity)
    assert (found.name, found.title, found.identity) == ("pictures", "images in pictures", dataset.identity)
    assert numbers_of(found) == numbers_of(dataset)


def test_fewer_training_images_than_a_batch_has_are_refused_and_nothing_is_written(workplace):
    write_folder(workplace / "pictures", 20)
    enough = len(sources.folder_source("pictures", 16).splits["train"])
    with pytest.raises(UsageError, match=rf"pictures.* {enough} .* {enough + 1}"):
        open_dataset("pictures", 16, at_least=enough + 1)
    assert not PREPARED.exists()
    open_dataset("pictures", 16, at_least=enough)


def test_images_that_cannot_be_used_are_left_out_and_named_and_a_folder_of_them_alone_is_refused(workplace, capsys):
    write_folder(workplace / "pictures", 20)
    for number in range(10):
        (workplace / "pictures" / f"broken {number}.jpg").write_bytes(b"\xff\xd8\xff no more")
    assert count_of(open_dataset("pictures", 16)) == 20
    [skipped] = PREPARED.glob("*/skipped.csv")
    assert re.search(f"10 of 30.*broken 0.jpg.*broken 4.jpg.*{skipped}", capsys.readouterr().err)
    with skipped.open() as file:
        named = [row["file"] for row in csv.DictReader(file)]
    assert sorted(named) == [f"broken {number}.jpg" for number in range(10)]
    for number in range(40):
        write_image(workplace / "small" / f"{number}.png", number, size=(12, 40))
    before = what_is_prepared()
    with pytest.raises(UsageError, match=r"no train image.*--image-size 16.*\(12×40.*16×16"):
        open_dataset("small", 16)
    assert what_is_prepared() == before


def test_more_than_the_disk_has_room_for_is_refused_before_anything_is_read(workplace, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: SimpleNamespace(free=15_000))
    monkeypatch.setattr(sources.faces, "render_face", None)
    with pytest.raises(UsageError, match=r"23,040.*15,000"):
        open_dataset("faces", 16, 20)
    assert what_is_prepared() == []


def test_many_images_are_read_by_several_processes_in_order(workplace, monkeypatch):
    monkeypatch.setattr(prepare, "READ_AT_A_TIME", 3)
    monkeypatch.setattr(prepare, "SERIAL", 10)
    write_folder(workplace / "pictures", 100)
    source = sources.folder_source(workplace / "pictures", 16)
    random = torch.get_rng_state()
    images = open_dataset("pictures", 16).images["train"]
    assert [number_of(image) for image in images] == [int(name[-7:-4]) for name in source.splits["train"]]
    assert torch.equal(torch.get_rng_state(), random)


def test_of_processes_that_prepare_a_set_one_does_the_work_and_if_it_is_killed_the_next_one_does(processes, workplace):
    folders = [workplace / name for name in ("first", "second", "third")]
    Path("data").mkdir()
    for folder in folders:
        folder.mkdir()
        (folder / "data").symlink_to(workplace / "data")
    options = ("-m leae", "prepare", "faces", "--faces", 120, "--image-size", 64)  # few enough for a single process
    first = processes.start(*options, folder=folders[0])
    wait_until(lambda: any(PREPARED.glob(".*.tmp/*")))
    os.kill(first, signal.SIGSTOP)  # so that the others come while the first prepares
    others = [processes.start(*options, folder=folder) for folder in folders[1:]]
    time.sleep(1)
    os.kill(first, signal.SIGKILL)
    assert [processes.wait(child) for child in (first, *others)] == [-signal.SIGKILL, 0, 0]
    outputs = [(folder / "output").read_text() for folder in folders[1:]]
    assert all("rendered faces: 120 train, 60 test; 29 attributes" in output for output in outputs)
    assert sorted("preparing" in output for output in outputs) == [False, True]
    assert what_is_prepared() == ["faces-120-64"]


@pytest.mark.parametrize("send", [os.kill, os.killpg])  # to the first process, or to all, as a terminal does
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_preparing_and_the_processes_that_read_and_leaves_nothing(
    processes, workplace, send, number, status
):
    os.mkfifo("output")
    options = ("prepare", "faces", "--faces", 1200, "--image-size", 32)
    child = processes.start("-m leae", *options, folder=workplace)
    with open("output") as output:
        pattern = ".faces-1200-32.*.tmp/.train.npy.*.tmp"
        wait_until(lambda: any(file.stat().st_size > 50_000 for file in PREPARED.glob(pattern)))
        send(child, number)
        said = output.read()  # to its end: all that have it open have ended
    assert processes.wait(child) == status
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("prepare: interrupted")
    assert what_is_prepared() == []


def test_signals_wait_and_reach_whom_they_were_for():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with prepare.signals_held(signal.SIGCHLD):
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == []
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_that_reads_leaves_a_signal_of_its_own_alone(processes, workplace):
    child = processes.start("-m leae", "prepare", "digits", "--image-size", 512, folder=workplace)
    tasks = Path(f"/proc/{child}/task/{child}/children")
    wait_until(lambda: len(tasks.read_text().split()) >= min(prepare.CORES, 2))
    wait_until(lambda: any(file.stat().st_size > 2**23 for file in PREPARED.glob(".digits-512.*.tmp/.train.npy.*.tmp")))
    os.kill(child, signal.SIGSTOP)  # so that those that read wait while they write what they have read
    time.sleep(1)
    for reader in tasks.read_text().split():
        os.kill(int(reader), signal.SIGTERM)
    os.kill(child, signal.SIGCONT)
    assert processes.wait(child) == 0
    assert count_of(open_dataset("digits", 512)) == 1797


def test_a_reading_process_that_is_killed_makes_one_line(workplace, monkeypatch):
    here = os.getpid()

    def killing(*arguments):
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(sources.faces, "render_face", killing)
    with pytest.raises(UsageError, match="killed"):
        open_dataset("faces", 16, 1000)
    assert what_is_prepared() == []


def test_a_disk_that_fills_makes_one_line_and_leaves_nothing(processes, workplace):
    options = ("prepare", "faces", "--faces", 40, "--image-size", 32)
    assert processes.run("-m leae", *options, folder=workplace, bytes_of_a_file=50_000) == 2
    said = Path("output").read_text()
    assert re.search("prepare: data/prepared/.*train.npy.*: File too large", said)
    assert "Traceback" not in said
    assert what_is_prepared() == []


def test_what_is_prepared_is_used_from_a_read_only_place_and_nothing_else_can_be_prepared_there(processes, workplace):
    open_dataset("faces", 16, 10)
    folders = [PREPARED / "faces-10-16", PREPARED, Path("data")]
    for folder in folders:
        folder.chmod(0o500)
    denied = r"prepare: data/prepared/\.faces-11-16\.\w{8}\.tmp: Permission denied"
    for count, status, says in ((10, 0, "rendered faces: 10 train"), (11, 2, denied)):
        options = ("prepare", "faces", "--image-size", 16, "--faces", count)
        assert processes.run("-m leae", *options, folder=workplace) == status
        assert re.search(says, Path("output").read_text())
    for folder in folders:
        folder.chmod(0o700)


@pytest.mark.soak
def test_kills_while_images_are_read_in_parallel_leave_nothing_half_done(processes, workplace):
    write_folder(workplace / "pictures", 3000)
    draw, killed = random.Random(0), 0
    while killed < 20:
        child = processes.start("-m leae", "prepare", "pictures", "--image-size", 32, folder=workplace)
        time.sleep(draw.uniform(0.2, 2.5))
        if processes.stop(child, signal.SIGKILL) == 0:  # too late: it was through
            shutil.rmtree(PREPARED)
        else:
            killed += 1
    assert processes.run("-m leae", "prepare", "pictures", "--image-size", 32, folder=workplace) == 0
    dataset = open_dataset("pictures", 32)
    assert sum(map(len, dataset.images.values())) == 3000
    assert not list(PREPARED.glob(".*.tmp"))


def test_a_folder_that_has_changed_leaves_what_runs_were_trained_on(workplace):
    write_folder(workplace / "pictures", 20)
    before = open_dataset("pictures", 16)
    write_image(workplace / "pictures" / "new.png", 99)
    after = open_dataset("pictures", 16)
    assert (count_of(before), count_of(after)) == (20, 21)
    assert count_of(open_dataset("pictures", 16, identity=before.identity)) == 20
    assert open_dataset("pictures", 16).identity == after.identity


def test_a_pipe_that_is_said_to_be_verified_is_not_waited_for(workplace):
    open_dataset("faces", 16, 10)
    folder = PREPARED / "faces-10-16"
    checksums = json.loads((folder / "manifest.json").read_text())["checksums"]
    (folder / "train.npy").unlink()
    os.mkfifo(folder / "train.npy")
    states = [(folder / name).stat() for name in checksums if (folder / name).is_file()]
    verified = [checksums, [[state.st_size, state.st_mtime_ns] for state in states]]
    (folder / "verified.json").write_text(json.dumps(verified))
    with pytest.raises(UsageError, match=r"train.npy is not a regular file"):
        open_dataset("faces", 16, 10)


@pytest.mark.parametrize("name", ["manifest.json", "verified.json"])
def test_a_pipe_among_what_is_prepared_stops_nothing(workplace, name):
    identity = open_dataset("faces", 16, 10).identity
    path = PREPARED / "faces-10-16" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert open_dataset("faces", 16, 10, identity).identity == identity


def test_where_a_runs_data_are_gone_the_line_says_what_brings_them_back(workplace):
    with pytest.raises(UsageError, match=r"no data set 'mine'.*data/prepared: bring back .*, or copy it"):
        open_dataset("mine", 16, identity="0" * 64)


def forge(folder, **changes):
    """Change a manifest so that its own checksum is right again."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest.pop("checksum")
    manifest["checksums"] = {name: prepare._checksum(folder / name) for name in manifest["checksums"]}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "checksum": prepare.digest(manifest)}))


def test_of_a_prepared_folder_that_is_a_link_runs_find_what_it_was_when_its_source_has_changed(workplace):
    write_folder(workplace / "pictures", 20)
    before = open_dataset("pictures", 16)
    [folder] = PREPARED.glob("[!.]*")
    folder.symlink_to(folder.rename(workplace / "elsewhere"))
    write_image(workplace / "pictures" / "a" / "new.png", 30)
    after = open_dataset("pictures", 16)
    assert after.identity != before.identity
    assert open_dataset("pictures", 16, identity=before.identity).identity == before.identity
    for state in ("damaged", "gone"):
        folder.rename(workplace / state)
        folder.symlink_to(workplace / state)
        (folder / "train.npy").write_bytes(b"damaged")
        if state == "gone":
            (workplace / state).rename(workplace / "away")
        assert open_dataset("pictures", 16).identity == after.identity
        assert not folder.is_symlink()
        assert [path.read_bytes() for path in workplace.glob(f"{state}/train.npy")] == [b"damaged"] * (state != "gone")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT])  # the last as of a disk that went away
def test_a_file_that_the_system_refuses_is_named_and_not_left_out_for_ever(workplace, monkeypatch, number):
    write_folder(workplace / "pictures", 20)
    trouble = [True]

    def read(path, *limit):
        if trouble and path.name == "007.png":
            raise OSError(number, os.strerror(number))  # as of a read, which names no file
        return path.read_bytes()

    monkeypatch.setattr("leae.data.sources.read_bytes", read)
    with pytest.raises(OSError, match=os.strerror(number)) as refusal:
        open_dataset("pictures", 16)
    assert refusal.value.filename == "pictures/a/007.png"
    assert not [*PREPARED.glob("[!.]*")]
    trouble.clear()
    assert count_of(open_dataset("pictures", 16)) == 20


def test_what_a_killed_process_has_left_is_cleared_and_what_is_another_set_s_is_not(workplace):
    left, other = (PREPARED / f".{name}.1a2b3c4d.tmp" for name in ("digits-16", "digits-16-other"))
    for folder in (left, other):
        (folder / "there").mkdir(parents=True)
    open_dataset("digits", 16)
    assert (left.exists(), other.exists()) == (False, True)


def test_a_manifest_that_does_not_list_its_files_is_none(workplace):
    identity = open_dataset("digits", 16).identity
    folder = PREPARED / "digits-16"
    manifest = json.loads((folder / "manifest.json").read_text())
    labels = folder / "train-classes.npy"
    labels.unlink()
    os.mkfifo(labels)  # which would be waited for
    forge(folder, checksums={name: 0 for name in manifest["checksums"] if name != labels.name})
    assert open_dataset("digits", 16).identity == identity
    forge(folder, splits=["train"])
    assert sorted(open_dataset("digits", 16).images) == ["test", "train"]


@pytest.mark.parametrize(
    "labels", [None, np.zeros(9, int), np.full(1618, 10), np.full(1618, -1), np.zeros(1618), np.zeros((1618, 10), bool)]
)
def test_labels_that_do_not_fit_the_images_are_one_line(workplace, labels):
    open_dataset("digits", 16)
    folder = PREPARED / "digits-16"
    path = folder / "train-classes.npy"
    path.write_bytes(b"none") if labels is None else np.save(path, labels)
    forge(folder)
    with pytest.raises(UsageError, match=f"^{path} "):
        open_dataset("digits", 16)


def test_other_names_of_a_persons_classes_are_other_data_and_older_runs_find_theirs(workplace):
    labels, images = np.arange(40) % 2, np.arange(40, dtype=np.uint8)[:, None, None] + np.zeros((16, 16), np.uint8)
    datasets = []
    for names in (["cat", "dog"], ["dog", "cat"]):
        np.savez("own.npz", images=images, labels=labels, names=names)
        datasets.append(open_dataset("own.npz", 16))
    for dataset in datasets:
        assert open_dataset("own.npz", 16, identity=dataset.identity).class_names == dataset.class_names
    checksums = json.loads(next(PREPARED.glob("*/manifest.json")).read_text())["checksums"]
    checksums.pop("class-names.json")
    shutil.rmtree(PREPARED)
    older = prepare.digest(checksums)  # an identity without names
    assert open_dataset("own.npz", 16, identity=older).class_names == ("dog", "cat")
