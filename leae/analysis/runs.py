"""A table of the runs here: data, constants, progress and figures of each.

    uv run -m leae runs

A run's second line has the constants in which it differs from its script's, as the newest run here of this script and
on such a device found them. PSNR is that of clean and of masked, or noisy, held-out images, at the last evaluation.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from leae.errors import one_line
from leae.training.evaluation import PSNR
from leae.training.run import CHANGEABLE, RUNS, Run, read_metrics

ROW = "{:21}  {:13}  {:10}  {:>18}  {:11}  {:10}"
ELSEWHERE = ("DATASET", "NAME", "RESUME", *CHANGEABLE)  # constants in the first line, or of no effect on a number
DAMAGED = (OSError, ValueError, TypeError, LookupError, ArithmeticError)


def origin(run: Run) -> tuple[bool, str]:
    """The run's script, of two, and the kind of its device, for which that may have other constants."""
    return run.kind == "self-teaching", run.content["device"].split(",")[0]


def newest_defaults(folders: list[Path]) -> dict[tuple[bool, str], dict]:
    """By `origin`, the constants of the script as the newest run found them; constants may be edited."""
    runs = []
    for folder in folders:
        with suppress(*DAMAGED):
            runs.append(Run.read(folder))
    runs.sort(key=lambda run: run.content["started"])
    return {origin(run): run.defaults for run in runs if run.defaults}


def differences(run: Run, defaults: dict) -> str:
    """The constants that differ from the defaults."""
    told = (*ELSEWHERE, "OBJECTIVE") if run.settings.get("OBJECTIVE") == run.kind else ELSEWHERE
    differing = [name for name in defaults if name not in told and run.settings.get(name) != defaults[name]]
    return " ".join(f"{name}={run.settings.get(name)}".replace(" ", "") for name in differing)


def describe(folder: Path, defaults: dict[tuple[bool, str], dict]) -> str:
    """The lines of a run's folder, by `newest_defaults`; if it is damaged, one of the errors `DAMAGED` says why."""
    run = Run.read(folder)
    rows = read_metrics(folder) if (folder / "metrics.csv").exists() else []
    steps = f"{int(rows[-1]['step']) if rows else 0:,} of {run.content['steps']:,}"
    measured = [row for row in rows if "psnr_clean" in row] or [{}]
    psnr = " ".join(f"{float(measured[-1][name]):.2f}" for name in PSNR if name in measured[-1])
    texts = folder.name, run.kind, Path(run.data["name"]).name, steps, psnr, run.content["started"][:10]
    differing = differences(run, defaults.get(origin(run), {}))
    return f"{ROW.format(*map(one_line, texts))}\n    {one_line(differing)}".rstrip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(options: argparse.Namespace) -> None:
    folders = sorted(path for path in RUNS.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not folders:
        print(f"no runs in {RUNS}/ yet; uv run main.py makes one")
        return
    print(ROW.format("run", "kind", "data", "steps", "PSNR (dB)", "begun"))
    defaults = newest_defaults(folders)
    for folder in folders:
        try:
            print(describe(folder, defaults))
        except DAMAGED as error:
            print(one_line(f"{folder.name}: {str(error).split(';')[0]}"))
