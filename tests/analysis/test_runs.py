"""The table of the runs here."""

import json
import re
import shutil
from pathlib import Path

from leae.training.settings import script_constants
from tests.conftest import ROOT, metrics_of, run_leae


def listed(monkeypatch, capsys):
    """What the table says, by the first word of each line; a run's second line is part of its first."""
    run_leae(monkeypatch, "runs")
    text = capsys.readouterr().out
    return {line.split()[0]: " ".join(line.split()) for line in text.replace("\n    ", " ").splitlines()}


def test_every_run_has_its_kind_data_steps_figures_and_what_differs_from_the_script(trained, monkeypatch, capsys):
    table = listed(monkeypatch, capsys)
    assert list(table) == ["run", "masked-001", "plain-001", "self-teaching-001", "variational-001"]
    last = metrics_of(trained / "runs" / "self-teaching-001")[-1]
    figures = f"{float(last['psnr_clean']):.2f} {float(last['psnr_masked']):.2f}"
    taught = rf"self-teaching-001 self-teaching faces 9 of 9 {figures} \d+-\d+-\d+ "
    assert re.match(taught + "IMAGE_SIZE=16 FACES=144 LATENT_DIM=8 HIDDEN_DIM=4 ", table["self-teaching-001"])
    assert re.match(r"plain-001 plain digits 2 of 2 .* MODEL=conv BATCH_SIZE=8 EPOCHS=2 ", table["plain-001"])


def test_a_run_by_the_constants_differs_in_nothing_and_a_damaged_one_is_a_line(
    workplace, trained_place, monkeypatch, capsys
):
    shutil.copytree(trained_place / "runs", "runs")
    Path("runs/empty").mkdir()
    Path("runs/notes.txt").touch()
    shutil.copytree("runs/plain-001", "runs/odd\n\x1b[Aname")
    Path("runs/masked-001/metrics.csv").write_text("split,step\ntest,ten\n")
    path = Path("runs/self-teaching-001/settings.json")
    content = json.loads(path.read_text())
    for gpu in (False, True):
        constants = script_constants(ROOT / "main.py", gpu)
        path.write_text(json.dumps(content | {"settings": constants, "defaults": constants}))
        table = listed(monkeypatch, capsys)
        assert table["self-teaching-001"].endswith(content["started"][:10])
    assert "runs/empty" in table["empty:"]
    assert table[r"odd\n\x1b[Aname"].split()[1:] == table["plain-001"].split()[1:]
    assert re.search(r"runs/masked-001/metrics.csv .*'ten'", table["masked-001:"])


def test_runs_differ_from_the_constants_that_the_newest_of_their_script_and_device_began_with(
    workplace, trained_place, monkeypatch, capsys
):
    content = json.loads((trained_place / "runs/self-teaching-001/settings.json").read_text())
    old = script_constants(ROOT / "main.py", gpu=False)
    edited = old | {"MASK_RATIO": 0.6, "CROP_RATIOS": (0.5,)}
    begun = {  # by name: what the script had, what the command line changed, device, time
        "d-first": (old, {"SEED": 1}, "cpu, x86_64, PyTorch's threads: 1", "2026-01-01 10:00:00"),
        "c-edited": (edited, {}, "cpu, x86_64, PyTorch's threads: 2", "2026-01-02 10:00:00"),
        "b-option": (
            edited,
            {"MASK_RATIO": 0.5, "INIT": 150 * "x"},
            "cpu, x86_64, PyTorch's threads: 1",
            "2026-01-03 10:00:00",
        ),
        "a-gpu": (script_constants(ROOT / "main.py", gpu=True), {"SEED": 2}, "NVIDIA H200", "2026-01-04 10:00:00"),
    }
    for name, (defaults, differing, device, started) in begun.items():
        settings = defaults | {"NAME": name, "DATASET": "faces"} | differing
        own = {"settings": settings, "defaults": defaults, "device": device, "started": started}
        write_settings(name, content | own)
    earlier = {key: value for key, value in content.items() if key != "defaults"}
    write_settings("z-earlier-version", earlier | {"settings": old, "device": "cpu"})
    table = listed(monkeypatch, capsys)
    assert {name: re.findall(r"[A-Z_]+=\S+", line) for name, line in table.items() if name != "run"} == {
        "a-gpu": ["SEED=2"],
        "b-option": ["MASK_RATIO=0.5", f"INIT={150 * 'x'}"],
        "c-edited": [],
        "d-first": ["MASK_RATIO=0.35", "CROP_RATIOS=(0.15,1.0)", "SEED=1"],
        "z-earlier-version": ["MASK_RATIO=0.35", "CROP_RATIOS=(0.15,1.0)"],
    }


def write_settings(name, content):
    path = Path("runs", name, "settings.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
