"""The scripts' constants: what cannot be is refused by name."""

import math
import runpy

import pytest

from leae.errors import UsageError
from leae.objective import OBJECTIVES
from leae.training.settings import (
    RANGES,
    WITHOUT_EFFECT,
    arguments_of,
    constants_in,
    constants_of,
    require_ranges,
    script_constants,
)
from tests.conftest import ROOT, assert_one_line

SCRIPTS = ("main.py", "main_regular.py")
CONSTANTS = {script: script_constants(ROOT / script, gpu=False) for script in SCRIPTS}
BOTH = {**CONSTANTS["main_regular.py"], **CONSTANTS["main.py"]}  # settings that have every constant
NAN = float("nan")


def ends_of(interval: str) -> tuple[list, list]:
    """The numbers at the ends of "[0, 1)" that lie inside, and values of every kind that do not."""
    low, high = map(float, interval[1:-1].split(","))
    inside = [low] * (interval[0] == "[") + [high] * (interval[-1] == "]")
    return inside, [low - 1e-9, high + 1e-9, *({low, high} - set(inside)), math.inf, NAN, "0.5", True]


def inside_and_outside(name: str) -> tuple[list, list]:
    """Values that RANGES allows a constant, and values of every kind that it does not."""
    match RANGES[name]:
        case int(low), int(high):
            return [low, high], [low - 1, high + 1, float(low), str(low), NAN, True, None]
        case str(interval):
            inside, outside = ends_of(interval)
            return inside, [*outside, None]
        case [str(interval)]:
            inside, outside = ends_of(interval)
            return [tuple(inside)], [(), 0.5, [0.5], *((0.5, value) for value in outside)]
        case type() as kind:
            return [kind()], [5, None, "yes" if kind is bool else True]
        case choices:
            return list(choices), [*({"", "other", choices[0].upper()} - set(choices)), 5, None]


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_work_and_what_is_outside_is_refused_with_name_and_value(name):
    inside, outside = inside_and_outside(name)
    free = {"IMAGE_SIZE": 2048, "MASK_RATIO": 0.5, "CROP_RATIOS": (1.0,)}  # so that no other rule refuses an end
    objectives = RANGES["OBJECTIVE"] if name == "OBJECTIVE" else OBJECTIVES
    for value in inside:
        require_ranges({**BOTH, **free, name: value}, objectives)
    for value in outside:
        with pytest.raises(UsageError, match=f"^{name} is ") as refusal:
            require_ranges({**BOTH, **free, name: value}, objectives)
        entries = value if isinstance(value, tuple) else ()
        assert any(f"is {each!r};" in str(refusal.value) for each in (value, *entries))


@pytest.mark.parametrize("gpu", [False, True])
def test_every_constant_has_a_range_and_a_comment_and_those_of_both_scripts_are_the_same(monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    written = [constants_in(ROOT / script) for script in SCRIPTS]
    spaces = [runpy.run_path(str(ROOT / script), run_name="not main") for script in SCRIPTS]
    ours, theirs = map(constants_of, spaces, written)
    assert ours.keys() | theirs.keys() == RANGES.keys()
    for script, constants in zip(SCRIPTS, (ours, theirs), strict=True):
        assert script_constants(ROOT / script, gpu) == constants
        assert all(constants_in(ROOT / script)[name].comment for name in constants)
    common = ours.keys() & theirs.keys() - {"OBJECTIVE", "SIGREG_WEIGHT"}
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}


@pytest.mark.parametrize(
    ("batch_size", "objective", "processes"),
    [(5, "symmetric", 2), (6, "alternating", 2), (4, "alternating", 4), (5, "alternating", 1), (2, "alternating", 1)],
)
def test_a_batch_that_the_processes_or_the_views_cannot_share_is_refused(monkeypatch, batch_size, objective, processes):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(UsageError, match=f"^BATCH_SIZE is {batch_size};"):
        require_ranges({**BOTH, "BATCH_SIZE": batch_size, "OBJECTIVE": objective}, OBJECTIVES)


IDLE = [(*constant, other) for constant, others in WITHOUT_EFFECT.items() for other in others]


@pytest.mark.parametrize(("name", "value", "other"), IDLE)
def test_a_constant_that_has_no_effect_beside_another_is_refused(workplace, monkeypatch, capsys, name, value, other):
    script = "main.py" if {name, other} <= CONSTANTS["main.py"].keys() else "main_regular.py"
    line = arguments_of(name, value) + arguments_of(other, BOTH[other])
    assert_one_line(monkeypatch, capsys, script, *line, says=f"{other} .*{name}")
