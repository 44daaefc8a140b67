"""The scripts and the commands as typed: what they list, what they refuse."""

import importlib
from contextlib import suppress

import pytest

import leae.__main__
from leae.__main__ import COMMANDS
from leae.errors import UsageError
from tests.conftest import assert_one_line, run_leae, run_script, write_image


def test_commands_are_listed_with_the_first_line_of_their_help(monkeypatch, capsys):
    run_leae(monkeypatch, "--help")
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    expected = {name: importlib.import_module(module).__doc__.split("\n")[0] for name, module in COMMANDS.items()}
    assert dict(lines) == expected


@pytest.mark.parametrize(
    ("program", "typed"), [("bin/leae", "leae"), ("leae.exe", "leae"), ("leae/__main__.py", "python -m leae")]
)
def test_usage_is_what_was_typed(monkeypatch, capsys, program, typed):
    for arguments in ([], ["--help"], ["runs", "--help"]):
        monkeypatch.setattr("sys.argv", [program, *arguments])
        with suppress(SystemExit):
            leae.__main__.main()
        command = arguments[0] if len(arguments) > 1 else "COMMAND"
        assert capsys.readouterr().out.startswith(f"usage: {typed} {command} ")


@pytest.mark.parametrize("line", ["bench", "ablate --dry-run"])
def test_commands_that_train_ask_for_a_clone_where_the_scripts_are_not(workplace, monkeypatch, capsys, line):
    monkeypatch.setattr("leae.training.settings.SCRIPTS", workplace)
    assert_one_line(monkeypatch, capsys, *line.split(), says=r"main\.py .*clone the repository")


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
        ("main.py --epoch 3", "--epoch, .*--epochs"),
        ("main.py --epochs 2.5", "--epochs.*2.5"),
        ("main.py --epochs", "--epochs"),
        (f"main.py --epochs {10**400}", "EPOCHS|--epochs"),
        ("main.py --crop-ratios a", "--crop-ratios.*'a'"),
        ("main.py --compile 5", "5"),
        ("main.py --learning-rate 0", "LEARNING_RATE is 0.0"),
        ("main.py --objective masked", "OBJECTIVE is 'masked'"),
        ("main_regular.py --objective symmetric", "OBJECTIVE is 'symmetric'"),
        ("main_regular.py --reconstruction-loss bce --output linear", "linear.*bce"),
        ("main.py --model conv --image-size 48", "IMAGE_SIZE is 48"),
        ("main.py --hidden-dim 32768", "hidden_dim"),
        ("main.py --image-size 64 --mask-ratio 0.999", "mask_ratio is 0.999"),
        ("main.py --image-size 64 --crop-ratios 0.01", "0.01.*0.031"),
        ("main.py --dataset mnits", "'mnits'.*mnist"),
        ("main.py --dataset faces --faces 64 --batch-size 65", "64 .*65"),
        ("main.py --device abacus", "'abacus'"),
        ("main.py --name a/b", "NAME is 'a/b'"),
        ("main.py --name masked-001", "runs/masked-001 .*--resume runs/masked-001"),
        ("main.py --init nowhere", "nowhere"),
        ("main.py --init RUN --model conv", "ConvAutoencoder, .*Autoencoder in RUN"),
        ("main.py --init nowhere --resume RUN", "INIT is .*nowhere"),
        ("main.py --resume runs/none", "runs/none"),
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
        ("embed RUN --output=", "an argument is empty"),
        ("embed RUN valid", "'valid'.*train, test"),
        ("embed RUN test --output codes.txt", "--output is codes.txt"),
        ("export RUN mine", "mine"),
        ("export RUN new --license x:y", "--license is 'x:y'"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_refused_is_one_line_and_nothing_is_written(trained, monkeypatch, capsys, line, says):
    (trained / "empty").mkdir(exist_ok=True)
    for image in ("good/1.png", "bad/2.png"):
        write_image(trained / "mine" / image, 1)
    before = sorted(trained.rglob("*"))
    line, says = (text.replace("RUN", "runs/self-teaching-001") for text in (line, says))
    assert_one_line(monkeypatch, capsys, *line.split(), says=says)
    assert sorted(trained.rglob("*")) == before


def test_an_empty_argument_is_not_the_folder_that_one_is_in(trained, monkeypatch, capsys):
    assert_one_line(monkeypatch, capsys, "score", "runs/self-teaching-001", "", says="an argument is empty")
    with pytest.raises(UsageError, match="images is ''"):
        leae.embed(leae.load("runs/self-teaching-001"), "")
