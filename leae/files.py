"""Files: atomic writes, which leave the old content or the new one but never a part of either; locks; digests."""

import csv
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import IO

import numpy as np
from filelock import FileLock, Timeout

from leae.errors import UsageError, first_line

MAX_TEXT = 2**26  # bytes of a file of texts or figures
MAX_LETTERS = 5000  # of a text in it; a path has at most 4,096
MAX_UNPACKED = 2**30  # bytes of the arrays in a .npz file, if they are
MAX_PACKED = 256  # times as many as its packed ones
TEMPORARY = f".{{}}.{8 * '[0-9a-f]'}.tmp"  # the names of a file's temporary ones, as a pattern
PATIENCE = 5  # seconds
TIMEOUT = 30  # seconds that a server may say nothing
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
# A text, no number, that a spreadsheet may run (by OWASP's list), or that looks like one which has been made safe.
FORMULA = re.compile(r"(?!-[\d.]+([eE][+-]?\d+)?$|-inf$)['=+@＝＋－＠\t\r\n-]")
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def names_file(path: Path | zipfile.Path) -> Iterator[None]:
    """An OSError of the system's that leaves the block names `path` if it names nothing, or a temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its name only once it is complete and on disk.

    What is written goes to `.<name>.<random>.tmp` in the same folder; leaving the block without an exception renames
    that to `path`, in one step, over whatever was there. After an exception `path` is as it was; an OSError names
    `path`. Of processes that write a file at the same time, the last one to finish has it. The mode is "w" for text
    (UTF-8, with backslash escapes for what it lacks; line ends as written), or "wb" for bytes.
    """
    temporary = temporary_of(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with names_file(path):
        try:
            with temporary.open(mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def read_bytes(path: Path | zipfile.Path, limit: int = MAX_TEXT) -> bytes:
    """The content of a file that was found by its name.

    A `UsageError` if it is a pipe, say, which may never end, or has more than `limit` bytes.
    """
    require_regular(path)
    if says_empty(path):
        return b""
    with path.open("rb") as file:
        content = file.read(limit + 1)  # whatever size it claims
    if len(content) > limit:
        raise UsageError(f"{path} has more than {limit:,} bytes; move it away")
    return content


def require_regular(path: Path | zipfile.Path) -> None:
    """Refuse what is there and no file, as a pipe, which may never end: `UsageError`."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file; move it away")


def says_empty(path: Path | zipfile.Path) -> bool:
    """Whether a file has no size, and so is not to be read: those of /proc have none, and may never end."""
    return isinstance(path, Path) and path.exists() and not path.stat().st_size


def remove(path: Path) -> None:
    """Delete what lies there, a folder with all that is in it; of a link, the link alone. What cannot go stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read_json(path: Path, shape: dict) -> dict:
    """The content of a JSON file; a ValueError or RecursionError if it is damaged, or has a `misfit`.

    A whole number of twenty digits or more becomes a float. Raises what `read_bytes` does, too.
    """
    content = json.loads(read_bytes(path), parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
    if name := misfit(content, shape, path.name):
        raise ValueError(f"{name} is missing, too long or of another type")
    return content


def misfit(value, shape, name: str) -> str | None:
    """The name of the first part of a value from JSON that is missing, too long or not of its type; None if none is.

    A shape is a type or a union of types, (one shape, or another), [the shape of every entry], {str: the shape of every
    value}, or {"name": its shape, …}, where there may be others besides.
    """
    if isinstance(shape, tuple):
        return None if any(misfit(value, one, name) is None for one in shape) else name
    if isinstance(shape, type | UnionType):
        bad = isinstance(value, str) and (len(value) > MAX_LETTERS or "\0" in value)  # which no path may have
        return None if isinstance(value, shape) and not bad else name
    if type(value) is not type(shape):
        return name
    if isinstance(shape, list):
        parts = [(entry, shape[0], name) for entry in value]
    elif str in shape:
        parts = [(entry, shape[str], key) for key, entry in value.items()]
    else:
        parts = [(value.get(key), of, key) for key, of in shape.items()]
    return next(filter(None, (misfit(*part) for part in parts)), None)


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Those of these arrays that a .npz file has, by name, or that of a .npy file as `images`.

    `UsageError` if it is neither, or packs gigabytes into megabytes.
    """
    require_regular(path)
    try:
        if says_empty(path):
            raise ValueError("it is empty")
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"images": np.atleast_1d(found)}
            parts = [part for part in found.zip.infolist() if part.filename.removesuffix(".npy") in names]
            size, packed = sum(part.file_size for part in parts), sum(part.compress_size for part in parts)
            packed = min(packed, path.stat().st_size)  # its parts may overlap, or lie
            if size > max(MAX_UNPACKED, MAX_PACKED * packed):
                raise ValueError(f"its arrays would be {size:,} bytes, of {packed:,}")
            arrays = {name: np.atleast_1d(found[name]) for name in names if name in found.files}
            if any(array.size and not array.itemsize for array in arrays.values()):
                raise ValueError("it has texts that take no bytes, so that there may be any number of them")
            return arrays
    except MemoryError as error:
        raise MemoryError(f"{path}: {error}") from error
    except Exception as error:  # of NumPy, zipfile and zlib
        why = first_line(error).partition(". ")[0]  # without NumPy's advice to unpickle
        raise UsageError(f"{path} is no .npy or .npz file of numbers ({why})") from error


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a .npz file atomically; its first member, `leae`, says who has."""
    with atomic_write(path, "wb") as file:
        np.savez(file, leae=np.array("leae"), **arrays)


def describe(array: np.ndarray) -> str:
    """An array's type, shape and range, for messages."""
    ends = f" from {array.min():g} to {array.max():g}" if array.size and array.dtype.kind in "fiu" else ""
    return f"{array.dtype} {list(array.shape)}{ends}"


def write_json(path: Path, content: dict | list) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=2)


def write_csv(path: Path, header: Iterable, rows: Iterable[Iterable]) -> None:
    """Write a CSV file atomically, a FORMULA behind an apostrophe, so that a spreadsheet shows it as the text it is."""
    with atomic_write(path) as file:
        safe = ([f"'{x}" if isinstance(x, str) and FORMULA.match(x) else x for x in row] for row in (header, *rows))
        csv.writer(file).writerows(safe)


def fetch_snapshot(name: str, **options) -> Path:
    """A repository of a model hub, by huggingface_hub's `snapshot_download`, which raises much; the folder it is in.

    A hub that says nothing for TIMEOUT seconds is not waited for: by itself that library would, and so does Xet, a way
    to transfer large files, which is not used.
    """
    from huggingface_hub import constants, get_session, snapshot_download

    def limit(request):
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)

    session, xet = get_session(), constants.HF_HUB_DISABLE_XET
    before = session.event_hooks
    session.event_hooks = before | {"request": [*before["request"], limit]}
    constants.HF_HUB_DISABLE_XET = True
    try:
        return Path(snapshot_download(name, **options))
    finally:
        session.event_hooks, constants.HF_HUB_DISABLE_XET = before, xet


@contextmanager
def server_timeout() -> Iterator[None]:
    """A block in which connections without a timeout of their own have TIMEOUT."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def as_utf8(text: str) -> str:
    """A text with \\udcNN for bytes that are not UTF-8, as file names may have: no text file takes these."""
    return text.encode("utf-8", "backslashreplace").decode()


def temporary_of(path: Path) -> Path:
    """A new path beside this one, by a TEMPORARY name."""
    return path.with_name(f".{short_name(path, 240)}.{secrets.token_hex(4)}.tmp")  # a name has at most 255 bytes


def short_name(path: Path, most: int = 100) -> str:
    """What a path ends in, cut after so many bytes, as a longer name may have no room for what is put beside it."""
    return path.name.encode("utf-8", "surrogateescape")[:most].decode("utf-8", "ignore")


def digest(*parts) -> str:
    """sha256, in hex, of the parts as Python writes them."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def acquire_lock(path: Path, wait: bool = True) -> FileLock:
    """Hold a lock file until it is released or the process ends; without `wait`, `Timeout` if another process does.

    In a read-only place nothing is held, as nothing can be changed there; nor on a file system that has no locks, which
    is said. A wait of more than PATIENCE seconds is said, too.
    """
    # Other users wait for it, too. What it would fall back to stays when its process is killed.
    lock = FileLock(path, mode=0o666, fallback_to_soft=False)
    try:
        with names_file(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout:
        if not wait:
            raise
        print(f"waiting for the process that holds {path}", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        if error.errno in NO_LOCKS:
            said = f"{path}: this file system has no locks; do not let two processes work on the same things"
            print(f"warning: {said}", file=sys.stderr)
        elif error.errno not in READ_ONLY:
            raise
    return lock


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of the processes that enter a block with the same path, let one in at a time, by a lock file beside it."""
    lock = acquire_lock(path.with_name(f".{path.name}.lock"))
    try:
        yield
    finally:
        lock.release()
