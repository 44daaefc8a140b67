"""leae as a library: what `import leae` gives, and the method's README, which is run as it stands."""

import inspect
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import leae
from leae.sigreg import sigreg
from tests.conftest import ROOT, gaussian, run_leae, write_image

README = (ROOT / "leae" / "README.md").read_text(encoding="utf-8")
[SNIPPET] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_importing_leae_imports_no_torch_until_a_part_is_asked_for_and_sigreg_is_a_function_from_the_first():
    program = "import sys, leae; before = 'torch' in sys.modules; print(before, callable(leae.sigreg))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    codes = gaussian(50, 4)
    value = leae.sigreg(codes, torch.Generator().manual_seed(0))
    assert torch.equal(value, sigreg(codes, torch.Generator().manual_seed(0)))


def test_every_part_is_there_and_nothing_else():
    assert all(callable(getattr(leae, name)) for name in leae.__all__)
    assert inspect.isclass(leae.SelfTeachingObjective)
    with pytest.raises(AttributeError, match="no attribute 'Jugde'"):
        leae.Jugde  # noqa: B018


def test_the_readmes_own_model_is_trained_as_it_stands():
    assert sum(bool(line) for line in SNIPPET.splitlines()) <= 30
    torch.manual_seed(0)
    names = {}
    exec(SNIPPET, names)
    model, judge = names["model"], names["judge"]
    assert names["terms"].keys() == {"loss", "latent", "sigreg", "consistency"} | {
        f"{view}_crop_{ratio}" for view in ("clean", "masked") for ratio in (0.15, 1.0)
    }
    assert names["terms"]["loss"].isfinite()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    first, theirs = next(model.encoder.parameters()), next(judge.encoder.parameters())
    assert not torch.equal(first, theirs)
    torch.testing.assert_close(first, theirs, rtol=0, atol=0.01)  # it follows


def test_the_examples_for_other_programs_run_as_they_stand(trained, monkeypatch):
    for number in range(3):
        write_image(trained / "path/to/images" / f"{number}.png", number)
    text = (ROOT / "leae" / "analysis" / "README.md").read_text(encoding="utf-8").split("## For other programs")[1]
    commands = re.findall(r"^    uv run -m leae (.*)$", text.split("\n## ")[0], re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["embed", "embed", "export"]
    for line in commands:
        run_leae(monkeypatch, *line.split())
    names = {}
    exec(textwrap.dedent(re.search(r"\n\n((    .*\n)*    import leae\n(    .*\n)*)", text)[1]), names)
    assert np.array_equal(names["codes"], np.load("codes.npz")["codes"])
    assert names["files"].tolist() == ["0.png", "1.png", "2.png"]
