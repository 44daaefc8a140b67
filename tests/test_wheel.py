"""leae as pip installs it: a wheel in an environment of its own, used where there is no clone."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import leae
from leae.analysis.trained import open_runs
from tests.conftest import CPU, ROOT

RUN = "runs/self-teaching-001"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="needs hatchling, of the group dev")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture
def programs(wheel, tmp_path) -> Path:
    """The folder of programs of a new environment to which pip has added the wheel."""
    venv.create(tmp_path / "new", with_pip=True)
    names = {"base": str(tmp_path / "new"), "platbase": str(tmp_path / "new")}
    programs, packages = (Path(sysconfig.get_path(kind, "venv", names)) for kind in ("scripts", "purelib"))
    # The dependencies are those of this environment, which come after the new one's packages.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run([programs / "python", *install], check=True)
    return programs


# Runs several lines of `leae` in one process, as starting one takes seconds.
LINES = """\
import sys
from importlib.metadata import entry_points
[leae] = entry_points(group="console_scripts", name="leae")
for line in sys.argv[1:]:
    sys.argv = ["leae", *line.split()]
    try:
        leae.load()()
    except SystemExit as end:
        print(line, "ends with", end.code)
print(sys.modules["leae"].__file__)
"""


def test_the_wheel_is_the_package_with_every_file_of_it_and_no_script(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "leae").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in files if "__pycache__" not in name}
    assert "leae/analysis/painter.js" in packed
    [found] = importlib.metadata.distributions(name="leae", path=[str(wheel)])
    assert found.version == leae.__version__


def test_an_installed_leae_needs_no_clone_but_to_train(programs, trained, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # by which other tests' processes find the clone

    def answer(*command) -> subprocess.CompletedProcess:
        return subprocess.run(command, capture_output=True, text=True, check=False)

    listed = answer(programs / "leae", "runs")
    assert listed.returncode == 0
    assert "self-teaching-001" in listed.stdout
    out, codes = tmp_path / "out", tmp_path / "codes.npz"
    work = [f"export {RUN} {out}", f"embed {out} test --output {codes}", f"evaluate {RUN} --device cpu"]
    done = answer(programs / "python", "-c", LINES, *work, "play --help", "bench", "ablate --dry-run")
    assert done.returncode == 0, done.stderr
    *said, module = done.stdout.splitlines()
    assert Path(module).is_relative_to(tmp_path)
    ends = [line for line in said if " ends with " in line]
    assert ends == ["play --help ends with 0", "bench ends with 2", "ablate --dry-run ends with 2"]
    assert any(line.startswith("usage: leae play ") for line in said)
    for command in ("bench", "ablate"):
        assert re.search(rf"^leae {command}: .*main\.py .*clone the repository", done.stderr, re.MULTILINE)
    with np.load(codes) as found:
        images = open_runs([RUN], "100", CPU)[0].open_data().images["test"]
        assert np.array_equal(found["codes"], leae.embed(leae.load(RUN), images))
