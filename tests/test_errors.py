"""What a user's mistake looks like, and what a bug looks like."""

import errno
import io
import os
import re
import signal
import sys
import weakref
from pathlib import Path

import matplotlib
import pytest
from tqdm import tqdm

from leae.distributed import rank, world_size
from leae.errors import UsageError, run_command


def fail_with(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("EPOCHS is 0; it must be at least 1\nor more"), "EPOCHS is 0; it must be at least 1"),
        (OSError(errno.ENOSPC, "No space left", b"a/b.csv"), "a/b.csv: No space left; "),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory"), "main.py: No usable temporary directory; "),
        (MemoryError("Unable to allocate 8 TiB"), "Unable to allocate 8 TiB; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "can't allocate; "),
        (RuntimeError("could not create a primitive"), "could not create a primitive; use fewer"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(monkeypatch, capsys, error, says):
    monkeypatch.setattr("sys.argv", ["somewhere/main.py"])
    with pytest.raises(SystemExit) as stop:
        run_command(fail_with(error))
    assert stop.value.code == 2
    assert re.fullmatch(f"(main.py: .*)?{re.escape(says)}.*\n", capsys.readouterr().err)


def test_a_link_to_nothing_is_called_that(workplace, capsys):
    Path("data").symlink_to("disk")
    with pytest.raises(SystemExit):
        run_command(lambda: Path("data/prepared").mkdir(parents=True, exist_ok=True), "main.py")
    assert capsys.readouterr().err.startswith("main.py: data: it is a link to what is not there; ")


def test_pictures_are_drawn_without_the_users_matplotlibrc():
    with matplotlib.rc_context({"text.usetex": True}):
        run_command(lambda: None)
        assert not matplotlib.rcParams["text.usetex"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes do not match"), OSError("no file named")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(fail_with(error))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_each_says_its_mistake_and_ends_without_waiting_for_the_others(monkeypatch, capsys, rank):
    monkeypatch.setattr("os.environ", os.environ | {"RANK": rank, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"})
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit) as stop:
        run_command(fail_with(UsageError("no such GPU")), "main.py")
    assert stop.value.code == 2
    assert capsys.readouterr().err == {"0": "main.py: no such GPU\n", "1": "main.py, process 1: no such GPU\n"}[rank]


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


CLOSED = io.StringIO()
CLOSED.close()


@pytest.mark.parametrize("stream", [FullDisk(), CLOSED, None], ids=["full", "closed", "none"])
def test_output_that_cannot_be_written_stops_nothing(monkeypatch, stream):
    went_on = []

    def main():
        for _ in tqdm(range(3), mininterval=0):
            print("a line", flush=True)
        went_on.append(True)

    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    run_command(main)
    assert went_on


def test_what_the_terminals_encoding_lacks_is_written_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    run_command(lambda: print("λ: 64×64 pixels", flush=True))
    assert written.getvalue() == rb"\u03bb: 64\xd764 pixels" + b"\n"


def test_a_terminal_obeys_nothing_that_a_file_has_named(monkeypatch, capsys):
    run_command(lambda: print("\x1b]0;owned\x07 \x00 \x9b31m \u202e txt.exe λ é\tlast\n", end=""))
    assert capsys.readouterr().out == r"\x1b]0;owned\x07 \x00 \x9b31m \u202e txt.exe" + " λ é\tlast\n"
    with pytest.raises(SystemExit):
        run_command(fail_with(UsageError("no file a\rb\nc\x1b[2J")), "main.py")
    assert capsys.readouterr().err == r"main.py: no file a\rb\nc\x1b[2J" + "\n"


def test_a_progress_bar_moves_as_it_did(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    run_command(lambda: [None for _ in tqdm(range(2), position=1, mininterval=0)])
    assert "\r" in written.getvalue()
    assert "\x1b[A" in written.getvalue()


def test_ranks_that_no_torchrun_has_set_whole_are_left_overs(monkeypatch, capsys):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "x"), ("MASTER_ADDR", "gone")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    run_command(lambda: print(rank(), world_size()))
    assert capsys.readouterr().out == "0 1\n"


@pytest.mark.parametrize("becomes", [None, ImportError("initialization failed"), UsageError("no such file")])
def test_a_signal_ends_a_command_even_if_others_code_catches_what_it_raises(capsys, becomes):
    """As modules made by Cython do while they are imported: they go on, or raise an exception of their own."""

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:  # in such a module
            if becomes:
                raise becomes from None

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run_command(main, "leae play")
    assert stop.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "\nleae play: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before
    run_command(lambda: None)  # another one is not concerned


def test_a_signal_that_comes_before_a_command_has_begun_ends_it(monkeypatch, capsys):
    def reconfigure(stream, **how):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "stdout", type("Stream", (io.StringIO,), {"reconfigure": reconfigure})())
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: None, "leae play")
    assert stop.value.code == 128 + signal.SIGTERM


def test_what_ends_a_command_holds_nothing_of_it_as_a_notebook_keeps_it():
    class Held:
        pass

    found = []

    def main():
        held = Held()
        held.cycle = [held]
        found.append(weakref.ref(held))
        sys.exit(130)

    with pytest.raises(SystemExit) as kept:
        run_command(main)
    assert kept.value.code == 130
    assert found[0]() is None
