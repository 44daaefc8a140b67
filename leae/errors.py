"""Mistakes: the exception, the checks that raise it, and the one place where it becomes a line for the user."""

import difflib
import gc
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NoReturn

import matplotlib
from tqdm import tqdm

LARGEST_WHOLE = 10**9  # of a whole-number setting, unless it says otherwise
NO_MEMORY = ("DefaultCPUAllocator", "could not create a primitive")  # the latter is oneDNN's
# The signals that asked this command to end: what a handler raises may be lost, as Cython's modules catch everything.
ENDING: list[int] = []


class UsageError(ValueError):
    """A value, file or folder that cannot be used; the message says what came, what is expected, what to do."""


def require(condition: bool, name: str, value, expected: str) -> None:
    """Refuse a value by a `UsageError`: `require(name in names, "--attribute", name, "one of …")`."""
    if not condition:
        raise UsageError(f"{name} is {value!r}; it must be {expected}")


def require_whole(minimum: int, maximum: int = LARGEST_WHOLE, /, **values) -> None:
    """Refuse values that are not whole numbers in a range: `require_whole(1, latent_dim=latent_dim)`."""
    for name, value in values.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= minimum, name, value, f"a whole number, at least {minimum}")
        require(value <= maximum, name, value, f"at most {maximum}")


def require_in(interval: str, **values) -> None:
    """Refuse values that are not finite numbers in an interval: `require_in("[0, 1)", decay=decay)`."""
    low, high = map(float, interval[1:-1].split(","))  # a bracket includes an end, a parenthesis does not
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        inside = number and low <= value <= high and not (interval[0] == "(" and value == low)
        require(inside and not (interval[-1] == ")" and value == high), name, value, f"a number in {interval}")


def require_choice(choices: Collection[str], **values) -> None:
    """Refuse values that are none of the choices: `require_choice(("mse", "bce"), kind=kind)`."""
    for name, value in values.items():
        require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(filter(None, choices))}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """What a message about an unknown name says of the closest known one; empty if none is close."""
    return "".join(f", did you mean {close}?" for close in difflib.get_close_matches(name, names, n=1))


def is_installed(module: str) -> bool:
    """Whether it can be imported; a folder of that name, which has no origin, cannot."""
    return bool(getattr(find_spec(module), "origin", None))


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# What a terminal obeys or turns around, except what ends lines and moves progress bars.
CONTROLS = re.compile("(?!\x1b\\[A)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text with backslash escapes for what would end a line, and for all else that cannot be printed."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class TolerantStream:
    """A standard stream on which output that cannot be written is lost: a full disk, a terminal that was closed.

    What its encoding lacks, and what names in files may tell a terminal to do, is written with backslash escapes.
    """

    def __init__(self, stream: IO[str] | None):  # None where it was closed from the start
        self.stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as long as the process
        with suppress(AttributeError, ValueError, OSError):  # not every stream has an encoding to set
            self.stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it was closed
            self.stream.write(CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self.stream.flush()


def signals_to_end() -> list[signal.Signals]:
    """What asks a process to end, besides Ctrl-C: SIGTERM, SIGUSR1 (SLURM's --signal), SIGHUP unless under `nohup`."""
    found = [getattr(signal, name, None) for name in ("SIGTERM", "SIGUSR1", "SIGHUP")]  # Windows has the first alone
    return [number for number in found if number and signal.getsignal(number) != signal.SIG_IGN]


def run_command(main: Callable[[], None], name: str | None = None) -> None:
    """Run the `main` of a script or a command. A user's mistake becomes one line, `name: …`, and exit status 2.

    So does an `OSError` of the system's, and memory that ran out. Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP end with the
    statuses 130, 143, 138 and 129, unless a training loop holds them back (`leae.training.loop.StopSignal`). Any other
    exception is a bug and keeps its traceback.

    Of several processes that share a run, only the first one prints; but each says why it fails, as it may be the only
    one. It ends at once, without the clean-up that would wait for the others; torchrun ends those.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # what a shell or a notebook has left; torchrun sets all of them
        for left in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(left, None)
    name = name or Path(sys.argv[0]).name
    rank = os.environ.get("RANK", "0")
    first, end = rank == "0", sys.exit if os.environ.get("WORLD_SIZE", "1") == "1" else _end_at_once
    ENDING.clear()
    matplotlib.rcdefaults()  # whatever a matplotlibrc says, such as that TeX is to be used
    before = {}
    try:
        before |= {number: signal.signal(number, _terminate) for number in signals_to_end()}
        sys.stdout, sys.stderr = TolerantStream(sys.stdout if first else None), TolerantStream(sys.stderr)
        main()
        if ENDING:
            raise KeyboardInterrupt
    except SystemExit as error:
        traceback.clear_frames(error.__traceback__)  # a notebook keeps it, and with it a run's model and its lock
        raise
    except (Exception, KeyboardInterrupt) as error:
        for number in (signal.SIGINT, *before):  # another one, while this is said
            before.setdefault(number, signal.signal(number, signal.SIG_IGN))
        if ENDING or isinstance(error, KeyboardInterrupt):
            print(f"\n{name}: interrupted", file=sys.stderr)
            sys.exit(128 + [*ENDING, *error.args, signal.SIGINT][0])
        line = _line_for(error)
        if line is None:
            if end is sys.exit:
                raise
            traceback.print_exc()
            end(1)
        said = f"{name if first else f'{name}, process {rank}'}: {line}"
        tqdm.write(one_line(said), file=sys.stderr)  # above a progress bar
        end(2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        gc.collect()  # a notebook goes on, and a run whose lock is in a cycle could not be resumed in it


def _end_at_once(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _line_for(error: Exception) -> str | None:
    """What is said of an error; None for a bug."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        lost = where and os.path.islink(error.filename) and not os.path.exists(error.filename)
        what = "it is a link to what is not there" if lost else error.strerror
        return f"{where}{what}; check the path, its permissions and the disk"
    # PyTorch, not imported here, has an exception for a GPU whose memory ran out, and only words for the machine's.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or any(words in str(error) for words in NO_MEMORY):
        reason = str(error).strip().split("\n")[0] or "no memory is left"
        return f"{reason}; use fewer or smaller images at a time, or a smaller model"
    return None


def _terminate(number: int, frame) -> None:
    ENDING.append(number)
    raise KeyboardInterrupt(number)  # as Ctrl-C does
