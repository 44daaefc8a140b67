"""The one command for everything that is not training: what it lists, what it refuses, what it imports."""

import subprocess
import sys

import pytest

from leae.__main__ import COMMANDS
from tests.conftest import ROOT, run_leae


def test_alone_it_lists_every_command_with_the_first_line_of_its_help_and_imports_no_torch(monkeypatch, capsys):
    program = "import runpy, sys; runpy.run_module('leae', run_name='__main__'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, imported = done.stdout.splitlines()
    listed = [line.split(maxsplit=1) for line in lines if line.startswith("    ")]
    assert [command for command, _ in listed] == list(COMMANDS)
    assert dict(listed)["compare"].startswith("One picture of what several runs make")
    assert imported == "False"
    run_leae(monkeypatch, "--help")
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_is_its_docstring_and_its_options(monkeypatch, capsys, command):
    with pytest.raises(SystemExit) as stop:
        run_leae(monkeypatch, command, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: leae {command}")
    assert f"-m leae {command}" in printed
    assert "--help" in printed


def test_a_wrong_command_is_one_line_with_those_there_are_and_the_nearest(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_leae(monkeypatch, "evalute", "--help")
    assert stop.value.code == 2
    message = "leae: there is no command evalute, did you mean evaluate?; choose one of prepare, compare, evaluate, "
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert (printed.out + printed.err).count("\n") == 1
