"""Files and folders that are written whole or not at all, and locks that end with the process."""

import errno
import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from leae.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

# What to do about the causes that a user can do something about.
ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "raise the limit of a file's size, or write elsewhere",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EROFS: "write elsewhere",
    errno.ENOENT: "bring the folder back",
}
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # from file systems that have none


def cannot_be_written(path: Path, error: OSError) -> UsageError:
    """The line for a user whose disk, folder or file does not let us write."""
    advice = ADVICE.get(error.errno, "look after the disk")
    return UsageError(f"{path} cannot be written ({error.strerror}); {advice}; what was there before is as it was")


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its name only once it is complete and on disk.

    What is written goes to a temporary file in the same folder; leaving the block without an exception renames it
    to `path`, in one step, over whatever was there. After an exception `path` is as it was.

    Args:
        path: where the file is to be.
        mode: "w" for text (UTF-8, line ends as written), "wb" for bytes.

    Raises:
        UsageError: it cannot be written; the message says why.
    """
    temporary = None
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private to their owner
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or _is_below(path.parent, error.filename)):
            raise cannot_be_written(path, error) from error  # what fails in writing names nothing
        raise


@contextmanager
def whole_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """A new folder to fill, which takes the name `path` only once the block ends without an exception.

    After an exception `path` is as it was.

    Args:
        path: where the folder is to be; its parents are made.
        replace: whether it takes the place of a folder that has the name already.

    Raises:
        FileExistsError: there is one, and it is not to be replaced.
        UsageError: it cannot be written; the message says why.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            if not replace:
                raise FileExistsError(path)
            outdated = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
            path.rename(outdated / path.name)
            temporary.rename(path)
            shutil.rmtree(outdated)
        else:
            _rename_new(temporary, path)
    except BaseException as error:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        ours = isinstance(error, OSError) and not isinstance(error, FileExistsError)
        if ours and error.filename is not None and _is_below(path.parent, error.filename):
            raise cannot_be_written(path, error) from error
        raise


def _rename_new(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was quicker
            raise FileExistsError(path) from error
        raise


def _is_below(folder: Path, name: str | bytes) -> bool:
    return Path(os.fsdecode(name)).absolute().is_relative_to(folder.absolute())


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Of the processes that enter a block with the same path, one is in it; the others wait until it leaves or dies.

    Args:
        path: of a file that is there only meanwhile; its folder is made.

    Raises:
        UsageError: it cannot be written; the message says why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        # Who leaves takes the file away: whoever then had it open waited for a file that is none any more.
        while not (_lock(file, wait=True) and os.fstat(file.fileno()).st_nlink):
            file.close()
            file = path.open("a")
    except OSError as error:
        raise cannot_be_written(path, error) from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


_held = {}  # by device and number of the file's inode, what `hold` keeps open


def hold(path: Path) -> bool:
    """Lock a file until this process ends, however it ends.

    Returns:
        Whether it is locked; if not, another process holds it. Asking again for what one has is fine.

    Raises:
        UsageError: the file is not there or may not be written.
    """
    try:
        file = path.open("r+b")
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) in _held or not _lock(file, wait=False):
            file.close()
            return (status.st_dev, status.st_ino) in _held
    except OSError as error:
        raise cannot_be_written(path, error) from error
    _held[status.st_dev, status.st_ino] = file
    return True


def _lock(file: IO, wait: bool) -> bool:
    """Lock an open file; False if another process has locked it and this one is not to wait."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def remove_empty(*folders: Path) -> None:
    """Remove those of the folders, in this order, in which there is nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _prefix(path: Path) -> str:
    """How the temporary names for a path begin: they tell machine and process.

    What a process on this machine that is no longer there has left behind for the same path is removed on the way.
    """
    ours = f".{path.name}.{platform.node()}-"
    for leftover in path.parent.glob(f"{glob.escape(ours)}*.tmp"):
        process = leftover.name.removeprefix(ours).split(".")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
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
