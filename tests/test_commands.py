"""The one command for everything that is not training: what it lists, what it refuses."""

import importlib

import pytest

from leae.__main__ import COMMANDS
from tests.conftest import assert_one_line, run_leae, run_script, write_image


def test_commands_are_listed_with_the_first_line_of_their_help(monkeypatch, capsys):
    run_leae(monkeypatch, "--help")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    expected = {name: importlib.import_module(module).__doc__.split("\n")[0] for name, module in COMMANDS.items()}
    assert dict(lines) == expected


@pytest.mark.parametrize("command", [*COMMANDS, "main.py", "main_regular.py"])
def test_help_has_the_usage_and_an_example_of_it(monkeypatch, capsys, command):
    script = command.endswith(".py")
    with pytest.raises(SystemExit) as end:
        (run_script if script else run_leae)(monkeypatch, command, "--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {command if script else f'leae {command}'} [-h]")
    assert f"uv run {command}" in text if script else f"-m leae {command}" in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evalute --help", "evalute, .*evaluate.*prepare, compare, "),
        ("compare RUN --imagse 5", "--imagse, .*--images"),
        ("compare RUN --images 0", "--images is 0"),
        ("compare RUN --output nowhere/picture.png", "nowhere/picture.png"),
        ("compare RUN --checkpoint 050", "050.*000, 020"),
        ("compare RUN --mask-ratio 1", "mask_ratio is 1.0"),
        ("compare runs/nobody-001", "runs/nobody-001.*runs/masked-001, runs/plain-001"),
        ("evaluate RUN --label-share 0", "--label-share is 0.0"),
        ("evaluate RUN --train-images 5", "--train-images is 5"),
        ("evaluate RUN --csv table.txt", "--csv is table.txt"),
        ("latents RUN --images 51", "--images is 51"),
        ("latents RUN --seed -1", "--seed is -1"),
        ("latents RUN --map isomap", "'isomap'"),
        ("latents RUN --attribute smilling", "smilling.*Bald.*Smiling"),
        ("score RUN nowhere", "nowhere"),
        ("score RUN empty", "empty"),
        ("score RUN mine --positive ugly", "ugly.*mine"),
        ("embed RUN valid", "'valid'.*train, test"),
        ("embed RUN test --output codes.txt", "--output is codes.txt"),
        ("export RUN mine", "mine"),
        ("export RUN new --license x:y", "--license is 'x:y'"),
    ],
)
def test_what_is_refused_is_one_line_and_nothing_is_written(trained, monkeypatch, capsys, line, says):
    (trained / "empty").mkdir(exist_ok=True)
    for image in ("good/1.png", "bad/2.png"):
        write_image(trained / "mine" / image, 1)
    before = sorted(trained.rglob("*"))
    assert_one_line(monkeypatch, capsys, *line.replace("RUN", "runs/self-teaching-001").split(), says=says)
    assert sorted(trained.rglob("*")) == before
