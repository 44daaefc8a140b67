"""leae as a library: what `import leae` gives, and the method's README, which is run as it stands."""

import re
import textwrap
from operator import attrgetter

import numpy as np
import torch

import leae
from tests.conftest import ROOT, run_leae, write_image

README = (ROOT / "leae" / "README.md").read_text(encoding="utf-8")
[SNIPPET] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_part_that_the_readme_names_is_there():
    assert all(callable(getattr(leae, name)) for name in leae.__all__)
    for name in re.findall(r"\bleae\.(\w+(?:\.\w+)?)\(", README):
        assert callable(attrgetter(name)(leae))


def test_the_readmes_own_model_is_trained_as_it_stands():
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


def example(starts: str) -> str:
    """The indented lines of the README from the one that starts like this."""
    return textwrap.dedent(re.search(rf"^    {re.escape(starts)}.*\n(    .*\n)*", README, re.MULTILINE)[0])


def test_a_loaded_model_is_used_and_ones_own_saved_and_loaded_as_the_readme_has_it(trained):
    names = {}
    exec(example("import leae"), names)
    model, images = names["model"], names["images"]
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert np.array_equal(names["codes"].numpy(), leae.embed(model, images))
    assert names["reconstructions"].shape == images.shape
    assert names["rank"] == leae.codes.effective_rank(names["codes"].numpy()) > 1
    torch.manual_seed(0)
    exec(SNIPPET, names)
    before = {name: tensor.clone() for name, tensor in names["model"].state_dict().items()}
    names["model"] = names["Model"]()
    exec(example("torch.save").replace("model.state_dict()", "before"), names | {"before": before})
    assert all(torch.equal(tensor, before[name]) for name, tensor in names["model"].state_dict().items())
    assert "os" not in dir(leae)
    assert {*leae.__all__, "codes", "sigreg"} <= {*dir(leae)}


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
