"""Grey folders, small images and arrays: what anybody brings, and what is done to the files shown to its runs."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import leae
from leae.analysis.embed import read_for
from leae.analysis.trained import open_runs
from leae.data.folders import split_names
from leae.data.images import with_channels
from leae.data.prepare import open_dataset
from leae.data.small_sets import fit, load_digits
from leae.data.sources import channels_of, read_images
from leae.errors import UsageError
from leae.files import digest
from tests.conftest import CPU, SHORT, SMALL, run_leae, run_script
from tests.data.conftest import count_of, write_celeba

DRAWS = np.random.default_rng(0)
PIXELS = DRAWS.integers(0, 256, (40, 16, 16, 3), np.uint8)
LABELS = np.arange(40) // 10 * 5  # 0, 5, 10, 15, in this order


def write_grey(place, count=30, size=(16, 16), **options):
    place.mkdir(exist_ok=True)
    images = DRAWS.integers(0, 256, (count, *size), np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(place / f"{number:03d}.png", **options)
    return images


def all_images(dataset):
    return np.concatenate([np.asarray(images) for images in dataset.images.values()])


def sorted_bytes(images):
    return sorted(image.tobytes() for image in images)


def test_a_folder_of_grey_images_has_one_channel_as_it_says_and_one_with_a_colour_three(workplace, capsys):
    images = write_grey(workplace / "pictures")
    (workplace / "pictures" / "broken.png").write_bytes(b"none")
    dataset = open_dataset("pictures", 16)
    assert all_images(dataset).shape == (30, 16, 16, 1)
    assert sorted_bytes(all_images(dataset)) == sorted_bytes(images)
    assert re.search("^pictures/: no classes, .* to test, grey: 1 channel$", capsys.readouterr().out, re.M)
    Image.new("RGB", (16, 16), (200, 30, 40)).save("pictures/colour.png")
    assert (channels_of("pictures"), all_images(open_dataset("pictures", 16)).shape) == (3, (31, 16, 16, 3))
    assert re.search("^pictures/: .*, in colour: 3 channels$", capsys.readouterr().out, re.M)


def test_colours_count_whatever_texts_stand_before_them_and_a_file_that_is_too_long_does_not(workplace, monkeypatch):
    Image.new("L", (16, 16)).save("grey.png")
    texts = PngInfo()
    texts.add_text("parameters", "x" * 2_000_000, zip=True)  # more than Pillow reads
    Image.new("RGB", (16, 16), (200, 30, 40)).save("colour.png", pnginfo=texts)
    assert channels_of(".") == 3
    monkeypatch.setattr("leae.data.images.MAX_BYTES", 1000)
    Path("colour.png").write_bytes(Path("colour.png").read_bytes() + bytes(1000))
    assert channels_of(".") == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_of_every_mode_is_grey_and_a_palette_is_not(workplace, mode):
    for number in range(3):
        Image.new(mode, (16, 16)).save(workplace / f"{number}.png")
    assert channels_of(".") == 1
    Image.new("P", (16, 16)).save("palette.png")
    assert channels_of(".") == 3


@pytest.mark.parametrize("name", ["pictures", "pictures.npy", "digits"])
def test_the_number_of_channels_can_be_asked_for(workplace, name):
    if name == "pictures":
        (workplace / name).mkdir()
        for number, image in enumerate(PIXELS):
            Image.fromarray(image).save(workplace / name / f"{number}.png")
    np.save("pictures.npy", PIXELS)
    native = open_dataset(name, 16)
    grey, colour = (all_images(open_dataset(name, 16, channels=channels)) for channels in (1, 3))
    own = all_images(native)
    if own.shape[3] == 3:
        assert sorted_bytes(colour) == sorted_bytes(own)
        assert np.abs(colour @ (0.299, 0.587, 0.114) - grey[..., 0]).max() <= 1
    else:
        assert sorted_bytes(grey) == sorted_bytes(own)
        assert np.array_equal(colour, own.repeat(3, axis=3))
    with pytest.raises(UsageError, match="channels is 2"):
        channels_of(name, 2)


def test_small_images_are_left_out_with_a_line_that_says_how_to_take_them_or_taken(workplace, monkeypatch, capsys):
    write_grey(workplace / "pictures", 60)
    Image.new("RGB", (40, 9), (200, 30, 40)).save("pictures/small.png")
    (workplace / "pictures" / "broken.png").write_bytes(b"none")
    assert count_of(open_dataset("pictures", 16)) == 60
    assert re.search("2 of 62 images cannot be used.*; 1 of them .*--upscale", capsys.readouterr().err)
    run_leae(monkeypatch, "prepare", "pictures", "--image-size", "16", "--upscale")
    assert "1 of 62 images cannot be used" in capsys.readouterr().err
    upscaled = all_images(open_dataset("pictures", 16, upscale=True))
    assert [200, 30, 40] in upscaled.mean(axis=(1, 2)).round().astype(int).tolist()
    assert count_of(open_dataset("pictures", 16)) == 60  # both are still prepared
    write_celeba(workplace / "in CelebA's layout", size=(20, 20))
    with pytest.raises(UsageError, match=r"no train image.*--upscale"):
        open_dataset("in CelebA's layout", 32)
    assert all_images(open_dataset("in CelebA's layout", 32, upscale=True)).shape[1:] == (32, 32, 3)
    with pytest.raises(UsageError, match=r"no train image.*--upscale"):
        open_dataset("pictures", 64)


def test_arrays_are_images_of_which_a_tenth_is_held_out(workplace):
    floats = {"float32": (PIXELS / 255).astype(np.float32), "float16": (PIXELS / 255).astype(np.float16)}
    for name, array in {"uint8": PIXELS, "float64": PIXELS / 255, **floats}.items():
        np.save(f"{name}.npy", array)
        dataset = open_dataset(f"{name}.npy", 16)
        for split, items in split_names(map(str, range(40))).items():
            expected = PIXELS[[*map(int, sorted(items, key=digest))]]
            assert np.array_equal(np.asarray(dataset.images[split]), expected), name
    np.savez("grey.npz", images=PIXELS[..., 0])
    np.savez_compressed("one.npz", images=PIXELS[..., :1])
    assert np.array_equal(all_images(open_dataset("grey.npz", 16)), all_images(open_dataset("one.npz", 16)))
    assert channels_of("grey.npz") == 1


def test_an_array_of_halves_is_rounded_as_one_of_floats(workplace):
    halves = DRAWS.random((40, 16, 16, 3)).astype("f2")
    for kind in ("f2", "f4"):
        np.save(f"{kind}.npy", halves.astype(kind))
    two, four = (all_images(open_dataset(f"{kind}.npy", 16)) for kind in ("f2", "f4"))
    assert np.array_equal(two, four)


def test_bytes_of_zeros_and_ones_are_no_levels_of_grey(workplace):
    np.save("own.npy", PIXELS // 128)
    with pytest.raises(UsageError, match=r"uint8 .* from 0 to 1'; it must be uint8 above 1, or"):
        open_dataset("own.npy", 16)


def test_names_that_are_no_text_are_one_line(workplace):
    names = np.array(["aa", "bb"])
    names.view("u4")[0] = 2**32 - 1
    np.savez("own.npz", images=PIXELS, labels=np.arange(40) % 2, names=names)
    with pytest.raises(UsageError, match=r"names.*own\.npz"):
        open_dataset("own.npz", 16)


def test_arrays_that_nobody_asked_for_are_not_read_and_a_bomb_is_refused(workplace, monkeypatch):
    np.savez("own.npz", images=PIXELS, junk=np.array([None, {}]))  # which are never unpickled
    assert all_images(open_dataset("own.npz", 16)).shape == (40, 16, 16, 3)
    np.savez_compressed("own.npz", images=np.zeros((400, 32, 32)), labels=np.zeros(2**17), junk=np.zeros(2**20))
    monkeypatch.setattr("leae.files.MAX_UNPACKED", 2**22)  # either array alone is smaller
    with pytest.raises(UsageError, match=r"own\.npz.*its arrays would be 4,325,\d{3} bytes"):
        open_dataset("own.npz", 16)


def test_an_array_of_single_pixels_has_their_colours(workplace):
    for name, pixels in (("grey", PIXELS[:, :1, :1, 0]), ("colour", PIXELS[:, :1, :1])):
        np.save(f"{name}.npy", pixels)
        images = np.concatenate([np.asarray(of) for of in open_dataset(f"{name}.npy", 8, upscale=True).images.values()])
        assert (images == images[:, :1, :1]).all()
        assert sorted(images[:, 0, 0].tolist()) == sorted(pixels.reshape(40, -1).tolist())


def test_labels_that_are_not_wanted_are_not_read(workplace):
    np.savez("own.npz", images=PIXELS, labels=np.full(40, "a"))
    assert open_dataset("own.npz", 16, classes=False).class_names == ()


def test_what_has_a_long_name_is_prepared_under_a_shorter_one(workplace):
    folder, file = Path("ä" * 125), Path(f"{'b' * 248}.npy")
    write_grey(folder, 20, (16, 16))
    np.save(file, PIXELS)
    for path in (folder, file):
        identity = open_dataset(str(path), 16).identity
        assert open_dataset(str(path), 16, identity=identity).identity == identity


def test_names_of_no_labels_say_nothing(workplace):
    np.savez("own.npz", images=PIXELS, names=np.array([]))
    assert open_dataset("own.npz", 16).class_names == ()


def test_a_name_of_a_class_has_a_limit(workplace):
    np.savez("own.npz", images=PIXELS, labels=np.zeros(40, int), names=np.array(["b" * 2001]))
    with pytest.raises(UsageError, match=r"a name has 2,001 letters, bbb.*at most 2,000"):
        open_dataset("own.npz", 16)


def test_names_of_classes_can_be_written_anywhere(workplace):
    np.savez("own.npz", images=PIXELS, labels=np.zeros(40, int), names=np.array(["b\ud800"]))
    assert open_dataset("own.npz", 16).class_names == ("b\\ud800",)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (None, ["0", "5", "10", "15"]),
        ([*"abcdefghijklmnop"], [*"afkp"]),
        ([letter.encode() for letter in "äbcdefghijklmnop"], [*"äfkp"]),
    ],
)
def test_labels_beside_arrays_are_classes_by_number_or_name(workplace, names, shown):
    np.savez("own.npz", images=PIXELS, labels=LABELS, **({"names": np.array(names)} if names else {}))
    dataset = open_dataset("own.npz", 16)
    assert list(dataset.class_names) == shown
    of_image = {image.tobytes(): shown[label // 5] for image, label in zip(PIXELS, LABELS, strict=True)}
    for split, images in dataset.images.items():
        found = [dataset.class_names[label] for label in dataset.classes[split]]
        assert found == [of_image[image.tobytes()] for image in images]
    assert set(dataset.classes["train"][:20].tolist()) == {0, 1, 2, 3}  # the first images are of all
    assert open_dataset("own.npz", 16, classes=False).classes == {}
    assert all_images(open_dataset("own.npz", 32, upscale=True)).shape == (40, 32, 32, 3)


def with_value(value):
    array = PIXELS / 255
    array[3, 4, 5, 1] = value
    return {"images": array}


FAULTS = {  # arrays, and what the line names
    "whole numbers": ({"images": PIXELS.astype(np.uint16)}, r"uint16 \[40, 16, 16, 3\] from 0 to 255"),
    "texts": ({"images": np.full((9, 16, 16), "a")}, r"U1 \[9, 16, 16\]"),
    "channels first": ({"images": PIXELS.transpose(0, 3, 1, 2)}, r"uint8 \[40, 3, 16, 16\].*\[N, S, S, C\]"),
    "four channels": ({"images": np.zeros((9, 16, 16, 4), np.uint8)}, r"\[9, 16, 16, 4\]"),
    "not square": ({"images": PIXELS[:, :9]}, r"\[40, 9, 16, 3\]"),
    "one image": ({"images": PIXELS[0, :, :, 0]}, r"\[16, 16\]"),
    "none": ({"images": PIXELS[:0]}, r"\[0, 16, 16, 3\]"),
    "not a number": (with_value(np.nan), "float64.*from nan to nan.*from 0 to 1"),
    "above 1": (with_value(1.01), r"from 0 to 1\.01.*from 0 to 1"),
    "below 0": (with_value(-0.5), r"from -0\.5 to 1.*from 0 to 1"),
    "infinite": (with_value(np.inf), "to inf.*from 0 to 1"),
    "another name": ({"pictures": PIXELS}, "own.npz has no `images`"),
    "a single number": ({"images": np.uint8(3)}, r"uint8 \[1\]"),
    "a single name": ({"images": PIXELS, "labels": LABELS, "names": 7}, "`labels`.*from 0 to 15.* 1 `names`"),
    "names of several numbers": (
        {"images": PIXELS, "labels": LABELS, "names": np.zeros(16, [("a", "i4", (2,))])},
        r"`names` of own.npz is.*\[16\].*texts",
    ),
    "more images than memory is for": (
        {"images": np.zeros((2**22 + 1, 1, 1), np.uint8)},
        r"the number of `images` of own.npz is 4194305.*4,194,304",
    ),
    "objects": ({"images": np.array([None, {}])}, "own.npz is no .npy or"),
    "too few labels": ({"images": PIXELS, "labels": LABELS[1:]}, r"`labels`.*\[39\].*\[40\]"),
    "labels of halves": ({"images": PIXELS, "labels": LABELS / 2}, "`labels`.*float64.*whole"),
    "labels beyond the names": (
        {"images": PIXELS, "labels": LABELS, "names": np.array(["a"])},
        "`labels`.*from 0 to 15.* 1 `names`",
    ),
    "two classes of one name": (
        {"images": PIXELS, "labels": LABELS, "names": np.array([*"abcdefghijklmnoa"])},
        "`labels`.*no two of which are the same",
    ),
    "smaller than asked for": ({"images": PIXELS[:, :12, :12]}, "image_size is 16.*12.*UPSCALE"),
}


@pytest.mark.parametrize(("arrays", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_arrays_is_one_line(workplace, arrays, says):
    np.savez("own.npz", **arrays)
    with pytest.raises(UsageError, match=says) as refusal:
        open_dataset("own.npz", 16)
    assert "\n" not in str(refusal.value)
    assert not (workplace / "data" / "prepared").exists()


@pytest.mark.parametrize("name", ["own.npy", "own.npz"])
@pytest.mark.parametrize("content", [b"", b"none", b"PK\3\4none", b"\x93NUMPY\1\0\x10\0{'descr': '|u1', "])
def test_what_is_no_array_is_one_line(workplace, name, content):
    (workplace / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} is no .npy or"):
        open_dataset(name, 16)
    (workplace / name).unlink()
    os.mkfifo(name)  # which never ends
    with pytest.raises(UsageError, match="there is no data set"):
        open_dataset(name, 16)


def test_texts_without_a_byte_are_refused_as_there_may_be_any_number_of_them(workplace):
    np.savez("own.npz", images=PIXELS, labels=LABELS)
    with zipfile.ZipFile("own.npz", "a") as archive, archive.open("names.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<U0", "fortran_order": False, "shape": (10**6,)})
    with pytest.raises(UsageError, match=r"own.npz is no .npy or .*no bytes"):
        open_dataset("own.npz", 16)


def test_sizes_in_an_archive_that_are_more_than_the_files_are_not_believed(workplace, monkeypatch):
    monkeypatch.setattr("leae.files.MAX_UNPACKED", 2**20)
    with zipfile.ZipFile("own.npz", "w", zipfile.ZIP_DEFLATED) as archive, open("images.npy", "wb") as file:
        np.save(file, np.zeros((4000, 32, 32), np.uint8))
        file.flush()
        archive.write("images.npy")
        archive.filelist[0].compress_size = 2**22
    with pytest.raises(UsageError, match=r"own.npz.*its arrays would be 4,096,128 bytes"):
        open_dataset("own.npz", 16)


def test_more_than_memory_holds_is_said_of_the_file(workplace):
    with open("own.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 16, 16)})
    with pytest.raises(MemoryError, match=r"^own.npy: "):
        open_dataset("own.npy", 16)


def test_files_shown_to_a_run_are_treated_as_its_own_images_were(workplace, monkeypatch, capsys):
    write_grey(workplace / "pictures", 80, (12, 12))
    short = [*SHORT, *SMALL, "--dataset", "pictures", "--max-steps", "2", "--upscale"]
    run_script(monkeypatch, "main.py", *short)
    assert "16×16 pixels, grey" in capsys.readouterr().out
    run_script(monkeypatch, "main.py", "--resume", "runs/self-teaching-001")
    [run] = open_runs(["runs/self-teaching-001"], "100", CPU)
    dataset = run.open_data()
    assert dataset.images["train"].shape[1:] == run.model.image_shape[1:] + run.model.image_shape[:1] == (16, 16, 1)
    names = sorted(split_names(f"{number:03d}.png" for number in range(80))["test"], key=digest)
    shown = read_for(run.model, workplace / "pictures", names, run.settings.get("UPSCALE", False))
    assert np.array_equal(np.stack(shown), np.asarray(dataset.images["test"]))
    run_leae(monkeypatch, "embed", run.folder.as_posix(), "pictures", "--output", "codes.npz")
    assert len(np.load("codes.npz")["codes"]) == len(leae.embed(run.model, "pictures", upscale=True)) == 80
    run_leae(monkeypatch, "score", run.folder.as_posix(), "pictures")
    assert "80 images, 0 that cannot be used" in capsys.readouterr().out


@pytest.mark.parametrize("size", [16, 40, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_scaled_alike_in_arrays_and_in_files(tmp_path, size, channels):
    for side in (28, 40, 120):
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, channels), dtype=np.uint8)
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "own.png")
        [read] = read_images(tmp_path, size, ["own.png"], upscale=True)
        assert np.array_equal(with_channels(read, channels), fit(pixels, size))


def test_a_run_on_a_small_set_that_is_scaled_up_takes_its_files(workplace, monkeypatch, capsys):
    digits = load_digits(workplace).images["test"][:5, ..., 0]
    (workplace / "digits").mkdir()
    for number, image in enumerate(digits):
        Image.fromarray(image).save(f"digits/{number}.png")
    run_script(monkeypatch, "main.py", *SHORT, *SMALL, "--dataset", "digits", "--max-steps", "2")
    run_leae(monkeypatch, "score", "runs/self-teaching-001", "digits")
    assert "5 images, 0 that cannot be used" in capsys.readouterr().out


def test_a_run_on_arrays_is_given_grey_files(workplace, monkeypatch):
    np.savez("own.npz", images=PIXELS[..., 0] / 255, labels=LABELS)
    run_script(monkeypatch, "main_regular.py", *SHORT, *SMALL, "--dataset", "own.npz", "--max-steps", "2")
    (workplace / "files").mkdir()
    for number, image in enumerate(PIXELS[:5]):
        Image.fromarray(image[..., 0]).convert("RGB").save(workplace / "files" / f"{number}.png")
    [run] = open_runs(["runs/masked-001"], "100", CPU)
    assert run.model.image_shape == (1, 16, 16)
    np.testing.assert_array_equal(leae.embed(run.model, "files"), leae.embed(run.model, PIXELS[:5, ..., :1]))
