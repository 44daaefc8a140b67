"""An exported folder: read again it is the same model, its card tells how it was trained, ONNX computes the same."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
import torch

import leae
from leae.analysis.export import write_onnx
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.errors import UsageError
from tests.conftest import assert_one_line, read_tensors, run_leae

RUN = Path("runs/self-teaching-001")


def assert_same_model(model, other):
    assert not model.training
    images = torch.rand(3, *other.image_shape)
    with torch.no_grad():
        assert torch.equal(model.encode(images), other.encode(images))
        assert torch.equal(model(images), other(images))


def test_an_exported_folder_is_loaded_as_the_runs_model_to_the_bit(trained, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "new" / "faces"
    run_leae(monkeypatch, "export", str(RUN), str(folder))
    files = ["README.md", "config.json", "grid.png", "model.safetensors", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert f"exported: {', '.join(files)} in {folder}" in capsys.readouterr().out
    expected = leae.load(RUN / "checkpoints" / "100.safetensors")
    for name in (folder, str(folder), folder / "model.safetensors", RUN):
        assert_same_model(leae.load(name), expected)
    header, tensors = read_tensors(folder / "model.safetensors")
    assert all(name.startswith("model.") for name in tensors)
    config = json.loads((folder / "config.json").read_text())
    assert [config[name] for name in ("class", "settings", "step")] == [
        header[n] for n in ("class", "settings", "step")
    ]
    assert (folder / "grid.png").read_bytes() == (RUN / "grids" / "test-000009.png").read_bytes()
    run_leae(monkeypatch, "export", str(RUN), str(folder), "--checkpoint", "000")  # over an earlier export
    assert_same_model(leae.load(folder), leae.load(RUN / "checkpoints" / "000.safetensors"))


def test_the_card_has_the_licence_data_command_and_held_out_figures(trained, tmp_path, monkeypatch):
    run = tmp_path / "faces-run"
    shutil.copytree(RUN, run)
    figures = {"psnr_clean": [21.25, 21.0, 21.5], "drift": [None] * 3, "linear_clean_auroc": [0.7654321, 0.7, 0.8]}
    content = {"step": 9, "figures": figures, "attributes": {"linear_clean_auroc": {"Bald": 0.5}}}
    (run / "evaluation.json").write_text(json.dumps(content))
    run_leae(monkeypatch, "export", str(run), str(tmp_path / "out"), "--license", "cc-by-4.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    assert "license: cc-by-4.0\nlibrary_name: leae\n" in front
    assert "tags:\n- autoencoder\n" in front
    assert "# faces-run" in card
    assert "rendered faces" in card
    assert "    main.py --dataset faces" in card
    assert str(tmp_path) not in card
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert f"| in training, split test | |\n|---|---|\n| psnr_clean | {float(last['psnr_clean']):.4g} |" in card
    assert "| psnr_clean | 21.25 |" in card
    assert "| linear_clean_auroc | 0.7654 |" in card
    assert "drift" not in card
    assert "Bald" not in card
    assert "grid.png" in card


MODELS = {
    "pooled": lambda: Autoencoder(16, 3, 4, "pooled", 8, 4),
    "spatial, linear": lambda: VariationalAutoencoder(16, 3, 4, "spatial", 4, output="linear"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_onnx_computes_codes_and_reconstructions_of_any_number_of_images(kind, tmp_path):
    torch.manual_seed(0)
    model = MODELS[kind]()
    images = torch.rand(300, *model.image_shape)
    model.train()(images)  # gives a batch norm running statistics
    write_onnx(model.eval(), tmp_path)
    sessions = [onnxruntime.InferenceSession(tmp_path / f"{part}.onnx") for part in ("encoder", "decoder")]
    for some in (images, images[:1]):
        [codes] = sessions[0].run(["codes"], {"images": some.numpy()})
        [reconstructions] = sessions[1].run(["images"], {"codes": codes})
        with torch.no_grad():
            np.testing.assert_allclose(codes, model.encode(some), atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(reconstructions, model(some), atol=1e-5)


def test_a_model_is_fetched_from_a_hub_unless_a_path_of_that_name_is_here(trained, tmp_path, monkeypatch):
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path / "fetched"))
    asked, expected = [], leae.load(RUN)

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert_same_model(leae.load("owner/faces"), expected)
    assert asked == [("owner/faces", ["model.safetensors", "config.json", "run.json"])]
    monkeypatch.chdir(tmp_path)
    shutil.copytree("fetched", "owner/faces")
    assert_same_model(leae.load("owner/faces"), expected)
    for nothing in ("owner/places", "a/b/c", "nothing", "../owner/other"):
        with pytest.raises(FileNotFoundError, match=re.escape(nothing)):
            leae.load(nothing)
    assert len(asked) == 1


def test_without_a_network_or_huggingface_hub_one_line_says_what_to_do(workplace, monkeypatch):
    def fail(name, allow_patterns):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UsageError, match=r"owner/name here, and it cannot be fetched .*\(no connection\); .*online$"):
        leae.load("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"no owner/name here, and huggingface_hub, .* not installed; .*install hugg"):
        leae.load("owner/name")


def test_without_onnx_nothing_is_written(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    folder = str(tmp_path / "out")
    assert_one_line(
        monkeypatch, capsys, "export", str(RUN), folder, "--onnx", says="left out, or run with uv run --extra onnx"
    )
    assert not Path(folder).exists()
