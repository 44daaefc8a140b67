"""The one command for everything that is not training: what it lists, what it refuses, what it imports."""

import subprocess
import sys

import pytest

from leae.__main__ import COMMANDS
from tests.conftest import ROOT, assert_one_line, run_leae, write_image


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


def test_help_does_not_wait_for_torch():
    lines = [["leae", command, "--help"] for command in COMMANDS] + [
        [s, "--help"] for s in ("main.py", "main_regular.py")
    ]
    program = f"""
import contextlib, io, runpy, sys
for sys.argv in {lines}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        (runpy.run_path if "." in sys.argv[0] else runpy.run_module)(sys.argv[0], run_name="__main__")
    sys.modules.pop("leae.training.help", None)
    print(said.getvalue().split(" [")[0], "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [f"leae {line[1]}" if line[0] == "leae" else line[0] for line in lines]
    assert done.stdout.splitlines() == [f"usage: {name} False" for name in names]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_is_its_docstring_and_its_options(monkeypatch, capsys, command):
    with pytest.raises(SystemExit) as stop:
        run_leae(monkeypatch, command, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: leae {command}")
    assert f"-m leae {command}" in printed
    assert "--help" in printed


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evalute --help", "there is no command evalute, did you mean evaluate.; choose one of prepare, compare, "),
        ("evaluate RUN --csv table.txt", "--csv is table.txt; it must be a .csv file in a folder that exists"),
        ("compare RUN --images 0", "--images is 0; it must be a whole number, at least 1"),
        ("compare RUN --output nowhere/picture.png", "a .png file in a folder that exists"),
        ("compare RUN --output picture.jpg", "a .png file"),
        ("compare RUN --checkpoint 050", "no checkpoint 050; .*choose another --checkpoint: 000 or 020"),
        ("compare RUN --mask-ratio 1", "MASK_RATIO is 1.0"),
        ("compare runs/nobody-001", "runs here: runs/masked-001, runs/plain-001"),
        ("evaluate RUN --label-share 0", "--label-share is 0.0; it must be above 0 and at most 1"),
        ("evaluate RUN --train-images 5", "--train-images is 5; it must be a whole number, at least 100"),
        ("latents RUN --images 51", "--images is 51; it must be at most 50"),
        ("latents RUN --seed -1", "--seed is -1"),
        ("latents RUN --map isomap", "invalid choice: 'isomap'"),
        ("latents RUN --attribute smilling", "is '?smilling'?; it must be one of Bald, .*did you mean Smiling"),
        ("score RUN nowhere", "nowhere is not a folder"),
        ("score RUN empty", "empty has no images"),
        ("score RUN mine --positive ugly", "--positive is '?ugly'?; it must be one of bad, good"),
        ("score RUN mine --images 51", "--images is 51; it must be at most 50"),
        ("embed RUN nowhere", "nowhere is not a folder"),
        ("embed RUN valid", "the split is 'valid'; it must be one of train, test, or a folder"),
        ("embed RUN test --output codes.txt", "--output is codes.txt; it must be a .npz or .csv file in a folder"),
        ("export RUN mine", "mine has other files in it; choose a new folder, or an earlier export"),
        ("export RUN new --license x:y", "--license is 'x:y'; it must be an identifier"),
    ],
)
def test_what_is_refused_is_one_line_and_nothing_is_written(trained, monkeypatch, capsys, line, says):
    (trained / "empty").mkdir(exist_ok=True)
    for image in ("good/1.png", "bad/2.png"):
        write_image(trained / "mine" / image, 1)
    before = sorted(trained.rglob("*"))
    assert_one_line(monkeypatch, capsys, *line.replace("RUN", "runs/self-teaching-001").split(), says=says)
    assert sorted(trained.rglob("*")) == before
