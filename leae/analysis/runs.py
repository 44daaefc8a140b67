"""A table of the runs here: data, settings, progress and figures of each.

    uv run -m leae runs

A run's second line has the constants in which it differs from its script's, as that is now. PSNR is that of clean and
of masked, or noisy, held-out images, at the last evaluation.
"""

import argparse
import math
from pathlib import Path

from leae.training.pictures import cut
from leae.training.run import CHANGEABLE, RUNS, Run
from leae.training.settings import Parser, script_constants

SCRIPTS = Path(__file__).parents[2]
SHOWN = ("DATASET", "NAME", "RESUME", *CHANGEABLE)  # elsewhere in the table, or of no effect on a number
HEADS = {"run": 21, "kind": 13, "data": 10, "steps": 16, "PSNR (dB)": 11, "begun": 10, "size": 7}  # widths
SHOWN_PSNR = ("psnr_clean", "psnr_masked", "psnr_noisy")
WIDTH = 100  # of the whole table


def differences(run: Run) -> str:
    """The constants that differ from those of the script that made a run, with a GPU or without: where fewer do."""
    script = SCRIPTS / ("main.py" if run.kind == "self-teaching" else "main_regular.py")
    told = {*SHOWN, "OBJECTIVE"} if run.settings.get("OBJECTIVE") == run.kind else SHOWN
    ours = [{k: v for k, v in script_constants(script, gpu).items() if k not in told} for gpu in (True, False)]
    found = [
        [f"{k}={run.settings[k]}" for k, v in defaults.items() if run.settings.get(k, v) != v] for defaults in ours
    ]
    return " ".join(text.replace(" ", "") for text in min(found, key=len))


def steps_of(settings: dict, rows: list[dict[str, str]]) -> str:
    """The steps that have been made and, once there is a row that tells an epoch's, those of the whole run."""
    made = max((int(row["step"]) for row in rows), default=0)
    per_epoch = [int(row["step"]) / float(row["epoch"]) for row in rows if float(row["epoch"]) > 0]
    whole = min(settings["EPOCHS"] * round(per_epoch[-1]) if per_epoch else math.inf, settings["MAX_STEPS"] or math.inf)
    return f"{made:,}" if whole == math.inf else f"{made:,} of {whole:,}"


def describe(folder: Path) -> list[str]:
    """The lines of a run's folder; a `UsageError` or another error, which says why, if it is damaged."""
    run = Run.read(folder)
    rows = run.read_metrics() if (folder / "metrics.csv").exists() else []
    measured = [row for row in rows if row["split"] != "train"] or [{}]
    psnr = " ".join(f"{float(value):.2f}" for name, value in measured[-1].items() if name in SHOWN_PSNR)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size = f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"
    data, begun = Path(run.data["name"]).name, str(run.content["started"])[:10]
    lines = [row_of(folder.name, run.kind, data, steps_of(run.settings, rows), psnr, begun, size)]
    differing = differences(run)
    return [*lines, "    " + cut(differing, WIDTH - 4)] if differing else lines


def row_of(*texts: str) -> str:
    """A line of the table."""
    return "  ".join(cut(text, width).ljust(width) for text, width in zip(texts, HEADS.values(), strict=True)).rstrip()


def add_arguments(parser: Parser) -> None:
    """There are none."""


def main(options: argparse.Namespace) -> None:
    folders = [path for path in RUNS.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        print(f"no runs in {RUNS}/ yet; uv run main.py makes one")
        return
    print(row_of(*HEADS))
    for folder in sorted(folders):
        try:
            lines = describe(folder)
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            lines = [cut(f"{folder.name}: {str(error).split(';')[0]}", WIDTH)]
        print("\n".join(lines))
