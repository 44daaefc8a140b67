"""The house: imports point one way."""

import ast

import pytest

from tests.conftest import ROOT

BOTTOM = {"distributed", "errors", "files", "randomness"}
FLOORS = ["bottom", "method", "data", "training", "analysis", "commands"]


def floor_of(module: str) -> int:
    """How high a module stands: "leae.data.faces" on "data"; it may import from its own floor and below."""
    parts = module.split(".")[1:]
    if not parts or parts[0] == "__main__":
        return FLOORS.index("commands")
    if parts[0] in FLOORS:
        return FLOORS.index(parts[0])
    return FLOORS.index("bottom" if parts[0] in BOTTOM else "method")


def imports_of(path) -> set[str]:
    """The modules of leae that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return {name for name in found if name.split(".")[0] in ("leae", "main", "main_regular")}


@pytest.mark.parametrize("path", sorted((ROOT / "leae").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards_and_nothing_imports_a_script(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for name in imports_of(path):
        assert name.startswith("leae."), f"{module} imports {name}"
        assert floor_of(name) <= floor_of(module), f"{module} imports {name}, which stands above it"
