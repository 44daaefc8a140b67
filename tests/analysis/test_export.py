"""An exported folder: read again it is the same model, its card tells how it was trained, ONNX computes the same."""

import csv
import json
import re
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import leae
from leae.analysis.export import write_onnx
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.checkpoints import read_checkpoint
from leae.errors import UsageError
from leae.training.run import read_settings
from tests.conftest import assert_one_line, run_leae

RUN = Path("runs/self-teaching-001")


def assert_same_model(model, other):
    assert not model.training
    images = torch.rand(3, *other.image_shape)
    with torch.no_grad():
        assert torch.equal(model.encode(images), other.encode(images))
        assert torch.equal(model(images), other(images))


def test_an_exported_folder_is_loaded_as_the_runs_model_to_the_bit(trained, tmp_path, monkeypatch):
    folder = tmp_path / "new" / "faces"
    run_leae(monkeypatch, "export", str(RUN), str(folder))
    files = ["README.md", "config.json", "grid.png", "model.safetensors", "settings.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    expected = leae.load(RUN / "checkpoints" / "100.safetensors")
    for name in (folder, str(folder), folder / "model.safetensors", RUN):
        assert_same_model(leae.load(name), expected)
    header, tensors = read_checkpoint(folder / "model.safetensors")
    assert all(name.startswith("model.") for name in tensors)
    config = json.loads((folder / "config.json").read_text())
    assert all(config[name] == header[name] for name in ("class", "settings", "step"))
    assert (folder / "settings.json").read_bytes() == (RUN / "settings.json").read_bytes()
    assert (folder / "grid.png").read_bytes() == (RUN / "grids" / "test-000009.png").read_bytes()
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path / "untrained"), "--checkpoint", "000")
    assert_same_model(leae.load(tmp_path / "untrained"), leae.load(RUN / "checkpoints" / "000.safetensors"))


def test_the_card_has_the_licence_data_command_and_held_out_figures(trained, tmp_path, monkeypatch):
    run = tmp_path / "faces-run"
    shutil.copytree(RUN, run)
    figures = {"psnr_clean": [21.25, 21.0, 21.5], "drift": [None] * 3, "linear_clean_auroc": [0.7654321, 0.7, 0.8]}
    content = {
        "step": 9,
        "data": {},
        "options": {"mask_ratio": 0.9},
        "figures": figures,
        "attributes": {"linear_clean_auroc": {"Bald": 0.5}},
    }
    (run / "evaluation.json").write_text(json.dumps(content))
    run_leae(monkeypatch, "export", str(run), str(tmp_path / "out"), "--license", "cc-by-4.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    assert "license: cc-by-4.0\nlibrary_name: leae\n" in front
    constants = "main.py, with", "    LATENT_DIM = 8\n", "    DATASET = 'faces'\n"
    for said in ("# faces-run\n", "rendered faces", *constants, "(grid.png)", "float32 [N, 8]"):
        assert said in card
    assert "pip install" in card
    assert "| PSNR (dB), clean | 21.25 |\n" in card
    assert "at a mask ratio of 0.9.\n" in card
    assert "| AUROC, clean | 0.7654 |\n" in card
    for unsaid in (str(tmp_path), "masked |", "mean image", "encoder effective", "Bald", "drift", "{", "}"):
        assert unsaid not in card
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    (run / "evaluation.json").unlink()
    run_leae(monkeypatch, "export", str(run), str(tmp_path / "without"))
    card = (tmp_path / "without" / "README.md").read_text(encoding="utf-8")
    assert f"| encoder effective rank | {float(last['encoder_effective_rank']):.4g} |" in card


def test_an_exported_model_is_exported_again_with_its_picture_and_without_an_empty_table(
    trained, tmp_path, monkeypatch
):
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path / "one"))
    run_leae(monkeypatch, "export", str(tmp_path / "one"), str(tmp_path / "two"))
    files = ("grid.png", "model.safetensors", "config.json", "settings.json")
    assert all((tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in files)
    card = (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    assert "| figure" not in card
    assert "(grid.png)\n\n## How it was trained\n" in card


@pytest.mark.parametrize("value", ["21.25", [], {}, float("inf")])
def test_the_card_leaves_out_an_evaluation_that_is_damaged(trained, tmp_path, monkeypatch, value):
    run = shutil.copytree(RUN, tmp_path / "faces-run")
    (run / "evaluation.json").write_text(json.dumps({"step": 9, "data": {}, "options": {}, "figures": {"odd": value}}))
    run_leae(monkeypatch, "export", str(run), str(tmp_path / "out"))
    assert "odd" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_replaces_nothing_and_one_that_fails_leaves_nothing(trained, tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    (tmp_path / ".git").mkdir()  # a new clone of a hub's
    with monkeypatch.context() as disk:
        disk.setattr("leae.analysis.export.write_json", full)
        assert_one_line(monkeypatch, capsys, "export", str(RUN), str(tmp_path), says="No space left")
    assert [path.name for path in tmp_path.iterdir()] == [".git"]
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path))
    (tmp_path / ".git").rmdir()
    before = contents(tmp_path)
    capsys.readouterr()
    for run in (RUN, tmp_path):
        says = "README.md in it, and an export replaces nothing"
        assert_one_line(monkeypatch, capsys, "export", str(run), str(tmp_path), says=says)
    assert contents(tmp_path) == before


def test_what_is_written_while_a_model_is_exported_is_not_replaced(trained, tmp_path, monkeypatch, capsys):
    def write_meanwhile(run, *options):
        (tmp_path / "out" / "README.md").write_text("somebody's")
        return read_settings(run)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("leae.analysis.export.read_settings", write_meanwhile)
    assert_one_line(monkeypatch, capsys, "export", str(RUN), str(tmp_path / "out"), says="README.md in it")
    assert contents(tmp_path / "out") == {"README.md": b"somebody's"}


def test_an_exported_model_has_no_other_checkpoints(trained, tmp_path, monkeypatch, capsys):
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path / "out"))
    capsys.readouterr()
    for options in (["--checkpoint", "000"], ["--checkpoints", "all"]):
        command = ("evaluate", str(tmp_path / "out"), *options)
        assert_one_line(monkeypatch, capsys, *command, says="is an exported model, which has no checkpoint 000")
    run_leae(monkeypatch, "evaluate", str(tmp_path / "out"), "--train-images", "100", "--held-out", "100")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["checkpoint"] == "model"


