"""Files: atomic writes, which leave the old content or the new one but never a part of either; locks; digests."""

import csv
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock


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


def write_json(path: Path, content: dict | list) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=2)


def write_csv(path: Path, header: Iterable, rows: Iterable[Iterable]) -> None:
    """Write a CSV file atomically."""
    with atomic_write(path) as file:
        csv.writer(file).writerows([header, *rows])


def as_utf8(text: str) -> str:
    """A text with \\xNN for bytes that are not UTF-8, as file names may have: no text file takes these."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def digest(*parts) -> str:
    """sha256, in hex, of the parts as Python writes them."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of the processes that enter a block with the same path, let one in at a time, by a lock file beside it.

    In a read-only place there is no lock: nothing can be prepared there, and reading needs none.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        yield
    finally:
        lock.release()
