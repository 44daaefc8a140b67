"""A run and its data in another place: what counts is what is in a data set, not where it lies or since when."""

import os
import shutil
import subprocess
import sys

from tests.conftest import ROOT, SMALL, metrics_of, run_leae, wait_for_step, write_image

OPTIONS = ["--batch-size", 32, "--epochs", 500, "--max-steps", 12, "--log-every", 1, "--grid-images", 3, *SMALL]
DATA = {"self-teaching-001": ["--dataset", "faces", "--faces", 160], "self-teaching-002": ["--dataset", "pictures"]}


def test_a_run_that_moved_with_its_data_is_resumed_and_evaluated_there(processes, tmp_path, monkeypatch):
    clone, place, untouched = tmp_path / "clone", tmp_path / "elsewhere", tmp_path / "untouched"
    for folder in (clone, untouched):
        shutil.copytree(ROOT / "leae", folder / "leae", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "main.py", folder)
        for number in range(120):
            write_image(folder / "pictures" / f"{number}.png", number, size=(20 + number % 7, 16))
    for name, data in DATA.items():
        assert processes.run("main.py", *OPTIONS, *data, folder=untouched) == 0
        child = processes.start("main.py", *OPTIONS, *data, folder=clone)
        wait_for_step(clone / "runs" / name, 3)
        assert processes.stop(child) == 143

    shutil.copytree(clone, place)  # with new times of change
    shutil.rmtree(clone)
    for path in (place / "pictures").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with (place / "leae" / "data" / "faces.py").open("a") as source:
        source.write("\n# Faces could have freckles.\n")

    faces, pictures = (place / "runs" / name for name in DATA)
    command = [sys.executable, "main.py", "--resume", f"runs/{faces.name}"]  # by the changed source
    resumed = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert processes.run("main.py", "--resume", f"runs/{pictures.name}", folder=place) == 0
    for run in (faces, pictures):
        other, last = untouched / "runs" / run.name, "checkpoints/last.safetensors"
        assert (run / last).read_bytes() == (other / last).read_bytes()
        assert metrics_of(run) == metrics_of(other)
    monkeypatch.chdir(place)
    run_leae(monkeypatch, "evaluate", f"runs/{pictures.name}", "--train-images", "100")
    run_leae(monkeypatch, "latents", f"runs/{pictures.name}", "--map", "pca", "--images", "2")
