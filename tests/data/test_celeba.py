"""Fetching CelebA from its mirror."""

import inspect
import io
import os
import subprocess
import sys
from argparse import Namespace

import pytest
from PIL import Image

from leae.data import prepare
from leae.data.celeba import has_celeba
from leae.data.prepare import open_dataset
from tests.conftest import ROOT
from tests.data.conftest import NAMES, SPLITS, attributes_of, numbers_of

hub = pytest.importorskip("huggingface_hub")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write_parquet(path, numbers):
    """A file as the mirror has it: the image's bytes, an identity, and attributes as booleans."""
    rows = []
    for number in numbers:
        file = io.BytesIO()
        Image.new("RGB", (178, 218), (2 * number, 100, 50)).save(file, "JPEG", quality=98)
        attributes = dict(zip(NAMES, attributes_of(number), strict=True))
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "celeb_id": number, **attributes})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_celeba_is_fetched_from_its_mirror_and_prepared(workplace, monkeypatch, capsys):
    signature = inspect.signature(hub.snapshot_download)

    def download(*arguments, **options):
        asked = signature.bind(*arguments, **options).arguments
        assert (asked["repo_id"], asked["repo_type"]) == ("flwrlabs/celeba", "dataset")
        assert asked["allow_patterns"] == "*.parquet"
        for split, numbers in SPLITS.items():
            write_parquet(asked["local_dir"] / "img_align+identity+attr" / f"{split}-00000-of-00001.parquet", numbers)
        return str(asked["local_dir"])

    monkeypatch.setattr(hub, "snapshot_download", download)
    prepare.main(Namespace(dataset="celeba", image_size=64, faces=1))
    assert "CelebA: 12 train, 3 valid, 5 test; 2 attributes" in capsys.readouterr().out
    dataset = open_dataset("celeba", 64)
    assert dataset.attribute_names == NAMES
    assert numbers_of(dataset) == {split: list(numbers) for split, numbers in SPLITS.items()}
    for split, numbers in SPLITS.items():
        assert dataset.attributes[split].tolist() == [attributes_of(number) for number in numbers]
    kept = {path.name for path in (workplace / "data" / "celeba").iterdir()}
    assert kept == {"img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"}


def test_with_no_network_it_says_what_to_put_where(workplace):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(workplace / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "leae", "prepare", "celeba"]
    environment = {**os.environ, **nowhere, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "flwrlabs/celeba cannot be reached" in result.stderr
    assert "img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt" in result.stderr
    assert "Traceback" not in result.stderr
    assert not has_celeba(workplace / "data" / "celeba")
