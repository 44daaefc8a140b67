"""Real processes that run the scripts, forked from one that has imported everything.

Starting Python and importing PyTorch takes seconds, which a test that kills a dozen runs does not have.
"""

import ctypes
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from leae.__main__ import COMMANDS
from leae.files import atomic_write
from leae.training.run import Run

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
IMPORTED = ["pytest", "torchvision.datasets", *COMMANDS.values(), __name__]


STANDALONE = ("--standalone", "--nproc-per-node", "2")  # torchrun's options


def torchrun(folder: Path, *command: str, options: Sequence[str] = STANDALONE) -> subprocess.Popen:
    """Two processes that share what a script does; what they print comes through pipes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen([*launcher, *command], cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def draw_no_metrics(run: Run) -> None:
    """metrics.png as an empty file: drawing it takes most of a short run's time."""
    with atomic_write(run.folder / "metrics.png", "wb"):
        pass


class Processes:
    """Starts processes, sends them signals, and waits for their ends."""

    def __init__(self):
        os.environ.update(ENVIRONMENT)  # the server's, which is started with the first process
        self.context, self.started = multiprocessing.get_context("forkserver"), {}
        self.context.set_forkserver_preload(IMPORTED)

    def start(
        self,
        script: str,
        *options,
        folder: Path,
        bytes_of_a_file: int = resource.RLIM_INFINITY,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run "main.py", or "-m leae", as `python main.py …` would, but for metrics.png; its number as a process.

        It works in the folder, made if need be, where what it prints goes to `output`, and leads a group of processes,
        as a command does that is typed in a terminal. `bytes_of_a_file` is the most that a file of its may have.
        """
        folder.mkdir(exist_ok=True)
        command = (script, *map(str, options)), folder, bytes_of_a_file, environment or {}
        process = self.context.Process(target=live, args=command)
        process.start()
        self.started[process.pid] = process
        return process.pid

    def wait(self, child: int) -> int:
        """The exit status of a process, once it has ended; of one that was killed, minus the signal."""
        process = self.started.pop(child)
        process.join()
        return process.exitcode

    def stop(self, child: int, number: int = signal.SIGTERM) -> int:
        """Send a process a signal and wait for its end."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(child, number)
        return self.wait(child)

    def run(self, script: str, *options, **how) -> int:
        """Start a process and wait for it."""
        return self.wait(self.start(script, *options, **how))

    def close(self) -> None:
        for process in self.started.values():  # a test that failed has left it
            process.kill()


def live(arguments: tuple[str, ...], folder: Path, bytes_of_a_file: int, environment: dict) -> None:
    """What a process does."""
    signal.alarm(300)  # ends one that hangs
    multiprocessing.set_start_method(None, force=True)  # what the script starts itself comes in the system's way
    os.environ.update(environment)
    os.setpgid(0, 0)
    os.chdir(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, bytes_of_a_file))
    drop_privileges()
    Run.plot_metrics = draw_no_metrics
    sys.argv = list(arguments)
    if arguments[0] == "-m leae":
        runpy.run_module("leae", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")


def drop_privileges() -> None:
    """Folders without write permission are read-only for this process from here on, even if it is root's."""
    version_3, this_process = 0x20080522, 0
    header, capabilities = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)()
    if sys.platform == "linux" and ctypes.CDLL(None).capset(header, capabilities) != 0:
        raise OSError("capset failed")
