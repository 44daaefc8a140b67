"""A file has its old content or its new one."""

import pytest

from leae.files import atomic_write


def test_a_file_is_complete_when_it_appears_and_others_may_read_it(tmp_path):
    path, plain = tmp_path / "a.txt", tmp_path / "plain"
    plain.touch()
    (tmp_path / ".a.txt.tmp").write_text("left by a process that was killed, and longer than what is written now")
    with atomic_write(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "plain"]
    assert path.stat().st_mode == plain.stat().st_mode


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
