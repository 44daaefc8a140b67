"""What a user is told, and a user's mistake: the exception, the checks that raise it, where it becomes a line."""

import errno
import math
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO

from tqdm import tqdm

MOST = 10**9  # of any whole-number setting

# What to do about an operating system's error, by its number.
ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "raise the limit on the size of files, or write elsewhere",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EROFS: "write elsewhere",
    errno.ENOENT: "check the path, or restore it",
}


class UsageError(ValueError):
    """A setting, file or folder that cannot be used; the message says what came, what is expected, what to do."""


def require(condition: bool, name: str, value, expected: str) -> None:
    """Refuse a setting by a `UsageError`: `require(name in names, "--attribute", name, "one of …")`."""
    if not condition:
        raise UsageError(f"{name} is {value!r}; it must be {expected}")


def require_whole(minimum: int, maximum: int = MOST, /, **values) -> None:
    """Refuse settings that are not whole numbers in a range: `require_whole(1, EPOCHS=EPOCHS)`."""
    for name, value in values.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= minimum, name, value, f"a whole number, at least {minimum}")
        require(value <= maximum, name, value, f"at most {maximum}")


def require_in(interval: str, **values) -> None:
    """Refuse settings that are not finite numbers in an interval: `require_in("[0, 1)", WARMUP=WARMUP)`."""
    low, high = map(float, interval[1:-1].split(","))  # a bracket includes an end, a parenthesis does not
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        inside = number and low <= value <= high and not (interval[0] == "(" and value == low)
        require(inside and not (interval[-1] == ")" and value == high), name, value, f"a number in {interval}")


def require_choice(choices: Collection[str], **values) -> None:
    """Refuse settings that are none of the choices: `require_choice(("mse", "bce"), RECONSTRUCTION_LOSS=loss)`."""
    *others, last = choices
    for name, value in values.items():
        known = isinstance(value, str) and value in choices
        require(known, name, value, f"{', '.join(others)} or {last}")


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def say(text: str) -> None:
    """Print a line; on a terminal it wraps at words."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print(textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


class TolerantStream:
    """A standard stream that drops what it cannot write: a run goes on without its terminal, or room for its log."""

    def __init__(self, stream: IO[str] | None):
        self.stream = stream  # None where it was closed from the start

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):  # full or hung up, closed, None
            self.stream.write(text)
        return len(text)

    def isatty(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            return self.stream.isatty()
        return False

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self.stream.flush()


def signals_to_end() -> list[signal.Signals]:
    """What asks a process to end, besides Ctrl-C: SIGTERM, and SIGHUP where `nohup` has not made it ignored."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, hangup]


def run_command(main: Callable[[], None], name: str | None = None) -> None:
    """Run a script's `main`. A user's mistake becomes one line, which begins with a name, and exit status 2.

    So does an `OSError` that names a file, and memory that ran out. Ctrl-C, SIGTERM and SIGHUP end with the statuses
    130, 143 and 129; what a training loop does with them is `leae.training.signals`'s. Any other exception is a bug and
    keeps its traceback. Of several processes that share a run, only the first one prints.
    """
    name = name or Path(sys.argv[0]).name
    first = os.environ.get("RANK", "0") == "0"
    before = {number: signal.signal(number, _terminate) for number in signals_to_end()}
    sys.stdout, sys.stderr = TolerantStream(sys.stdout if first else None), TolerantStream(sys.stderr)
    try:
        main()
    except (UsageError, OSError, MemoryError, RuntimeError) as error:
        line = _line_for(error)
        if line is None:
            raise
        if first:
            said = f"{name}: {line}".replace("\n", "\\n")  # one line, whatever a name has in it
            tqdm.write(said, file=sys.stderr)  # above a progress bar
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(128 + (interruption.args[0] if interruption.args else signal.SIGINT))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line_for(error: Exception) -> str | None:
    """What is said of an error; None for a bug."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        advice = ADVICE.get(error.errno, "check the file, or the disk")
        return f"{os.fsdecode(error.filename)}: {error.strerror}; {advice}"
    # PyTorch, not imported here, has an exception for a GPU whose memory ran out, and none for the machine's.
    names = [kind.__name__ for kind in type(error).__mro__]
    if "MemoryError" in names or "OutOfMemoryError" in names or "DefaultCPUAllocator" in str(error):
        reason = str(error).strip().split("\n")[0] or "no memory is left"
        return f"{reason}; lower BATCH_SIZE, IMAGE_SIZE or HIDDEN_DIM"
    return None


def _terminate(number: int, frame) -> None:
    raise KeyboardInterrupt(number)  # as Ctrl-C does
