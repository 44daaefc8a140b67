"""The one exception for something the user gave that cannot be used."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm


class UsageError(ValueError):
    """A setting, file or folder that cannot be used; the message says what came, what is expected, what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which asks a process to end as Ctrl-C does."""


def _terminate(number: int, frame) -> None:
    raise Terminated


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out: a GPU's, for which PyTorch has an exception, or the machine's, for which it has none."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def run_command(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UsageError` becomes one line on the error stream and the exit status 2.

    Ctrl-C and SIGTERM clean up behind them and end with the statuses 130 and 143; what a training loop does with
    them is `leae.training.signals`'s. Any other exception is a bug and keeps its traceback.
    """
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate), signal.SIGINT: signal.getsignal(signal.SIGINT)}
    name = Path(sys.argv[0]).name
    try:
        main()
    except UsageError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes that share a run, one says it
            tqdm.write(f"{name}: {error}", file=sys.stderr)  # on a line of its own, above a progress bar
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no memory is left"
        tqdm.write(f"{name}: {reason}; lower BATCH_SIZE, IMAGE_SIZE or HIDDEN_DIM", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
