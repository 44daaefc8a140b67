"""The house: imports point one way and in no circle, and the method knows no script."""

import ast
import re
from graphlib import TopologicalSorter

import pytest

from leae.training.settings import RANGES
from tests.conftest import ROOT

BOTTOM = {"distributed", "errors", "files", "progress", "randomness"}
FLOORS = ["bottom", "method", "data", "training", "analysis", "commands"]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
    for path in sorted((ROOT / "leae").rglob("*.py"))
}


def floor_of(module: str) -> str:
    """On which floor a module stands: "leae.data.faces" on "data"."""
    parts = module.split(".")[1:]
    if not parts or parts[0] == "__main__":
        return "commands"
    if parts[0] in FLOORS:
        return parts[0]
    return "bottom" if parts[0] in BOTTOM else "method"


def imports_of(module: str) -> set[str]:
    """The modules of this project that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name.name}" for name in node.names}  # modules, or what is in one
            found |= {name if name in SOURCES else node.module for name in names}
    return {name for name in found if name in SOURCES or name.split(".")[0] in ("main", "main_regular", "tests")}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_downwards_and_to_no_script_or_test(module):
    for name in imports_of(module):
        assert name in SOURCES, f"{module} imports {name}"
        assert FLOORS.index(floor_of(name)) <= FLOORS.index(floor_of(module)), f"{module} imports {name}, above it"


def test_imports_go_in_no_circle():
    TopologicalSorter({module: imports_of(module) for module in SOURCES}).prepare()  # its CycleError names them


@pytest.mark.parametrize("module", [module for module in SOURCES if floor_of(module) == "method"])
def test_the_method_names_no_constant_of_the_scripts(module):
    texts = [node.value for node in ast.walk(SOURCES[module]) if isinstance(node, ast.Constant)]
    words = {word for text in texts if isinstance(text, str) for word in re.findall(r"\b[A-Z_]+\b", text)}
    assert not words & RANGES.keys()
