"""Folders of images by the convention of torchvision's ImageFolder, and folders that are nearly of that kind."""

from itertools import product

import numpy as np
import pytest
import torchvision.datasets

from leae.data.folders import split_names
from leae.data.prepare import open_dataset
from leae.data.sources import find_source
from leae.errors import UsageError
from tests.conftest import run_leae, write_image
from tests.data.conftest import count_of, numbers_of

CLASSES = ["bee", "cat é", "dog"]


def write_images(root, *folders, each=4):
    """So many images in each folder, of another number each: the folder that a number lies in."""
    places = {number: folder for number, (folder, _) in enumerate(product(folders, range(each)))}
    for number, folder in places.items():
        write_image(root / folder / f"{number:03d}.png", number)
    return places


def labels_of(dataset):
    """By split, the number and the class of every image."""
    numbers = numbers_of(dataset)
    named = {split: [dataset.class_names[label] for label in labels] for split, labels in dataset.classes.items()}
    return {split: dict(zip(numbers[split], named[split], strict=True)) for split in numbers}


@pytest.mark.parametrize("valid", [None, "val", "valid", "validation"])
def test_splits_and_classes_are_those_that_torchvision_reads(workplace, capsys, valid):
    folders = {"train": "train", "test": "test"} | ({"valid": valid} if valid else {})
    write_images(workplace / "pictures", *(f"{of}/{name}" for of in folders.values() for name in CLASSES))
    dataset = open_dataset("pictures", 16)
    assert set(dataset.images) == set(folders)
    assert dataset.validation_split == ("valid" if valid else "test")
    for split, found in labels_of(dataset).items():
        theirs = torchvision.datasets.ImageFolder(workplace / "pictures" / folders[split])
        assert found == {int(path[-7:-4]): theirs.classes[label] for path, label in theirs.samples}
        assert dataset.classes[split].dtype == np.int64
    said = capsys.readouterr().out.splitlines()
    counts = "12 to train on, 12 to validate, 12 to test" if valid else "12 to train on, 12 to test"
    assert f"pictures/: 3 classes, {counts}, in colour: 3 channels" in said


@pytest.mark.parametrize("beside", ["docs/logo.png", "preview.png"])
def test_splits_that_lie_deeper_beside_other_images_are_none_and_a_line_says_so(workplace, capsys, beside):
    write_images(workplace / "pictures", *(f"ds/{split}/{name}" for split in ("train", "test") for name in "ab"))
    open_dataset("pictures", 16)
    assert "pictures/ds/: 2 classes, 8 to train on, 8 to test" in capsys.readouterr().out
    write_image(workplace / "pictures" / beside, 99)
    open_dataset("pictures", 16)
    assert "pictures/: the splits in 'ds' are not used; name such a folder" in capsys.readouterr().out


def test_without_splits_each_name_alone_decides_and_what_is_added_moves_no_other(workplace):
    places = write_images(workplace / "pictures", "bee", "cat/old", "cat/new/2020", "dog", each=25)
    first = open_dataset("pictures", 16)
    assert first.class_names == ("bee", "cat", "dog")
    names = [f"{folder}/{number:03d}.png" for number, folder in places.items()]
    for split, found in labels_of(first).items():
        expected = {int(name[-7:-4]): name.split("/")[0] for name in split_names(names)[split]}
        assert found == expected
    for number in range(100, 120):
        write_image(workplace / "pictures" / "ant" / f"{number}.png", number)
    second = labels_of(open_dataset("pictures", 16))
    assert sum(map(len, second.values())) == 120
    for split, found in labels_of(first).items():
        assert {number: name for number, name in second[split].items() if number < 100} == found


def test_the_first_images_are_of_all_classes(workplace):
    write_images(
        workplace / "pictures", *(f"{split}/{name}" for split in ("train", "test") for name in CLASSES), each=20
    )
    dataset = open_dataset("pictures", 16)
    assert all(set(labels[:15]) == {0, 1, 2} for labels in dataset.classes.values())
    plain = numbers_of(open_dataset("pictures", 16, classes=False))
    assert all({number // 20 % 3 for number in numbers[:15]} == {0, 1, 2} for numbers in plain.values())


@pytest.mark.parametrize(
    "folders",
    [
        ["all"],  # one class
        [f"person {number}" for number in range(12)],  # as many as images
        ["bee", "cat", "."],  # an image beside the classes
        ["."],
    ],
)
def test_a_folder_whose_sub_folders_are_no_classes_has_none(workplace, folders):
    places = write_images(workplace / "pictures", *folders, each=1 if len(folders) == 12 else 8)
    dataset = open_dataset("pictures", 16)
    assert (dataset.classes, dataset.class_names) == ({}, ())
    names = [f"{folder}/{number:03d}.png".removeprefix("./") for number, folder in places.items()]
    expected = {split: sorted(int(name[-7:-4]) for name in of) for split, of in split_names(names).items()}
    assert {split: sorted(of) for split, of in numbers_of(dataset).items()} == expected


def test_classes_that_are_unwanted_are_left_out_but_splits_are_kept(workplace, monkeypatch, capsys):
    write_images(workplace / "pictures", *(f"{split}/{name}" for split in ("train", "test") for name in CLASSES))
    with_classes, without = (open_dataset("pictures", 16, classes=wanted) for wanted in (True, False))
    assert without.classes == {}
    assert {split: sorted(of) for split, of in numbers_of(without).items()} == {
        split: sorted(of) for split, of in numbers_of(with_classes).items()
    }
    assert without.identity != with_classes.identity
    capsys.readouterr()
    for option, said in (("--classes", "3 classes"), ("--no-classes", "no labels")):
        run_leae(monkeypatch, "prepare", "pictures", "--image-size", "16", option)
        assert said in capsys.readouterr().out  # both are still prepared: that is all that is said
    assert len(list((workplace / "data" / "prepared").glob("[!.]*"))) == 2


def notes_of(place):
    """What is said of a folder behind the line on what was understood."""
    return [note.partition(": ")[2] for note in find_source(str(place), 16).notes[1:]]


def test_splits_without_classes_and_a_validation_split_without_a_test_split_are_taken(workplace):
    write_images(workplace / "plain", "train", "test", each=5)
    plain = open_dataset("plain", 16)
    assert {split: {*of} for split, of in numbers_of(plain).items()} == {"train": {*range(5)}, "test": {*range(5, 10)}}
    assert plain.classes == {}
    write_images(workplace / "two", "train/a", "train/b", "val/a", "val/b")
    assert {split: sorted(of) for split, of in numbers_of(open_dataset("two", 16)).items()} == {
        "train": [*range(8)],
        "test": [*range(8, 16)],
    }


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "testing"), ("train", "val"), ("archive/train", "archive/test")]
)
def test_splits_of_other_names_and_in_an_archives_own_folder_are_splits(workplace, train, test):
    places = write_images(workplace / "pictures", *(f"{split}/{name}" for split in (train, test) for name in CLASSES))
    found = labels_of(open_dataset("pictures", 16))
    tops = {"train": train, "test": test}
    assert {number: f"{tops[split]}/{name}" for split, of in found.items() for number, name in of.items()} == places


