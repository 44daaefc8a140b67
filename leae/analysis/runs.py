"""A table of the runs here: data, constants, progress and figures of each.

    uv run -m leae runs

A run's second line has the constants in which it differs from its script's, as that is now. PSNR is that of clean and
of masked, or noisy, held-out images, at the last evaluation.
"""

import argparse
from pathlib import Path

from leae.training.pictures import cut
from leae.training.run import CHANGEABLE, RUNS, Run, read_metrics
from leae.training.settings import Parser, script_constants

ROW = "{:21}  {:13}  {:10}  {:>18}  {:11}  {:10}"
PSNR = ("psnr_clean", "psnr_masked", "psnr_noisy")
ELSEWHERE = (
    "DATASET",
    "NAME",
    "RESUME",
    *CHANGEABLE,
)  # constants in the table's first line, or of no effect on a number
WIDTH = 96  # letters of the second line


def differences(run: Run) -> str:
    """The constants that differ from those of the run's script, with a GPU or without: where fewer do."""
    script = "main.py" if run.kind == "self-teaching" else "main_regular.py"
    told = (*ELSEWHERE, "OBJECTIVE") if run.settings.get("OBJECTIVE") == run.kind else ELSEWHERE
    found = []
    for defaults in (script_constants(script, gpu) for gpu in (True, False)):
        differing = [name for name in defaults if name not in told and run.settings.get(name) != defaults[name]]
        found.append([f"{name}={run.settings.get(name)}".replace(" ", "") for name in differing])
    return " ".join(min(found, key=len))


def describe(folder: Path) -> str:
    """The lines of a run's folder; a `UsageError` or another error, which says why, if it is damaged."""
    run = Run.read(folder)
    rows = read_metrics(folder) if (folder / "metrics.csv").exists() else []
    steps = f"{int(rows[-1]['step']) if rows else 0:,} of {run.content['steps']:,}"
    measured = [row for row in rows if "psnr_clean" in row] or [{}]
    psnr = " ".join(f"{float(measured[-1][name]):.2f}" for name in PSNR if name in measured[-1])
    texts = folder.name, run.kind, Path(run.data["name"]).name, steps, psnr
    return f"{ROW.format(*texts, str(run.content['started'])[:10])}\n    {cut(differences(run), WIDTH)}".rstrip()


def add_arguments(parser: Parser) -> None:
    """There are none."""


def main(options: argparse.Namespace) -> None:
    folders = [path for path in RUNS.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        print(f"no runs in {RUNS}/ yet; uv run main.py makes one")
        return
    print(ROW.format("run", "kind", "data", "steps", "PSNR (dB)", "begun"))
    for folder in sorted(folders):
        try:
            print(describe(folder))
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            print(f"{folder.name}: {str(error).split(';')[0]}")
