"""Ctrl-C and SIGTERM, which cluster schedulers send, held back until a step is finished and saved."""

import os
import shlex
import signal
import sys
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """`with Stop() as stop:` the first of the two signals is only remembered within the block, as `stop.signal`.

    From then on both have the effect again that they had before the block, so that a second one stops at once.
    """

    def __init__(self):
        self.signal = None
        self.before = {}

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame) -> None:
        self.signal = number
        self.__exit__()

    @property
    def status(self) -> int:
        """The exit status that tells a shell of the signal: 130 for SIGINT, 143 for SIGTERM.

        Where only another process of a shared run had the signal, SIGTERM's.
        """
        return 128 + (self.signal or signal.SIGTERM)


def command_to_resume(folder: Path) -> str:
    """What to type to go on with a run of this script."""
    launcher = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} " if world_size() > 1 else ""
    return f"uv run {launcher}{shlex.join([sys.argv[0], '--resume', str(folder)])}"
