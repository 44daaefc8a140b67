"""A table of the runs here: data, options, progress and figures of each.

    uv run -m leae runs

A run's second line has the options that it was started with. PSNR is that of clean and of masked, or noisy, held-out
images, at the last evaluation.
"""

import argparse
import shlex
from pathlib import Path

from leae.training.pictures import cut
from leae.training.run import RUNS, Run, read_metrics
from leae.training.settings import Parser

ROW = "{:21}  {:13}  {:10}  {:>7}  {:>12}  {:11}  {:10}"
PSNR = ("psnr_clean", "psnr_masked", "psnr_noisy")
WIDTH = 90  # letters of the options


def describe(folder: Path) -> str:
    """The lines of a run's folder; a `UsageError` or another error, which says why, if it is damaged."""
    run = Run.read(folder)
    rows = read_metrics(folder) if (folder / "metrics.csv").exists() else []
    last = rows[-1] if rows else {"step": 0, "epoch": 0}
    epochs = f"{float(last['epoch']):.3g} of {run.settings['EPOCHS']}"
    measured = [row for row in rows if "psnr_clean" in row] or [{}]
    psnr = " ".join(f"{float(measured[-1][name]):.2f}" for name in PSNR if name in measured[-1])
    texts = folder.name, run.kind, Path(run.data["name"]).name, f"{int(last['step']):,}", epochs, psnr
    options = shlex.join(run.content["command"][1:])
    return f"{ROW.format(*texts, str(run.content['started'])[:10])}\n    {cut(options, WIDTH)}".rstrip()


def add_arguments(parser: Parser) -> None:
    """There are none."""


def main(options: argparse.Namespace) -> None:
    folders = [path for path in RUNS.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        print(f"no runs in {RUNS}/ yet; uv run main.py makes one")
        return
    print(ROW.format("run", "kind", "data", "steps", "epochs", "PSNR (dB)", "begun"))
    for folder in sorted(folders):
        try:
            print(describe(folder))
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            print(f"{folder.name}: {str(error).split(';')[0]}")
