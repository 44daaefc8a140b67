"""Atomic writes: a file has its old content or its new one, never a part of either."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its name only once it is complete and on disk.

    What is written goes to `.<name>.tmp` in the same folder; leaving the block without an exception renames that to
    `path`, in one step, over whatever was there. After an exception `path` is as it was; an OSError names `path`. Only
    one process at a time may write a file; where several might, they hold a lock. The mode is "w" for text (UTF-8, line
    ends as written), or "wb" for bytes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # a full disk names nothing
            error.filename, error.filename2 = str(path), None
        raise
