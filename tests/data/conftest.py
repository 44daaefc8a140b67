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


def celeba_lists(kind="txt"):
    splits = [(f"{number:06d}.jpg", str(code)) for code, split in enumerate(SPLITS) for number in SPLITS[split]]
    signs = [["1" if value else "-1" for value in attributes_of(number)] for number in range(20)]
    signs = [(name, *row) for (name, _), row in zip(splits, signs, strict=True)]
    if kind == "txt":
        partition = "".join(f"{' '.join(row)}\n" for row in splits)
        attributes = f"20\n{' '.join(NAMES)} \n" + "".join(f"{'  '.join(row)}\n" for row in signs)
    else:
        partition = "".join(f"{','.join(row)}\r\n" for row in [("image_id", "partition"), *splits])
        attributes = "".join(f"{','.join(row)}\r\n" for row in [("image_id", *NAMES), *signs])
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
