"""What the tests of data share: folders of images, and a small CelebA in every layout."""

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
        partition = "".join(f"{' '.join(row)}\n" for row in splits)
        attributes = f"20\n{' '.join(NAMES)} \n" + "".join(f"{'  '.join(row)}\n" for row in signs)
    else:
        partition = "".join(f"{','.join(row)}\r\n" for row in [("image_id", "partition"), *splits])
        attributes = "".join(f"{','.join(row)}\r\n" for row in [("image_id", *NAMES), *signs])
    return {f"list_eval_partition.{kind}": partition, f"list_attr_celeba.{kind}": attributes}


# The archive's name, and the folder in it: the official zip, a mirror's, and two whose names lead elsewhere.
ZIPS = {
    "zip": ("img_align_celeba.zip", "img_align_celeba"),
    "mirror": ("archive.zip", "img_align_celeba/img_align_celeba"),
    "climbing": ("img_align_celeba.zip", "../../../img_align_celeba"),
    "absolute": ("img_align_celeba.zip", "/img_align_celeba"),
}


def write_celeba(root, layout="folder", kind="txt", size=(178, 218)):
    """A small CelebA as people have it: a folder, a nested folder, or one of ZIPS; a mirror's has the lists inside."""
    pictures = root / ("img_align_celeba/img_align_celeba" if layout == "nested" else "img_align_celeba")
    for number in range(20):
        write_image(pictures / f"{number:06d}.jpg", number, size)
    for name, text in celeba_lists(kind).items():
        (root / name).write_text(text)
    if layout in ZIPS:
        archive, folder = ZIPS[layout]
        lists = root.glob("list_*") if layout == "mirror" else ()
        with zipfile.ZipFile(root / archive, "w") as opened:
            for path in [*sorted(pictures.iterdir()), *lists]:
                opened.write(path, f"{folder}/{path.name}" if path.suffix == ".jpg" else path.name)
                path.unlink()
        pictures.rmdir()
    return root
