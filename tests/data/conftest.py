"""What the tests of data share: folders of images, and a small CelebA in every layout."""

import shutil
import zipfile

from tests.conftest import number_of, write_image

SPLITS = {"train": range(12), "valid": range(12, 15), "test": range(15, 20)}
NAMES = ("Smiling", "Eyeglasses")


def write_folder(root, count, **options):
    for number in range(count):
        write_image(root / ("a" if number % 2 else "b/c") / f"{number:03d}.png", number, **options)


def count_of(dataset):
    return sum(map(len, dataset.images.values()))


def numbers_of(dataset):
    return {split: [number_of(image) for image in images] for split, images in dataset.images.items()}


def attributes_of(number):
    return [number % 2 == 0, number % 3 == 0]


def assert_celeba(dataset):
    """It is the small CelebA with its splits and attributes."""
    assert dataset.attribute_names == NAMES
    assert numbers_of(dataset) == {split: list(numbers) for split, numbers in SPLITS.items()}
    for split, numbers in SPLITS.items():
        assert dataset.attributes[split].tolist() == [attributes_of(number) for number in numbers]


def celeba_lists(kind="txt"):
    splits = [(f"{number:06d}.jpg", str(code)) for code, split in enumerate(SPLITS) for number in SPLITS[split]]
    signs = [(f"{n:06d}.jpg", *("1" if value else "-1" for value in attributes_of(n))) for n in range(20)]
    if kind == "txt":
        between, end, partition, attributes = "  ", "\n", splits, [("20",), NAMES, *signs]
    else:
        between, end = ",", "\r\n"
        partition, attributes = [("image_id", "partition"), *splits], [("image_id", *NAMES), *signs]
    lists = {f"list_eval_partition.{kind}": partition, f"list_attr_celeba.{kind}": attributes}
    return {name: "".join(between.join(row) + end for row in rows) for name, rows in lists.items()}


def write_celeba(root, layout="folder", kind="txt", size=(178, 218)):
    """A small CelebA: the official "zip" or "folder", a mirror's archive ("mirror") or what is in it ("nested")."""
    folder = "img_align_celeba/img_align_celeba" if layout in ("nested", "mirror") else "img_align_celeba"
    for number in range(20):
        write_image(root / folder / f"{number:06d}.jpg", number, size)
    for name, text in celeba_lists(kind).items():
        (root / name).write_text(text)
    if layout in ("zip", "mirror"):
        zipped = [*sorted((root / folder).iterdir()), *(root.glob("list_*") if layout == "mirror" else ())]
        with zipfile.ZipFile(root / ("archive.zip" if layout == "mirror" else "img_align_celeba.zip"), "w") as archive:
            for path in zipped:
                archive.write(path, path.relative_to(root))
                path.unlink()
        shutil.rmtree(root / "img_align_celeba")
    return root
