"""The one exception for something the user gave that cannot be used."""

import os
import sys
from collections.abc import Callable
from pathlib import Path


class UsageError(ValueError):
    """A setting, file or folder that cannot be used; the message says what came, what is expected, what to do."""


def run_command(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UsageError` becomes one line on the error stream and the exit status 2.

    Any other exception is a bug and keeps its traceback.
    """
    try:
        main()
    except UsageError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes that share a run, one says it
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(130)
