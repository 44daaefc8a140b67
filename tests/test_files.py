"""A file has its old content or its new one."""

import errno
import gzip
import multiprocessing
import os
import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest
from filelock import FileLock

from leae import files
from leae.errors import UsageError
from leae.files import (
    acquire_lock,
    atomic_write,
    misfit,
    names_file,
    one_at_a_time,
    read_arrays,
    read_bytes,
    read_json,
    write_csv,
)


def test_a_file_is_complete_when_it_appears_and_others_may_read_it(tmp_path):
    path, plain = tmp_path / "a.txt", tmp_path / "plain"
    plain.touch()
    with atomic_write(path) as file:
        file.write("ä\udcff\n")  # as of a name that is no UTF-8
        assert not path.exists()
    assert path.read_bytes() == "ä\\udcff\n".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "plain"]
    assert path.stat().st_mode == plain.stat().st_mode


def test_what_a_library_says_without_the_system_names_no_file_of_ours(tmp_path):
    with pytest.raises(gzip.BadGzipFile, match=r"^Not a gzipped file"), names_file(tmp_path):
        gzip.decompress(b"none")


def test_a_name_of_any_length_can_be_written(tmp_path):
    path = tmp_path / (251 * "x" + ".csv")
    write_csv(path, ["a"], [])
    assert path.read_bytes() == b"a\r\n"


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_other_users_can_wait_for_a_lock(tmp_path):
    before = os.umask(0o22)
    try:
        lock = acquire_lock(tmp_path / "lock")
        assert (tmp_path / "lock").stat().st_mode & 0o666 == 0o666
        lock.release()
    finally:
        os.umask(before)


def test_memory_that_ran_out_is_no_fault_of_the_file(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(3))
    monkeypatch.setattr(np, "load", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        read_arrays(tmp_path / "a.npy")


def test_after_a_failure_the_file_is_what_it_was(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "wb") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_an_error_names_the_file_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="full") as error, atomic_write(tmp_path / "a") as file:
        file.write("half")
        raise OSError(28, "full")
    assert error.value.filename == str(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as error, atomic_write(tmp_path / "none" / "a"):
        pass
    assert error.value.filename == str(tmp_path / "none" / "a")
    with pytest.raises(OSError, match="full") as error, names_file(tmp_path / "b"):
        raise OSError(28, "full")
    assert error.value.filename == str(tmp_path / "b")


def write_many_times(path, letter):
    for _ in range(60):
        with atomic_write(path) as file:
            for _ in range(100):
                file.write(letter * 1000)
        assert path.read_text() in ("a" * 100_000, "b" * 100_000)


def test_of_processes_that_write_a_file_at_once_each_writes_all_of_it(tmp_path):
    context, path = multiprocessing.get_context("fork"), tmp_path / "a.txt"
    writers = [context.Process(target=write_many_times, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_found_by_its_name_is_a_regular_file_of_bounded_size(tmp_path):
    pipe, zeros, long = (tmp_path / name for name in ("pipe", "zeros", "long"))
    os.mkfifo(pipe)
    zeros.symlink_to("/dev/zero")
    long.write_bytes(b"x" * 11)
    for path in (pipe, zeros, long):
        with pytest.raises(UsageError, match=f"^{path} "):
            read_bytes(path, limit=10)
    for path in (pipe, zeros):
        with pytest.raises(UsageError, match=f"^{path} "):
            read_arrays(path)
    assert read_bytes(long, limit=11) == b"x" * 11
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "missing")


SHAPE = {"name": str, "steps": [int], "versions": {str: int | None}, "about": dict, "may lack": str | None}
SOUND = {"name": "a", "steps": [1, 2], "versions": {"b": 1, "c": None}, "about": {}, "more": 1e999}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        *[({name: value}, name) for name in ("name", "steps", "versions", "about") for value in (1, None, 1.5, [[]])],
        *[({"name": {}}, "name"), ({"steps": "12"}, "steps"), ({"steps": {}}, "steps"), ({"may lack": 1}, "may lack")],
        ({"name": "x" * 5001}, "name"),
        ({"versions": {"b": 1, "c": "1"}}, "c"),
    ],
)
def test_the_part_of_a_json_value_that_is_missing_or_of_another_type_is_named(change, part):
    assert misfit(SOUND, SHAPE, "all") is None
    assert misfit(SOUND | change, SHAPE, "all") == part
    assert misfit([SOUND], SHAPE, "all") == "all"
    assert misfit(SOUND | {"about": {"a": "x" * 9999}}, SHAPE, "all") is None  # nothing reads it
    for name in ("name", "steps", "versions", "about"):
        assert misfit({n: value for n, value in SOUND.items() if n != name}, SHAPE, "all") == name


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1.5}', '{"a": 1', '{"a": 1' + "0" * 400 + "}", "[" * 100_000])
def test_a_json_file_of_another_shape_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises((ValueError, RecursionError)):
        read_json(path, {"a": int})
    path.write_text('{"a": 1, "b": 2}')
    assert read_json(path, {"a": int}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("number", "warned"), [(errno.ENOLCK, 1), (errno.EOPNOTSUPP, 1), (errno.ENOSYS, 1), (errno.EROFS, 0)]
)
def test_where_there_are_no_locks_the_work_is_done_and_a_copied_lock_file_holds_nothing(
    tmp_path, monkeypatch, capsys, number, warned
):
    (tmp_path / ".a.lock").touch()
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, "no locks")))
    with one_at_a_time(tmp_path / "a"):
        pass
    assert capsys.readouterr().err.count(f"{tmp_path / '.a.lock'}: this file system has no locks") == warned


def test_a_lock_that_fails_otherwise_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken") as error, one_at_a_time(tmp_path / "a"):
        pass
    assert error.value.filename == str(tmp_path / ".a.lock")


def test_a_wait_for_another_process_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    taken = threading.Event()

    def hold():
        with FileLock(tmp_path / ".a.lock"):
            taken.set()
            time.sleep(0.5)

    threading.Thread(target=hold).start()
    taken.wait()
    with one_at_a_time(tmp_path / "a"):
        pass
    assert capsys.readouterr().err == f"waiting for the process that holds {tmp_path / '.a.lock'}\n"
