"""The ablations: what is planned, made, resumed, taken as it is, and how the table is computed."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from leae.analysis import ablate
from leae.training.settings import parse_command_line
from tests.conftest import ROOT, assert_one_line, run_leae, run_script
from tests.data.conftest import write_folder

TINY = {
    "HIDDEN_DIM": 4,
    "MAP_CHANNELS": 4,
    "LATENT_DIM": 4,
    "BATCH_SIZE": 8,
    "HELD_OUT": 20,
    "GRID_IMAGES": 2,
}
VARIANTS = {"ours": ("main.py", 1, TINY), "theirs": ("main_regular.py", 2, {**TINY, "OBJECTIVE": "plain"})}
SIZE = ["--dataset", "pictures/", "--image-size", "16", "--steps", "2", "--seeds", "2", "--device", "cpu"]


def test_missing_runs_are_made_stopped_ones_resumed_and_differences_are_paired(workplace, monkeypatch, capsys):
    write_folder(workplace / "pictures", 60)
    lines = []

    def run(command, check):
        lines.append([str(part) for part in command[1:]])
        with pytest.MonkeyPatch.context() as patch:
            run_script(patch, lines[-1][0].rpartition("/")[2], *lines[-1][1:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(ablate, "VARIANTS", VARIANTS)
    monkeypatch.setattr(ablate, "subprocess", SimpleNamespace(run=run))
    run_leae(monkeypatch, "ablate", *SIZE, "--dry-run")
    assert "4 runs, 4 of them to be trained" in capsys.readouterr().out
    assert not (workplace / "runs").exists()
    run_leae(monkeypatch, "ablate", *SIZE)
    assert len(lines) == 4
    kept = [path.read_bytes() for path in sorted(workplace.glob("runs/*/measured.json"))]
    (workplace / "runs/plain-001/checkpoints/100.safetensors").unlink()  # as if it had been stopped
    run_leae(monkeypatch, "ablate", *SIZE)
    assert len(lines) == 5
    assert lines[-1][1:] == ["--resume", "runs/plain-001", "--device", "cpu"]
    assert [path.read_bytes() for path in sorted(workplace.glob("runs/*/measured.json"))] == kept
    assert (workplace / "runs/ablation.png").stat().st_size > 10_000

    values = {}
    for path in sorted(workplace.glob("runs/*/measured.json")):
        figures = json.loads(path.read_text())["values"]
        values.setdefault(path.parent.name[:-4], []).append(figures["psnr_clean"])
    paired = stats.ttest_rel(values["plain"], values["self-teaching"]).confidence_interval(0.95)
    with (workplace / "runs/ablation.csv").open(newline="") as file:
        rows = {(row[0], row[1]): row[2:] for row in csv.reader(file)}
    value, _, _, difference, low, high = map(float, rows["theirs", "psnr_clean"])
    assert value == pytest.approx(np.mean(values["plain"]), rel=1e-4)
    assert difference == pytest.approx(np.mean(np.subtract(values["plain"], values["self-teaching"])), rel=1e-3)
    assert (low, high) == pytest.approx((paired.low, paired.high), rel=1e-3)
    assert ablate.find_run({"DATASET": "pictures/", "SEED": 1}, {}).settings["SEED"] == 1
    assert ablate.find_run({"DATASET": "digits", "SEED": 1}, {}) is None  # a run on other data is another run
    new = {"DATASET": "pictures/", "SEED": 1, "INVENTED_LATER": 2}
    assert ablate.find_run(new, {"INVENTED_LATER": 2}).settings["SEED"] == 1
    assert ablate.find_run(new, {"INVENTED_LATER": 1}) is None
    shutil.rmtree(workplace / "runs")


def test_a_run_makes_its_steps_however_few_images_there_are():
    options = SimpleNamespace(dataset="pictures", image_size=16, steps=640, device="cpu")
    assert ablate.wanted("masked, same time", 0, options)["EPOCHS"] == 2000  # an epoch has a step at least
    options.dataset = "faces"
    assert ablate.wanted("masked, same time", 0, options)["EPOCHS"] == 50


def test_what_cannot_be_ablated_is_one_line(workplace, monkeypatch, capsys):
    assert_one_line(
        monkeypatch, capsys, "ablate", "--only", "masks", says="--only is 'masks'; it must be one of self-teaching"
    )
    failing = SimpleNamespace(run=lambda *_, **options: SimpleNamespace(returncode=2))
    monkeypatch.setattr(ablate, "subprocess", failing)
    with pytest.raises(SystemExit):
        run_leae(monkeypatch, "ablate", "--only", "masked", "--steps", "1")
    assert "masked: the run did not finish" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ablate.VARIANTS)
def test_the_command_line_of_every_variant_is_one_that_its_script_takes(variant):
    script, _, differing = ablate.VARIANTS[variant]
    defaults = ablate.defaults_of(variant)
    line = [part for name, value in differing.items() for part in ablate.arguments_of(name, value)]
    assert parse_command_line({"__file__": ROOT / script, "__doc__": "", **defaults}, line) == differing
    assert all(defaults[name] != value for name, value in differing.items())