def test_the_card_does_not_say_where_the_data_lie(trained, tmp_path, monkeypatch):
    run = shutil.copytree(RUN, tmp_path / "a run")
    text = (run / "settings.json").read_text()
    where = tmp_path / "own"
    text = text.replace('"name": "faces"', f'"name": "{where}"').replace("rendered faces", f"images in {where}")
    (run / "settings.json").write_text(text)
    run_leae(monkeypatch, "export", str(run), str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "images in own, whose" in card
    assert str(tmp_path) not in card


MODELS = {
    "pooled": lambda: Autoencoder(16, 3, 4, "pooled", 8, 4),
    "spatial, linear": lambda: VariationalAutoencoder(16, 3, 4, "spatial", 4, output="linear"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_onnx_computes_codes_and_reconstructions_of_any_number_of_images(kind, tmp_path):
    onnxruntime, _ = (pytest.importorskip(name, reason="needs --extra onnx") for name in ("onnxruntime", "onnxscript"))
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


@pytest.fixture
def huggingface_hub():
    return pytest.importorskip("huggingface_hub", reason="needs --extra celeba")


def test_a_model_is_fetched_from_a_hub_unless_a_path_of_that_name_is_here(
    trained, tmp_path, monkeypatch, huggingface_hub
):
    run_leae(monkeypatch, "export", str(RUN), str(tmp_path / "fetched"))
    asked, expected = [], leae.load(RUN)

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert_same_model(leae.load("owner/faces"), expected)
    assert asked == [("owner/faces", ["model.safetensors", "config.json", "settings.json"])]
    monkeypatch.chdir(tmp_path)
    shutil.copytree("fetched", "owner/faces")
    assert_same_model(leae.load("owner/faces"), expected)
    for nothing in ("owner/places", "a/b/c", "nothing", "../owner/other"):
        with pytest.raises(FileNotFoundError, match=re.escape(nothing)):
            leae.load(nothing)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["LocalEntryNotFoundError", "ImportError"])  # the latter of a SOCKS proxy
def test_without_a_network_one_line_names_the_model(trained, monkeypatch, huggingface_hub, kind):
    def fail(name, allow_patterns):
        raise getattr(huggingface_hub.errors, kind, ImportError)("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UsageError, match=r"owner/name .*\(no connection\)[^\n]*$"):
        leae.load("owner/name")


def test_a_hub_that_says_nothing_is_not_waited_for(trained, tmp_path, monkeypatch, huggingface_hub):
    monkeypatch.setattr("leae.files.TIMEOUT", 0.1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UsageError, match=r"owner/name .*cannot be fetched"):
            leae.load("owner/name")


def test_without_huggingface_hub_or_onnx_one_line_names_what_is_missing(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"owner/name .*huggingface-hub"):
        leae.load("owner/name")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert_one_line(monkeypatch, capsys, "export", str(RUN), "out", "--onnx", says="--onnx .*--extra onnx")
    assert not Path("out").exists()
