"""main.py as a user types it, at a size that trains in seconds."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import leae
from leae.checkpoints import read_checkpoint
from leae.training.run import Run, read_metrics
from tests.conftest import SHORT, SMALL, TINY, metrics_of, run_script, write_image


def test_a_run_leaves_the_folder_that_the_design_promises(workplace, monkeypatch, capsys):
    draw_metrics = Run.plot_metrics
    run_script(monkeypatch, "main.py", *TINY, "--faces", "160", "--batch-size", "16", "--epochs", "1")
    folder = workplace / "runs" / "self-teaching-001"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    steps = (0, 2, 4, 6, 8, 10)
    expected = {"settings.json", "metrics.csv", "metrics.png", "checkpoints/last.safetensors", ".lock"}
    expected |= {f"checkpoints/{percent:03d}.safetensors" for percent in (0, 20, 40, 60, 80, 100)}
    expected |= {f"grids/{split}-{step:06d}.png" for split in ("train", "test") for step in steps}
    assert names == expected
    assert Image.open(folder / "grids" / "test-000010.png").size[1] == 32 + 4 * 132  # four rows
    run = Run.read(folder)
    run.rows = read_metrics(folder)
    draw_metrics(run)
    assert Image.open(folder / "metrics.png").size[0] > 800

    rows = metrics_of(folder)
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == [4, 8, 10]
    assert [int(row["step"]) for row in rows if row["split"] == "test"] == list(steps)
    crops = [f"{view}_crop_{ratio}" for view in ("clean", "masked") for ratio in (0.15, 1.0)]
    terms = ["loss", "latent", "sigreg", "consistency", *crops]
    assert all(float(row[term]) > 0 for row in rows if row["split"] == "train" for term in terms)

    printed, last = capsys.readouterr().out, rows[-1]
    assert all(f"{float(last[name]):.2f} dB" in printed for name in ("psnr_clean", "psnr_masked"))
    assert float(last["encoder_effective_rank"]) > 1
    assert last["judge_dead_dimensions"].isdigit()
    assert "runs/self-teaching-001/grids" in printed
    assert leae.load(folder / "checkpoints" / "100.safetensors").settings["latent_dim"] == 8


@pytest.mark.parametrize(
    "options",
    [
        ["--objective", "crop", "--image-size", "16", "--latent", "spatial", "--spatial-dim", "4", "--hidden-dim", "4"],
        ["--judge-norm", "own", *SMALL],
        ["--judge-live", *SMALL],
        ["--objective", "alternating", *SMALL],
        ["--model", "conv", "--crop-ratios", "0.3", "1"],
        ["--dataset", "digits", "--held-out", "1", *SMALL],
        ["--precision", "bfloat16", *SMALL],
    ],
    ids=" ".join,
)
def test_the_variants_train(workplace, monkeypatch, options):
    run_script(monkeypatch, "main.py", *SHORT, "--max-steps", "2", *options)
    run = workplace / "runs" / "self-teaching-001"
    assert [row["step"] for row in metrics_of(run) if row["split"] == "train"] == ["2"]  # the last is always logged
    assert read_checkpoint(run / "checkpoints" / "100.safetensors")[0]["step"] == 2


def test_a_run_is_not_resumed_on_data_that_changed(workplace, monkeypatch, capsys):
    for number in range(20):
        write_image(workplace / "pictures" / f"{number}.png", number)
    run_script(monkeypatch, "main.py", *TINY, "--dataset", "pictures", "--epochs", "1")
    run_script(monkeypatch, "main.py", "--resume", "runs/self-teaching-001")  # what was prepared is used
    assert "--init runs/self-teaching-001" in capsys.readouterr().out  # as this run is complete
    write_image(workplace / "pictures" / "7.png", 99)
    run_script(monkeypatch, "main.py", *TINY, "--dataset", "pictures", "--epochs", "1")  # prepares them again
    run_script(monkeypatch, "main.py", "--resume", "runs/self-teaching-001")  # on what was prepared for it
    [older] = Path("data/prepared").glob("pictures-*-16-*")
    shutil.rmtree(older)
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "main.py", "--resume", "runs/self-teaching-001")
    assert re.search("main.py: .*pictures", capsys.readouterr().err)


@pytest.mark.parametrize("script", ["main.py", "main_regular.py"])
def test_a_gradient_that_is_no_number_ends_the_run_and_touches_no_checkpoint(workplace, monkeypatch, capsys, script):
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
    assert re.search(rf"(?m)^ *{script}: the gradient of encoder.stem.weight is nan after step 6, ", said)
    (run,) = (workplace / "runs").glob("*-001")
    assert read_checkpoint(run / "checkpoints" / "last.safetensors")[0]["step"] == 5


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["symmetric", "masked", "plain", "denoising", "variational"])
def test_it_trains_on_a_gpu(workplace, monkeypatch, objective):
    script = "main.py" if objective == "symmetric" else "main_regular.py"
    compiling = "--compile" if objective in ("masked", "variational") else "--no-compile"
    run_script(monkeypatch, script, *TINY, "--device", "cuda", "--objective", objective, compiling)
    assert list((workplace / "runs").glob("*-001/checkpoints/100.safetensors"))
