"""Ctrl-C, SIGTERM, which cluster schedulers send, and SIGHUP held back until a step is made and saved."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

from leae.distributed import barrier, world_size
from leae.errors import signals_to_end


class StopSignal:
    """`with StopSignal() as stop:` within the block the first Ctrl-C, SIGTERM or SIGHUP only sets `stop.requested`.

    From then on they have the effect again that they had before the block, so a second one ends the process at once.
    Processes that share a run have to stop after the same step: there `requested` waits for `agreed`, which is set
    where they exchange their loss terms anyway.
    """

    def __init__(self):
        self.received: int | None = None  # the signal
        self.agreed = False  # by all processes

    def __enter__(self) -> "StopSignal":
        self.before = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, *signals_to_end())}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = number
        self.__exit__()

    @property
    def requested(self) -> bool:
        """Whether the run is to be saved and left."""
        return self.received is not None if world_size() == 1 else self.agreed

    def exit(self, step: int, folder: Path) -> NoReturn:
        """End the process, once the run is saved, with the status 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        launcher = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} " if world_size() > 1 else ""
        command = f"uv run {launcher}{shlex.join([sys.argv[0], '--resume', str(folder)])}"
        print(f"stopped after step {step:,} and saved; resume with: {command}", flush=True)
        barrier()  # torchrun ends the others when it sees the first one go, and one of them may still be writing
        sys.exit(128 + (self.received or signal.SIGTERM))
