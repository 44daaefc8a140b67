"""The ablations: what is planned, made, resumed, taken as it is, and how the table is computed."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import sys

import numpy as np
import pytest
from scipy import stats

from leae.analysis import ablate
from leae.checkpoints import read_checkpoint
from leae.training.settings import constants_in, parse_command_line, script_constants
from tests.conftest import ROOT, assert_one_line, metrics_of, run_leae, run_script, wait_for_step
from tests.data.conftest import write_folder

SIZES = {"HIDDEN_DIM": 4, "MAP_CHANNELS": 4, "LATENT_DIM": 4, "BATCH_SIZE": 8, "HELD_OUT": 20, "GRID_IMAGES": 2}
VARIANTS = {"ours": ("main.py", 1, SIZES), "theirs": ("main_regular.py", 2, {**SIZES, "OBJECTIVE": "plain"})}
SIZE = ["--dataset", "pictures/", "--image-size", "16", "--steps", "2", "--seeds", "2", "--device", "cpu"]


def test_missing_runs_are_made_stopped_ones_resumed_and_differences_are_paired(workplace, monkeypatch, capsys):
    write_folder(workplace / "pictures", 60)
    lines = []

    def train(command):
        lines.append(command)
        with pytest.MonkeyPatch.context() as patch:
            run_script(patch, lines[-1][0].rpartition("/")[2], *lines[-1][1:])
        return 0

    monkeypatch.setattr(ablate, "VARIANTS", VARIANTS)
    monkeypatch.setattr(ablate, "train", train)
    run_leae(monkeypatch, "ablate", *SIZE, "--dry-run")
    assert "4 runs, 4 of them to be trained" in capsys.readouterr().out
    assert not (workplace / "runs").exists()
    run_leae(monkeypatch, "ablate", *SIZE)
    assert len(lines) == 4
    paths = sorted(workplace.glob("runs/*/evaluation.json"))
    kept = [path.read_bytes() for path in paths]
    (workplace / "runs/plain-001/checkpoints/100.safetensors").unlink()  # as if it had been stopped
    other = json.loads(kept[0]) | {"options": {"mask_ratio": 0.5}}  # as if evaluated with other options
    paths[0].write_text(json.dumps(other))
    marked = json.loads(kept[-1])
    marked["figures"]["psnr_clean"][0] += 1  # which shows that this one is not measured again
    paths[-1].write_text(json.dumps(marked))
    run_leae(monkeypatch, "ablate", *SIZE)
    assert len(lines) == 5
    assert lines[-1][1:] == ["--resume", "runs/plain-001", "--device", "cpu"]
    assert [path.read_bytes() for path in paths[:-1]] == kept[:-1]
    assert json.loads(paths[-1].read_text()) == marked
    assert (workplace / "runs/ablation-2.png").stat().st_size > 10_000

    values = {}
    for path in paths:
        figures = json.loads(path.read_text())["figures"]
        values.setdefault(path.parent.name[:-4], []).append(figures["psnr_clean"][0])
    paired = stats.ttest_rel(values["plain"], values["self-teaching"]).confidence_interval(0.95)
    with (workplace / "runs/ablation-2.csv").open(newline="") as file:
        rows = {(row["column"], row["figure"]): row for row in csv.DictReader(file)}
    row = {name: float(text) for name, text in rows["theirs", "psnr_clean"].items() if name.startswith(("val", "diff"))}
    assert row["value"] == pytest.approx(np.mean(values["plain"]), rel=1e-4)
    assert row["difference"] == pytest.approx(np.mean(np.subtract(values["plain"], values["self-teaching"])), rel=1e-3)
    assert (row["difference low"], row["difference high"]) == pytest.approx((paired.low, paired.high), rel=1e-3)
    lines = (workplace / "runs/ablation-2.md").read_text(encoding="utf-8").splitlines()[2:]
    head, _, ours, theirs = ([cell.strip() for cell in line.split("|")] for line in lines)
    cells = dict(zip(head, theirs, strict=True))
    assert ours[1:3] == ["ours", "2"]
    assert cells["PSNR (dB), clean"].startswith(f"{row['value']:.2f}±")
    assert cells["PSNR (dB), clean"].endswith("*") == (paired.low > 0 or paired.high < 0)
    shutil.rmtree(workplace / "runs")


def test_a_run_is_found_by_all_that_makes_its_experiment(workplace):
    defaults = ablate.defaults_of("masked")
    made = defaults | {"NAME": "mine", "DEVICE": "cpu", "SEED": 1}
    del made["RESUME"]
    content = {"kind": "masked", "settings": made, "data": dict.fromkeys(("name", "title", "identity"), "")}
    content |= {"command": [], "steps": 9, "device": "cpu", "versions": {}, "started": ""}
    path = workplace / "runs/mine/settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    exported = shutil.copytree(path.parent, workplace / "runs" / "an-export")
    (exported / "model.safetensors").touch()  # which is no run to resume
    assert ablate.find_run(defaults | {"SEED": 1}).folder == path.parent.relative_to(workplace)
    for other in ({"SEED": 2}, {"SEED": 1, "DATASET": "digits"}, {"SEED": 1, "NOISE": 0.5}):
        assert ablate.find_run(defaults | other) is None
    path.write_text(json.dumps(content | {"settings": made | {"JUDGE_RULER": "own"}}))  # of an earlier version
    assert ablate.find_run(defaults | {"SEED": 1}) is None


def test_the_published_variant_is_the_readmes_command_on_a_gpu(monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = re.findall(r"uv run (main\.py .*--judge-decay.*)", text)
    defaults = script_constants(ROOT / "main.py", gpu=True)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    chosen = parse_command_line({"__doc__": "", **defaults}, constants_in(ROOT / "main.py"))
    assert defaults | chosen == defaults | ablate.PUBLISHED | {"DATASET": "celeba"}


def test_what_cannot_be_ablated_is_one_line(workplace, monkeypatch, capsys):
    assert_one_line(monkeypatch, capsys, "ablate", "--seeds", "20261127", says="--seeds is 20261127.*at most 1000")
    assert_one_line(monkeypatch, capsys, "ablate", "--only", "masks", says="masks")
    monkeypatch.setattr(ablate, "train", lambda command: 2)
    with pytest.raises(SystemExit) as stop:
        run_leae(monkeypatch, "ablate", "--only", "masked", "--steps", "1")
    assert stop.value.code == 2
    assert "ablate: masked" in capsys.readouterr().err


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_run_which_saves_what_it_has(processes, workplace, number, status, send):
    options = ("ablate", "--only", "self-teaching", "--steps", 2000, "--seeds", 1, "--dataset", "digits")
    child = processes.start("-m leae", *options, "--device", "cpu", folder=workplace)
    run = workplace / "runs" / "self-teaching-001"
    wait_for_step(run, 1)
    send(child, number)
    assert processes.wait(child) == status
    header, _ = read_checkpoint(run / "checkpoints" / "last.safetensors")
    assert header["step"] >= int(metrics_of(run)[-1]["step"]) > 0
    assert "Traceback" not in (workplace / "output").read_text()


@pytest.mark.parametrize("variant", ablate.VARIANTS)
def test_the_command_line_of_every_variant_is_one_that_its_script_takes(variant, monkeypatch):
    script, _, differing = ablate.VARIANTS[variant]
    defaults = ablate.defaults_of(variant)
    line = [part for name, value in differing.items() for part in ablate.arguments_of(name, value)]
    monkeypatch.setattr(sys, "argv", [script, *line])
    assert parse_command_line({"__doc__": "", **defaults}, constants_in(ROOT / script)) == differing
    assert all(defaults[name] != value for name, value in differing.items())
