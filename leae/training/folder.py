"""What a run's folder is called, and what it says of the run. Reading it needs no PyTorch."""

import csv
import json
import re
from pathlib import Path

from leae.errors import UsageError, require

RUNS = Path("runs")
CHECKPOINTS = ("000", "020", "040", "060", "080", "100")  # percent of a run at which one is kept
# Constants that are no part of the experiment.
CHANGEABLE = ("DEVICE", "COMPILE", "LOG_EVERY", "GRID_EVERY", "GRID_IMAGES", "SAVE_MINUTES")


def require_new(name: str) -> None:
    """Refuse a run's name that is no plain folder name, or is taken: `UsageError`."""
    plain = re.fullmatch(r"\w[\w.+=-]{0,99}", name)
    require(plain is not None, "NAME", name, "a folder's name: letters, digits, and behind the first also . _ + = -")
    if (RUNS / name).exists():
        raise UsageError(f"{RUNS / name} exists; choose another --name, or resume it: --resume {RUNS / name}")


def tuples(value):
    """A setting as it was before JSON made a list of a tuple."""
    return tuple(value) if isinstance(value, list) else value


def read_settings(folder: Path, name: str = "settings.json") -> dict:
    """The content of settings.json: "kind", "settings", "data" and more; a `UsageError` if it is not a run's.

    An exported folder has the same under another name.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        kind, settings = content["kind"], {name: tuples(value) for name, value in content["settings"].items()}
        texts = (kind, *(content["data"][name] for name in ("name", "title", "identity")))
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("kind or data are not texts")
    except KeyError as error:
        said = f"{folder}/{name} has no {error}: the run is of another version of leae"
        raise UsageError(f"{said}; train it again") from error
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError, RecursionError) as error:
        known = ", ".join(sorted(str(path.parent) for path in RUNS.glob("*/settings.json"))) or "none yet"
        message = f"{folder} is not a run's folder (no {name} of a run); runs here: {known}"
        raise UsageError(message) from error
    return {**content, "settings": settings}


def read_metrics(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and complete rows of metrics.csv; a last one that was cut off, by a full disk say, is left out.

    A `UsageError` if there are other things in it.
    """
    path = folder / "metrics.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        reader = csv.DictReader(line for line in lines if line.endswith("\n"))
        rows, columns = list(reader), list(reader.fieldnames or ["split", "step", "epoch"])
        for row in rows:
            if None in row or None in row.values() or int(row["step"]) < 0:
                raise ValueError(f"the row of step {row['step']} does not have {len(columns)} columns")
            [float(row[name]) for name in columns[2:] if row[name]]
    except (ValueError, TypeError, LookupError, csv.Error) as error:
        raise UsageError(f"{path} is damaged ({error}); move it away to resume without these rows") from error
    return columns, [{name: value for name, value in row.items() if value} for row in rows]
