"""Where a model's weights are: in a run's folder, in an exported one, or on a model hub."""

import re
from pathlib import Path

from leae.errors import UsageError, first_line

# Of an exported folder: the first two by the names that hubs expect, the last with what a run's settings.json has.
WEIGHTS, CONFIG, ORIGIN = "model.safetensors", "config.json", "run.json"


def find_weights(name: str | Path) -> Path:
    """The checkpoint that is meant by a path, or by a hub's "owner/name", which is fetched if there is no such path.

    A folder's is model.safetensors or, in a run's, checkpoints/100.safetensors, else last.safetensors. A hub is
    never asked for what is in a folder here. `UsageError` if fetching is not possible.
    """
    path = Path(name)
    if path.is_dir():
        found = [path / WEIGHTS, *(path / "checkpoints" / f"{name}.safetensors" for name in ("100", "last"))]
        return next((file for file in found if file.is_file()), path)
    if path.exists() or path.parent.is_dir() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        return path
    missing = f"there is no {name} here"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        advice = "correct the path or, for a model on a hub, install huggingface-hub"
        raise UsageError(f"{missing}, and huggingface_hub, which would fetch it, is not installed; {advice}") from error
    try:
        return Path(snapshot_download(str(name), allow_patterns=[WEIGHTS, CONFIG, ORIGIN])) / WEIGHTS
    except (OSError, ValueError) as error:
        said = f"{missing}, and it cannot be fetched from the hub ({first_line(error)})"
        raise UsageError(f"{said}; correct the name, or try online") from error