@pytest.mark.parametrize(
    ("folders", "empty", "named"),
    [
        (["train/a", "train/b", "train/c", "test/a", "test/b"], [], [["'c'", "test"]]),
        (["train/a", "train/b", "test/a", "test/b", "test/c"], [], [["'c'", "train"]]),
        (["train/a", "train/b", "test/a", "test/b"], ["train/z", "test/.git"], [["'train/z'"]]),
        (["train/a", "train/b", "test/a", "test/b"], ["test/b2/deep"], [["'test/b2'"]]),
        (["train/a", "train/b", "test/a", "test/b", "extra", "."], [], [["extra/", "3 more"]]),
        (["train/a", "train/b", "train", "test/a", "test/b"], [], [["train/0"]]),
        (["a", "b", "c"], ["z"], [["'z'"]]),
        (["a", "b", "."], [], [["'008.png'"]]),
        (["train/a", "train/b"], [], [["'train'", "test", "val"]]),
        (["test/a", "test/b"], ["train/a"], [["'test'", "train"]]),
        (["x/train/a", "x/train/b", "x/test/a", "x/test/b"], ["x/train/z"], [["'train/z'"]]),
        (["train/a", "train/b", "test/x", "test/y"], [], [["'x'", "'y'", "train"], ["'a'", "'b'", "test"]]),
        ([*(f"train/{n}" for n in range(9)), "test/0"], [], [["'1'", "'5'", "3 more", "test"]]),
    ],
)
def test_what_is_unusual_is_a_line_each_and_stops_nothing(workplace, folders, empty, named):
    write_images(workplace / "pictures", *folders)
    for folder in empty:
        (workplace / "pictures" / folder).mkdir(parents=True)
    notes = notes_of("pictures")
    for words in named:
        assert any(all(word in note for word in words) for note in notes), notes
    dataset = open_dataset("pictures", 16)
    outside = 8 if "extra" in folders else 0
    assert count_of(dataset) == 4 * len(folders) - outside


def test_the_same_image_in_train_and_test_is_counted_by_its_content(workplace, capsys):
    write_images(workplace / "pictures", "train/a", "train/b", "test/a", "test/b")
    for number in (0, 5):
        write_image(workplace / "pictures" / "test" / "a" / f"again {number}.png", number)
    open_dataset("pictures", 16)
    *_, shared = capsys.readouterr().out.splitlines()
    assert "2 of 10 test images" in shared


def test_a_damaged_image_takes_its_label_with_it(workplace):
    folders = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    places = write_images(workplace / "pictures", *folders, each=20)
    (workplace / "pictures" / "train" / "bee" / "bad.png").write_bytes(b"none")
    found = labels_of(open_dataset("pictures", 16))
    assert {number: f"{split}/{name}" for split, of in found.items() for number, name in of.items()} == places


def test_splits_of_which_one_cannot_be_used_are_refused(workplace):
    write_images(workplace / "pictures", "train/a", "train/b", each=200)
    for name in ("a", "b"):
        (workplace / "pictures" / "test" / name).mkdir(parents=True)
        (workplace / "pictures" / "test" / name / "bad.png").write_bytes(b"none")
    with pytest.raises(UsageError, match="no test image"):
        open_dataset("pictures", 16)


def test_a_class_that_is_renamed_or_an_image_that_changes_its_class_makes_another_data_set(workplace):
    write_images(workplace / "pictures", "train/a", "train/b", "test/a", "test/b", each=6)
    before = open_dataset("pictures", 16)
    (workplace / "pictures" / "train" / "a" / "000.png").rename(workplace / "pictures" / "train" / "b" / "000.png")
    after = open_dataset("pictures", 16)
    assert after.identity != before.identity
    for split in ("train", "test"):
        (workplace / "pictures" / split / "b").rename(workplace / "pictures" / split / "c")
    assert open_dataset("pictures", 16).class_names == ("a", "c")
