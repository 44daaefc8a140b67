"""Files and folders that are written whole or not at all."""

import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its name only once it is complete and on disk.

    What is written goes to a temporary file in the same folder; leaving the block without an exception renames it
    to `path`, in one step, over whatever was there. After an exception `path` is as it was.

    Args:
        path: where the file is to be.
        mode: "w" for text (UTF-8, line ends as written), "wb" for bytes.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private to their owner
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name `path` only once the block ends without an exception.

    A folder that has the name already is replaced. After an exception `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            outdated = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
            path.rename(outdated / path.name)
            temporary.rename(path)
            shutil.rmtree(outdated)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _prefix(path: Path) -> str:
    """How the temporary names for a path begin: they tell machine and process.

    What a process on this machine that is no longer there has left behind for the same path is removed on the way.
    """
    ours = f".{path.name}.{platform.node()}-"
    for leftover in path.parent.glob(f"{glob.escape(ours)}*.tmp"):
        process = leftover.name.removeprefix(ours).split(".")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return f"{ours}{os.getpid()}."


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless way to ask
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True
