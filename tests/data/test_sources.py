"""What a data set's name means, and how its images are found and split."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from leae.data.faces import ATTRIBUTES, render_face
from leae.data.folders import split_names
from leae.data.prepare import open_dataset
from leae.data.sources import FIRST_TEST_FACE, channels_of
from leae.errors import UsageError
from tests.conftest import write_image
from tests.data.conftest import SPLITS, assert_celeba, count_of, numbers_of, write_celeba, write_folder


def test_a_folder_is_searched_recursively_and_split_by_its_names(workplace):
    write_folder(workplace / "pictures", 60)
    numbers = numbers_of(open_dataset("pictures", 16))
    assert sorted(numbers["train"] + numbers["test"]) == list(range(60))
    names = [path.relative_to("pictures").as_posix() for path in Path("pictures").rglob("*.png")]
    for split, expected in split_names(names).items():
        assert sorted(numbers[split]) == sorted(int(name[-7:-4]) for name in expected)


def test_a_name_alone_decides_whether_it_is_tested_on_one_in_ten_is():
    names = [f"{number}.png" for number in range(10_000)]
    splits = {split: set(members) for split, members in split_names(names).items()}
    assert abs(len(splits["test"]) - 1000) < 120  # four standard errors
    for some in (names[:500], names[::2], names[::-1]):
        for split, members in split_names(some).items():
            assert set(members) == splits[split] & set(some)


def test_of_two_images_or_more_one_is_in_each_split_and_it_does_not_change_with_their_order():
    names = [f"{number}.png" for number in range(300)]
    splits = split_names(names)
    for some in (splits["train"][:2], splits["test"][:2], splits["train"][:40], splits["test"][:20]):
        train, test = split_names(some).values()
        assert min(len(train), len(test)) == 1
        assert sorted(train + test) == sorted(some)
        assert split_names(some[::-1]) == {"train": train, "test": test}


def test_a_folder_with_the_name_of_a_data_set_is_known_by_its_path(workplace):
    write_folder(workplace / "digits", 20)
    for name in ("./digits", "digits/"):
        dataset = open_dataset(name, 16)
        assert (dataset.name, count_of(dataset), channels_of(dataset.name)) == (name, 20, 3)
    assert channels_of("digits") == 1


def test_a_broken_zip_beside_images_is_passed_over(workplace):
    write_folder(workplace / "pictures", 10)
    write_celeba(workplace / "mirrored", "mirror")
    with zipfile.ZipFile(workplace / "pictures" / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "some")
    content = bytearray((workplace / "pictures" / "a.zip").read_bytes())
    content[content.index(b"PK\1\2")] = 0  # its table of contents
    for name, count in (("pictures", 10), ("mirrored", 20)):
        (workplace / name / "a.zip").write_bytes(content)
        assert count_of(open_dataset(name, 16)) == count


def test_every_kind_of_image_file_counts_those_of_linked_folders_too_but_links_that_loop_or_lead_nowhere(workplace):
    pictures = workplace / "pictures"
    for number, suffix in enumerate((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".JPG")):
        write_image(pictures / f"{number}{suffix}", number)
    write_image(pictures / ".cache" / "hidden.png", 1)
    write_image(workplace / "elsewhere.png", 99)
    write_image(workplace / "linked" / "c.png", 50)
    links = {"a.png": "a.png", "b.png": "none", "up": pictures, "d.png": "../elsewhere.png", "linked": "../linked"}
    for name, target in links.items():
        (pictures / name).symlink_to(target)
    numbers = numbers_of(open_dataset("pictures", 16))
    assert sorted(numbers["train"] + numbers["test"]) == [0, 1, 2, 3, 4, 5, 50, 99]


def test_a_sub_folder_that_cannot_be_read_is_named(processes, workplace):
    write_folder(workplace / "pictures", 10)
    (workplace / "pictures" / "private").mkdir(mode=0)
    assert processes.run("-m leae", "prepare", "pictures", "--image-size", 16, folder=workplace) == 2
    assert "pictures/private: Permission denied" in (workplace / "output").read_text()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_to_split_are_refused_and_nothing_is_written(workplace, count):
    (workplace / "pictures").mkdir()
    write_folder(workplace / "pictures", count)
    with pytest.raises(UsageError, match="pictures"):
        open_dataset("pictures", 16)
    assert not (workplace / "data").exists()


def test_rendered_faces_come_with_their_attributes_and_the_same_are_tested_on_however_many_there_are(workplace):
    dataset = open_dataset("faces", 32, face_count=30)
    assert dataset.attribute_names == ATTRIBUTES
    assert (len(dataset.images["train"]), len(dataset.images["test"])) == (30, 15)
    image, attributes = render_face(0, FIRST_TEST_FACE + 1, 32)
    assert np.array_equal(dataset.images["test"][1], image)
    assert np.array_equal(dataset.attributes["test"][1], attributes)
    assert np.array_equal(open_dataset("faces", 32, face_count=20).images["test"], dataset.images["test"][:10])


def test_auto_means_celeba_if_it_is_there_and_otherwise_says_how_to_fetch_it(workplace, capsys):
    assert open_dataset("auto", 32, face_count=10).name == "faces"
    assert "leae prepare celeba" in capsys.readouterr().out
    write_celeba(workplace / "data" / "celeba")
    assert open_dataset("auto", 32).name == "celeba"


@pytest.mark.parametrize(("layout", "kind"), [("folder", "txt"), ("nested", "csv"), ("zip", "txt"), ("mirror", "csv")])
def test_celeba_is_read_from_every_layout_with_splits_and_attributes(workplace, layout, kind):
    write_celeba(workplace / "data" / "celeba", layout, kind)
    dataset = open_dataset("celeba", 128)
    assert_celeba(dataset)
    assert dataset.validation_split == "valid"
    unpacked = list((workplace / "data").rglob("*.jpg"))
    assert len(unpacked) == (0 if layout in ("zip", "mirror") else 20)


def test_celebas_image_folder_by_itself_is_a_plain_one(workplace):
    write_celeba(workplace / "photos")
    assert set(open_dataset("photos", 64).images) == {"train", "valid", "test"}
    assert open_dataset("photos/img_align_celeba", 64).validation_split == "test"


def test_celeba_is_not_scaled_up(workplace):
    write_celeba(workplace / "data" / "celeba")
    with pytest.raises(UsageError, match=r"image_size is 136.* 128"):
        open_dataset("celeba", 136)


def test_images_of_celeba_are_cut_alike_wherever_they_lie(workplace):
    write_celeba(workplace / "photos")
    of_layout, of_folder = (open_dataset(place, 64) for place in ("photos", "photos/img_align_celeba"))
    pixels = [np.concatenate([*map(np.asarray, data.images.values())]) for data in (of_layout, of_folder)]
    assert sorted(map(bytes, pixels[0])) == sorted(map(bytes, pixels[1]))


def test_what_lacks_of_celeba_is_named_but_attributes_may_be_left_out(workplace):
    root = workplace / "data" / "celeba"
    with pytest.raises(UsageError, match=r"data.celeba.*prepare celeba.*img_align_celeba.zip.*list_eval_partition"):
        open_dataset("celeba", 64)
    write_celeba(root)
    (root / "list_attr_celeba.txt").unlink()
    dataset = open_dataset("celeba", 64)
    assert numbers_of(dataset) == {split: list(numbers) for split, numbers in SPLITS.items()}
    assert dataset.attributes == {}
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(UsageError, match=r"data.celeba .*list_eval_partition.txt"):
        open_dataset("celeba", 64)
    shutil.rmtree(root / "img_align_celeba")
    (root / "img_align_celeba").mkdir()
    with pytest.raises(UsageError, match=r"data.celeba .*img_align_celeba.zip"):
        open_dataset("celeba", 64)
