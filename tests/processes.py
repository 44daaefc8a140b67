"""A process that has imported everything and forks children that run the scripts, each of them a real process.

Starting Python and importing PyTorch takes seconds, which a test that kills a dozen runs does not have. Commands come
as lines of JSON on standard input, and every answer is a line.
"""

import ctypes
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from leae.__main__ import COMMANDS
from leae.files import atomic_write
from leae.training.run import Run

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(folder: Path, *command: str) -> subprocess.Popen:
    """Two processes that share what a script does; what they print comes through pipes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*launcher, *command], cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def draw_no_metrics(run: Run) -> None:
    """metrics.png as an empty file: drawing it takes most of a short run's time."""
    with atomic_write(run.folder / "metrics.png", "wb"):
        pass


class ForkServer:
    """The server as a test sees it: starts children, sends them signals, and waits for their ends."""

    def __init__(self):
        command, pipe = [sys.executable, "-m", "tests.processes"], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT, cwd=ROOT)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, script: str, *options, folder: Path, bytes_of_a_file=-1, environment=(), own_group=False) -> int:
        """Run "main.py", or "-m leae", as `python main.py …` would, but for metrics.png; its number as a process.

        It works in the folder, made if need be, where what it prints goes to `output`. `bytes_of_a_file` is the most
        that a file of its may have, a real limit of the system's; −1 is none. With `own_group` it leads a group of
        processes, as a command does that is typed in a terminal.
        """
        folder.mkdir(exist_ok=True)
        command = {"arguments": [script, *map(str, options)], "folder": str(folder), "bytes": bytes_of_a_file}
        return self.ask(**command, environment=dict(environment), own_group=own_group)

    def wait(self, child: int) -> int:
        """The exit status of a child, once it has ended; of one that was killed, minus the signal."""
        return self.ask(wait=child)

    def stop(self, child: int, number: int = signal.SIGTERM) -> int:
        """Send a child a signal and wait for its end."""
        os.kill(child, number)
        return self.wait(child)

    def run(self, script: str, *options, **how) -> int:
        """Start a child and wait for it."""
        return self.wait(self.start(script, *options, **how))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    import torchvision.datasets  # noqa: F401, as what follows

    import leae.data.prepare
    import leae.training.settings  # noqa: F401

    Run.plot_metrics = draw_no_metrics
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1])
        else:
            if command["arguments"][0] == "-m leae":  # once, for all the children to come
                importlib.import_module(COMMANDS[command["arguments"][1]])
            answer = os.fork()
            if answer == 0:
                live(command)
        print(answer, flush=True)


def live(command: dict) -> None:
    """What a child does."""
    status = 0
    signal.alarm(300)  # ends one that hangs
    try:
        os.environ.update(command["environment"])
        if command["own_group"]:
            os.setpgid(0, 0)
        os.chdir(command["folder"])
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if command["bytes"] >= 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (command["bytes"], command["bytes"]))
        drop_privileges()
        script, *options = command["arguments"]
        sys.argv = [script, *options]
        if script.startswith("-m "):
            runpy.run_module(script[3:], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def drop_privileges() -> None:
    """Folders without write permission are read-only for this process from here on, even if it is root's."""
    version_3, this_process = 0x20080522, 0
    header, capabilities = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)()
    if sys.platform == "linux" and ctypes.CDLL(None).capset(header, capabilities) != 0:
        raise OSError("capset failed")


if __name__ == "__main__":
    serve()
