"""What a mistake of the user's looks like, and what a bug looks like."""

import pytest

from leae.errors import UsageError, run_command


def fail_with(error):
    def main():
        raise error

    return main


def test_a_usage_error_is_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["somewhere/main.py"])
    with pytest.raises(SystemExit) as stop:
        run_command(fail_with(UsageError("EPOCHS is 0; it must be at least 1")))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "main.py: EPOCHS is 0; it must be at least 1\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(fail_with(ZeroDivisionError()))


def test_an_interruption_ends_with_status_130(capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(fail_with(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert "interrupted" in capsys.readouterr().err
