"""What a user's mistake looks like, and what a bug looks like."""

import errno
import io
import re

import pytest
from tqdm import tqdm

from leae.errors import UsageError, require_in, run_command, say


def fail_with(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("EPOCHS is 0; it must be at least 1"), "EPOCHS is 0; it must be at least 1"),
        (OSError(errno.ENOSPC, "No space left", "a/b.csv"), "a/b.csv: No space left; make room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", b"c"), "c: Permission denied; change its permissions"),
        (MemoryError("Unable to allocate 8 TiB"), "Unable to allocate 8 TiB; lower BATCH_SIZE, IMAGE_SIZE or HIDDEN"),
        (RuntimeError("[…] DefaultCPUAllocator: can't allocate"), "can't allocate; lower BATCH_SIZE"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(monkeypatch, capsys, error, says):
    monkeypatch.setattr("sys.argv", ["somewhere/main.py"])
    with pytest.raises(SystemExit) as stop:
        run_command(fail_with(error))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("main.py: ")
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes do not match"), OSError("no file named")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(fail_with(error))


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", ["full", "closed", "none"])
def test_output_that_cannot_be_written_stops_nothing(monkeypatch, kind):
    stream, went_on = {"full": FullDisk(), "closed": io.StringIO(), "none": None}[kind], []
    if kind == "closed":
        stream.close()

    def main():
        for _ in tqdm(range(3), mininterval=0):
            print("a line", flush=True)
            say("another")
        went_on.append(True)

    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    run_command(main)
    assert went_on


def test_a_line_wraps_at_words_on_a_terminal_alone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    line = "run: steps 0 to 640 of 64 images; to resume it: --resume runs/self-teaching-001"
    say(line)
    assert capsys.readouterr().out == f"{line}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    say(line)
    wrapped = capsys.readouterr().out.splitlines()
    assert " ".join(part.strip() for part in wrapped) == line
    assert max(map(len, wrapped)) <= 30 < len(line)


def test_an_interval_has_the_ends_that_its_brackets_say():
    require_in("[0, 1)", RATE=1e-3, WARMUP=0)
    require_in("(0, 1]", NOISE=1)
    for interval, value in (("[0, 1)", -0.1), ("[0, 1)", 1), ("(0, 1]", 0), ("(0, 1]", 1.1), ("[0, inf)", True)):
        with pytest.raises(UsageError, match=f"RATE is {value}; it must be a number in {re.escape(interval)}"):
            require_in(interval, RATE=value)
