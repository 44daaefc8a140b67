"""Fetching CelebA from its mirror, played here by files as the mirror has them."""

from unittest.mock import create_autospec

import pytest
from PIL import Image

from leae.data.celeba import has_celeba
from leae.data.prepare import open_dataset
from tests.conftest import run_leae
from tests.data.conftest import NAMES, SPLITS, assert_celeba, attributes_of

huggingface_hub = pytest.importorskip("huggingface_hub")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def download(repository, *, repo_type, allow_patterns, local_dir):
    """A file for each split: images as bytes, identities, and attributes as booleans."""
    assert (repository, repo_type, allow_patterns) == ("flwrlabs/celeba", "dataset", "*.parquet")
    (local_dir / "data").mkdir(parents=True)
    for split, numbers in SPLITS.items():
        rows = []
        for number in numbers:
            Image.new("RGB", (178, 218), (2 * number, 100, 50)).save("image.jpg", quality=98)
            with open("image.jpg", "rb") as file:
                image = {"bytes": file.read(), "path": None}
            attributes = dict(zip(NAMES, attributes_of(number), strict=True))
            rows.append({"image": image, "celeb_id": number, **attributes})
        parquet.write_table(pyarrow.Table.from_pylist(rows), local_dir / "data" / f"{split}-00000-of-00001.parquet")


def test_celeba_is_fetched_from_its_mirror_and_prepared(workplace, monkeypatch, capsys):
    real = huggingface_hub.snapshot_download  # whose arguments these must be
    monkeypatch.setattr(huggingface_hub, "snapshot_download", create_autospec(real, side_effect=download))
    run_leae(monkeypatch, "prepare", "celeba", "--image-size", "64")
    assert "CelebA: 12 train, 3 valid, 5 test; 2 attributes" in capsys.readouterr().out
    assert_celeba(open_dataset("celeba", 64))
    kept = {path.name for path in (workplace / "data" / "celeba").iterdir()}
    assert kept == {"img_align_celeba.zip", "list_attr_celeba.csv", "list_eval_partition.csv"}


def test_with_no_network_it_says_what_to_put_where(processes, workplace):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(workplace / "home")}  # where nothing listens
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_ETAG_TIMEOUT": "2"}
    assert processes.run("-m leae", "prepare", "celeba", folder=workplace, environment=environment) == 2
    said = (workplace / "output").read_text()
    for part in ("flwrlabs/celeba", "img_align_celeba.zip", "list_eval_partition.txt", "list_attr_celeba.txt"):
        assert part in said
    assert "Traceback" not in said
    assert not has_celeba(workplace / "data" / "celeba")
