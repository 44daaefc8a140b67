"""Constants of a script as options, read off a script that the test writes."""

import json
from pathlib import Path

import pytest

from leae.errors import UsageError
from leae.training.settings import configure, constants_of, parse_command_line
from tests.training.test_run import make_run

SCRIPT = '''"""A script."""

lower = object()

# --- the model
MODEL = "residual"  # "residual": large; or "conv": small
LATENT = "pooled"  # or spatial
SPATIAL_DIM = 32

# --- how long
EPOCHS = 50 if lower else 2  # passes over the data, at least 1
RATE = 1e-3  # of learning
TITLE = "a"  # what it is called, 100 % sure
RATIOS = (0.15, 1.0)
COMPILE = True  # whether
IMAGE_SIZE, MASK_RATIO, OBJECTIVE = 64, 0.35, "symmetric"
HELD_OUT = LOG_EVERY = GRID_EVERY = GRID_IMAGES = 1
SAVE_MINUTES = 3.0
BATCH_SIZE = 64
NAME = INIT = RESUME = ""


def main():
    INNER = 3  # not a constant of the script
    return INNER
'''


@pytest.fixture
def namespace(workplace):
    Path("script.py").write_text(SCRIPT)
    names = {"__file__": "script.py"}
    exec(compile(SCRIPT, "script.py", "exec"), names)
    return names


def parsed(monkeypatch, namespace, line):
    monkeypatch.setattr("sys.argv", ["script.py", *line.split()])
    return parse_command_line(namespace)


def configured(monkeypatch, namespace, line):
    monkeypatch.setattr("sys.argv", ["script.py", *line.split()])
    return configure(namespace, "self-teaching")


def test_an_option_has_the_type_of_its_constant(monkeypatch, namespace):
    chosen = {"EPOCHS": 7, "RATE": 2.0, "TITLE": "b", "RATIOS": (0.5,), "COMPILE": False}
    line = "--epochs 7 --rate 2 --title b --ratios 0.5 --no-compile"
    assert parsed(monkeypatch, namespace, line) == chosen
    assert parsed(monkeypatch, namespace, "") == {}


@pytest.mark.parametrize("value", [None, {}, ["pooled"], ("0.15",)])
def test_a_constant_is_a_number_a_text_a_bool_or_a_tuple_of_numbers(namespace, value):
    with pytest.raises(UsageError, match="EXTRA"):
        constants_of({**namespace, "EXTRA": value})


def test_help_lists_every_constant_with_its_comment_and_value(monkeypatch, namespace, capsys):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, namespace, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"--{name.lower().replace('_', '-')}" in text for name in constants_of(namespace))
    assert all(line.partition("  # ")[2] in text for line in SCRIPT.splitlines() if line[:1].isupper())
    assert "[0.15 1.0]" in text
    assert "the model: --model {residual,conv}" in text
    assert "how long: --epochs INT passes over the data" in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--epoch 3", "--epoch, .*--epochs"),
        ("--epochs 2.5", "--epochs.*2.5"),
        ("--epochs", "--epochs"),
        ("--ratios a", "--ratios.*'a'"),
        ("--compile 5", "5"),
        ("stray", "stray"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(monkeypatch, namespace, line, says):
    with pytest.raises(UsageError, match=says) as refusal:
        parsed(monkeypatch, namespace, line)
    assert "\n" not in str(refusal.value)


def test_a_resumed_run_keeps_its_settings_but_for_those_that_change_no_number(monkeypatch, namespace):
    settings = {name: value for name, value in constants_of(namespace).items() if name != "RESUME"}
    begun = make_run(**{**settings, "EPOCHS": 7, "DATASET": "auto", "CROP_RATIOS": (0.5,)})
    begun.lock.release()
    namespace |= {"DATASET": "auto", "CROP_RATIOS": (0.15,)}
    resume = f"--resume {begun.folder}"
    with pytest.raises(UsageError, match=rf"EPOCHS is 7 in {begun.folder}, not 8"):
        configured(monkeypatch, dict(namespace), f"{resume} --epochs 8")
    run = configured(monkeypatch, namespace, f"{resume} --epochs 7 --no-compile --save-minutes 1")
    assert run.folder == begun.folder
    assert (namespace["EPOCHS"], namespace["CROP_RATIOS"]) == (7, (0.5,))
    assert (namespace["COMPILE"], namespace["SAVE_MINUTES"]) == (False, 1.0)
    assert json.loads((run.folder / "settings.json").read_text())["settings"]["COMPILE"] is True
    run.lock.release()
    with pytest.raises(UsageError, match=r"NEW_ONE.*settings\.json"):
        configured(monkeypatch, {**namespace, "NEW_ONE": 1}, resume)


def test_the_small_model_decides_the_image_size_unless_the_command_line_asks_for_more(monkeypatch, namespace):
    assert configured(monkeypatch, dict(namespace), "--model conv").settings["IMAGE_SIZE"] == 32
    assert configured(monkeypatch, dict(namespace), "--model conv --image-size 32").settings["IMAGE_SIZE"] == 32
    with pytest.raises(UsageError, match="IMAGE_SIZE is 48"):
        configured(monkeypatch, dict(namespace), "--model conv --image-size 48")
