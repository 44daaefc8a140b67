"""Constants of a script as options, read off a script that the test writes."""

import pytest

from leae.errors import UsageError
from leae.training.settings import (
    comments_of,
    constants_of,
    decide,
    read_command_line,
    require,
    require_effect,
    require_numbers,
    require_text,
    require_tuples,
    require_whole,
)

SCRIPT = '''"""A script."""

QUIET = object()
EPOCHS = 50 if True else 2  # passes over the data, at least 1
RATE = 1e-3  # of learning
NAME = "a"  # what it is called, 100 % sure
RATIOS = (0.15, 1.0)  # sides
FAST = True  # whether


def main():
    INNER = 3  # not a constant of the script
    return INNER
'''


@pytest.fixture
def namespace(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    names = {"__file__": str(path)}
    exec(compile(SCRIPT, str(path), "exec"), names)
    return names


def test_constants_are_the_upper_case_names_that_have_a_comment(namespace):
    expected = {"EPOCHS": 50, "RATE": 1e-3, "NAME": "a", "RATIOS": (0.15, 1.0), "FAST": True}
    assert constants_of(namespace) == expected


def test_an_option_has_the_type_of_its_constant(namespace):
    line = ["--epochs", "7", "--rate", "2", "--name", "b", "--ratios", "0.5", "--no-fast"]
    chosen = read_command_line(namespace, line)
    assert chosen == {"EPOCHS": 7, "RATE": 2.0, "NAME": "b", "RATIOS": (0.5,), "FAST": False}
    assert isinstance(chosen["RATE"], float)
    assert read_command_line(namespace, []) == {}


def test_help_lists_every_constant_with_its_comment_and_value(namespace, capsys):
    with pytest.raises(SystemExit):
        read_command_line(namespace, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, comment in comments_of(namespace["__file__"]).items():
        assert f"--{name.lower()}" in text
        assert comment in text
    assert "[0.15 1.0]" in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--epoch 3", r"no option --epoch, did you mean --epochs\?.*--help"),
        ("--epochs 2.5", "--epochs.*2.5"),
        ("--epochs", "--epochs.*expected one argument"),
        ("--ratios a", "--ratios.*'a'"),
        ("stray", "no option stray; --help"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(namespace, line, says):
    with pytest.raises(UsageError, match=says) as refusal:
        read_command_line(namespace, line.split())
    assert "\n" not in str(refusal.value)


def test_requirements_name_the_value_and_what_it_must_be():
    require(True, "EPOCHS", 1, "at least 1")
    with pytest.raises(UsageError, match="RATE is 2; it must be below 1"):
        require(False, "RATE", 2, "below 1")
    require_whole(1, EPOCHS=1, FACES=5)
    require_numbers(RATE=1e-3, WEIGHT=1)
    require_tuples(RATIOS=(0.15, 1))
    require_text(NAME="a")
    with pytest.raises(UsageError, match="NAME is 5; it must be a text in quotes"):
        require_text(NAME=5)


@pytest.mark.parametrize("value", [0, 1.0, "1", None, True, float("nan")])
def test_what_must_be_a_whole_number_is_refused_if_it_is_none(value):
    with pytest.raises(UsageError, match=r"FACES is .*; it must be a whole number, at least 1"):
        require_whole(1, EPOCHS=1, FACES=value)


@pytest.mark.parametrize("value", ["1", None, True, float("nan"), float("inf"), (1,)])
def test_what_must_be_a_number_is_refused_if_it_is_none(value):
    with pytest.raises(UsageError, match=r"RATE is .*; it must be a number"):
        require_numbers(RATE=value)


@pytest.mark.parametrize("value", [0.15, "0.15", ("0.15",), None])
def test_what_must_be_a_tuple_is_refused_if_it_is_none(value):
    with pytest.raises(UsageError, match=r"RATIOS is .*\(0.15,\)"):
        require_tuples(RATIOS=value)


def test_an_option_that_another_constant_makes_idle_is_refused():
    constants, idle = {"LATENT": "spatial", "LATENT_DIM": 8, "SPATIAL_DIM": 4}, {"spatial": ("LATENT_DIM",)}
    require_effect(constants, {"SPATIAL_DIM": 4}, LATENT=idle)
    require_effect({**constants, "LATENT": "pooled"}, {"LATENT_DIM": 8}, LATENT=idle)
    with pytest.raises(UsageError, match="LATENT_DIM has no effect where LATENT is spatial"):
        require_effect(constants, {"LATENT_DIM": 8}, LATENT=idle)


def test_a_constant_that_another_one_decides_is_set_unless_the_command_line_asks_for_more():
    namespace = {"IMAGE_SIZE": 64}
    decide(namespace, {"EPOCHS": 3}, "MODEL conv", IMAGE_SIZE=32)
    decide(namespace, {"IMAGE_SIZE": 32}, "MODEL conv", IMAGE_SIZE=32)
    assert namespace == {"IMAGE_SIZE": 32}
    with pytest.raises(UsageError, match="IMAGE_SIZE is 48; it must be 32 for MODEL conv"):
        decide(namespace, {"IMAGE_SIZE": 48}, "MODEL conv", IMAGE_SIZE=32)
