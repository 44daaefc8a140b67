"""main.py as a user types it, at a size that trains in seconds."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import leae
from leae.training import monitoring as health
from leae.training.run import read_checkpoint
from leae.training.settings import read_command_line
from tests.conftest import (
    ROOT,
    SHORT,
    SMALL,
    TINY,
    assert_refused,
    metrics_of,
    run_script,
    write_image,
)


def run_main(monkeypatch, *options):
    run_script(monkeypatch, "main.py", *options)


def test_a_run_leaves_the_folder_that_the_design_promises(workplace, monkeypatch, capsys):
    run_main(monkeypatch, *TINY)
    folder = workplace / "runs" / "self-teaching-001"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    steps = (0, 4, 6, 7, 10, 12, 13, 16)
    expected = {"settings.json", "metrics.csv", "metrics.png", "checkpoints/last.pt"}
    expected |= {f"checkpoints/{percent:03d}.pt" for percent in (0, 20, 40, 60, 80, 100)}
    expected |= {f"grids/{split}-{step:06d}.png" for split in ("train", "test") for step in steps}
    assert names == expected
    assert Image.open(folder / "grids" / "test-000016.png").size[1] == 32 + 4 * 132  # four rows

    rows = metrics_of(folder)
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == [4, 8, 12, 16]
    assert [int(row["step"]) for row in rows if row["split"] == "test"] == list(steps)
    terms = [
        "loss",
        "latent",
        "sigreg",
        "consistency",
        "clean_crop_0.15",
        "masked_crop_0.15",
        "clean_crop_1.0",
        "masked_crop_1.0",
    ]
    assert all(float(row[term]) > 0 for row in rows if row["split"] == "train" for term in terms)

    printed = capsys.readouterr().out
    quality = re.search(r"held-out PSNR: ([\d.]+) dB for clean, ([\d.]+) dB for masked images; ", printed)
    assert float(quality[1]) == pytest.approx(float(rows[-1]["psnr_clean"]), abs=0.006)
    assert float(quality[2]) == pytest.approx(float(rows[-1]["psnr_masked"]), abs=0.006)
    assert "the model is small" in printed
    assert str(Path("runs") / "self-teaching-001" / "grids") in printed
    assert leae.load(folder / "checkpoints" / "100.pt").settings["latent_dim"] == 8


@pytest.mark.parametrize(
    "options",
    [
        ["--objective", "crop", "--image-size", "16", "--latent", "spatial", "--spatial-dim", "4", "--hidden-dim", "4"],
        ["--judge-ruler", "own", *SMALL],
        ["--model", "conv", "--crop-ratios", "0.3", "1.0"],
        ["--model", "conv", "--dataset", "digits"],
        ["--dataset", "digits", *SMALL],
    ],
)
def test_the_variants_train(workplace, monkeypatch, options):
    run_main(monkeypatch, *SHORT, "--max-steps", "2", *options)
    assert (workplace / "runs" / "self-teaching-001" / "checkpoints" / "100.pt").exists()


WRONG = [
    ("--mask-ratio 0", "mask ratio is 0.0.*0.35"),
    ("--mask-ratio 1.2", "mask ratio is 1.2.*0.35"),
    ("--crop-ratios 0", "crop ratio is 0.0.*0.15"),
    ("--crop-ratios 0.5 0.5", "crop ratios.*different"),
    ("--batch-size 1", "BATCH_SIZE is 1.*at least 2"),
    ("--image-size 100", "image_size is 100.*96 and 104"),
    ("--dataset mnits", "no data set 'mnits'.*celeba"),
    ("--dataset celeba", "no CelebA.*leae.data.prepare celeba"),
    ("--epoch 5", "no option --epoch, did you mean --epochs"),
    ("--epochs 0", "EPOCHS is 0.*at least 1"),
    ("--epochs many", "--epochs.*'many'"),
    ("--objective pixels", "objective is 'pixels'.*symmetric, crop"),
    ("--latent vector", "latent is 'vector'.*'pooled' or 'spatial'"),
    ("--latent spatial --spatial-dim 100 --hidden-dim 32", "latent_dim.*100.*128"),
    ("--judge-decay 1", "judge decay is 1.0.*below 1"),
    ("--judge-ruler metre", "judge ruler is 'metre'.*shared, own"),
    ("--schedule linear", "SCHEDULE is linear.*cosine or constant"),
    ("--learning-rate nan", "LEARNING_RATE is nan"),
    ("--device tpu", "DEVICE is 'tpu'.*choose"),
    ("--resume runs/none", "runs.none is not a run's folder"),
    ("--faces 0", "FACES is 0"),
    ("--dataset faces --faces 64 --batch-size 65", "BATCH_SIZE is 65.*training images, 64"),
    ("--seed 99999999999999999999", "SEED is"),
    ("--device meta", "DEVICE is 'meta'.*choose"),
    ("--model small", "MODEL is small.*residual or conv"),
    ("--model conv --image-size 64", "IMAGE_SIZE is 64; it must be 32 for MODEL conv"),
    ("--model conv --latent-dim 16", "LATENT_DIM has no effect where MODEL is conv"),
    ("--model conv --crop-ratios 0.01", "crop ratio 0.01 is a box of 0 pixel on images of 32"),
    ("--latent spatial --latent-dim 16", "LATENT_DIM has no effect where LATENT is spatial"),
]


@pytest.mark.parametrize(("options", "says"), WRONG, ids=[options for options, _ in WRONG])
def test_a_wrong_constant_stops_before_any_work_with_one_line(workplace, monkeypatch, capsys, options, says):
    assert_refused(monkeypatch, capsys, "main.py", options, says)


@pytest.mark.parametrize(
    "edit",
    [
        "CROP_RATIOS = (0.15)",
        "CROP_RATIOS = ()",
        "EPOCHS = 1e1",
        "EPOCHS = '5'",
        "IMAGE_SIZE = 64.0",
        "JUDGE_DECAY = '0.9'",
        "DATASET = 5",
        "LATENT = ['pooled']",
        "DEVICE = None",
        "RESUME = None",
        "COMPILE = 'yes'",
    ],
)
def test_a_constant_edited_to_another_type_is_refused_by_name(workplace, monkeypatch, capsys, edit):
    name = edit.split()[0]
    script = re.sub(rf"^{name} = .*(?=  #)", edit, (ROOT / "main.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (workplace / "main.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["main.py"])
    with pytest.raises(SystemExit):
        runpy.run_path("main.py", run_name="__main__")
    assert re.match(rf"main.py: {name} is|main.py: crop ratios are", capsys.readouterr().err)
    assert not (workplace / "runs").exists()


def test_steps_are_limited_and_whole_numbers_among_the_crop_ratios_train(workplace, monkeypatch, capsys):
    run_main(monkeypatch, *TINY, "--max-steps", "3", "--crop-ratios", "0.15", "1", "--held-out", "2")
    assert "steps: 3, by MAX_STEPS; 2 epochs would be 16" in capsys.readouterr().out
    rows = metrics_of(workplace / "runs" / "self-teaching-001")
    assert [row["step"] for row in rows if row["split"] == "train"] == ["3"]  # the last step is always logged


def test_a_run_goes_on_with_its_own_data_set_and_refuses_one_that_changed(workplace, monkeypatch, capsys):
    for number in range(20):
        write_image(workplace / "pictures" / f"{number}.png", number)
    options = [*TINY, "--dataset", "pictures", "--epochs", "1"]
    run_main(monkeypatch, *options)
    run_main(monkeypatch, "--resume", "runs/self-teaching-001")
    write_image(workplace / "pictures" / "7.png", 99)
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--resume", "runs/self-teaching-001")
    assert "trained on images in pictures, which has changed since" in capsys.readouterr().err


def test_auto_is_remembered_as_what_it_meant(workplace, monkeypatch):
    run_main(monkeypatch, *TINY, "--dataset", "auto", "--max-steps", "1")
    settings = json.loads((workplace / "runs" / "self-teaching-001" / "settings.json").read_text())["settings"]
    assert settings["DATASET"] == "faces"


def test_a_resumed_run_refuses_other_settings(workplace, monkeypatch, capsys):
    run_main(monkeypatch, *TINY, "--epochs", "1")
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--resume", "runs/self-teaching-001", "--epochs", "7")
    assert "EPOCHS is 1 in runs/self-teaching-001, not 7" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["main.py", "main_regular.py"])
def test_a_gradient_that_is_no_number_ends_the_run_before_the_last_good_checkpoint_is_touched(
    workplace, monkeypatch, capsys, script
):
    step, steps = torch.optim.AdamW.step, []

    def poisoned(optimizer):
        steps.append(1)
        if len(steps) == 6:
            optimizer.param_groups[0]["params"][0].grad[0] = float("nan")
        step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    with pytest.raises(SystemExit) as end:  # saved after every step, and no loss is looked at
        run_script(monkeypatch, script, *TINY, "--log-every", "100", "--save-minutes", "0", "--grid-every", "100")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert re.search(rf"\n *{script}: the gradient of encoder.stem.weight is nan after step 6, training has div", said)
    (run,) = (workplace / "runs").iterdir()
    assert read_checkpoint(run / "checkpoints" / "last.pt")["step"] == 5


def test_a_collapse_is_warned_about_at_the_first_look_that_sees_it(workplace, monkeypatch, capsys):
    monkeypatch.setattr(health, "NEAR_ONE", 1e9)  # so that every code is collapsed
    run_main(monkeypatch, *TINY)
    said = capsys.readouterr().err
    assert (
        said.count("warning: the model's codes have collapsed: after step 0 ") == said.count("the model's codes") == 1
    )
    assert (
        said.count("warning: the judge's codes have collapsed: after step 0 ") == said.count("the judge's codes") == 1
    )


@pytest.mark.gpu
def test_it_trains_on_a_gpu(workplace, monkeypatch):
    run_main(monkeypatch, *TINY, "--device", "cuda")
    assert (workplace / "runs" / "self-teaching-001" / "checkpoints" / "100.pt").exists()


@pytest.mark.parametrize(("script", "at_least"), [("main.py", 4), ("main_regular.py", 6)])
def test_the_readmes_commands_are_understood(script, at_least):
    namespace = runpy.run_path(str(ROOT / script), run_name="not main")
    pattern = rf"uv run {re.escape(script)}(.*?)(?:`|#|\n)"
    lines = re.findall(pattern, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(lines) >= at_least
    for line in lines:
        if line.strip() != "--help":
            read_command_line(namespace, line.split())
