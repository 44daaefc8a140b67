"""Files and folders appear whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from leae.files import whole_file, whole_folder

ROOT = Path(__file__).parent.parent


def test_a_file_is_complete_when_it_appears(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_after_a_failure_the_file_is_what_it_was(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole_file(path, "wb") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_can_be_read_by_those_who_may_read_others(tmp_path):
    (tmp_path / "plain").write_text("")
    with whole_file(tmp_path / "whole"):
        pass
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_complete_when_it_appears_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "data"
    for content in ("old", "new"):
        with whole_folder(path) as folder:
            (folder / content).write_text(content)
            assert not (path / content).exists()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in path.parent.iterdir()] == ["data"]


def test_after_a_failure_the_folder_is_what_it_was(tmp_path):
    path = tmp_path / "data"
    with whole_folder(path) as folder:
        (folder / "old").touch()
    with pytest.raises(ZeroDivisionError), whole_folder(path) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_what_a_killed_process_left_behind_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = "import sys, pathlib, os, signal; sys.path.insert(0, sys.argv[2]); from leae.files import whole_folder\n"
    code += "with whole_folder(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "data"), str(ROOT)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with whole_folder(tmp_path / "data") as ours, whole_folder(tmp_path / "data") as other:
        assert sorted(tmp_path.iterdir()) == sorted([ours, other])
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
