"""The objective against the formulas written down plainly (tests/reference.py), in float64."""

import copy

import pytest
import torch

from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from tests.reference import reference_objective

SIZE = 32


def make(latent="pooled", decay=0.99, norm="shared"):
    """A model, a judge that has begun to differ from its encoder, and a batch."""
    torch.manual_seed(0)
    model = Autoencoder(SIZE, 3, hidden_dim=4, latent=latent, latent_dim=8, map_channels=8).double()
    judge = Judge(model.encoder, decay, norm, epsilon=0.3, crop_ratios=(0.15, 0.4, 0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    judge.update(model.encoder)
    return model, judge, torch.rand(6, 3, SIZE, SIZE, dtype=torch.float64)


def draws(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize(("decay", "norm"), [(0.0, "own"), (0.99, "shared"), (0.99, "whitened")])
@pytest.mark.parametrize(
    ("kind", "ratios"),
    [
        ("symmetric", (0.15,)),
        ("symmetric", (0.4, 1)),
        ("alternating", (0.4, 1)),
        ("crop", (0.15,)),
        ("crop", (1.0, 0.5)),
    ],
)
def test_values_and_gradients_are_those_of_the_formulas(latent, decay, norm, kind, ratios):
    model, judge, images = make(latent, decay, norm)
    objective = SelfTeachingObjective(kind, mask_ratio=0.35, crop_ratios=ratios, sigreg_weight=0.03)
    its = copy.deepcopy(judge)
    for batch in (images.flip(0) ** 2, images)[norm != "whitened" :]:  # in its second step, it averages
        ours = objective(model, judge, batch, draws())
        plain = reference_objective(objective, model, its, batch, draws())
    assert list(ours) == list(plain)
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], msg=lambda text, name=name: f"{name}: {text}")
    parameters = list(model.parameters())
    gradients = (torch.autograd.grad(terms["loss"], parameters) for terms in (ours, plain))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("norm", "ratios", "passes"), [("own", (0.4,), 5), ("shared", (0.4,), 6), ("own", (1.0,), 3)])
def test_the_judge_encodes_what_a_term_needs_and_nothing_else(norm, ratios, passes, monkeypatch):
    model, judge, images = make(norm=norm)
    project, seen = judge.encoder.project, []
    monkeypatch.setattr(judge.encoder, "project", lambda view: seen.append(view) or project(view))
    SelfTeachingObjective(crop_ratios=ratios)(model, judge, images, draws())
    assert len(seen) == passes


def test_a_live_judge_is_the_encoder_whose_weights_learn_from_its_verdicts():
    model, frozen, images = make()
    judge = Judge(model.encoder, norm="shared", live=True)
    objective = SelfTeachingObjective(crop_ratios=(1.0,))
    gradients = {}
    for name, each in {"live": judge, "plain": judge, "frozen": frozen}.items():
        step = reference_objective if name == "plain" else SelfTeachingObjective.__call__
        latent = step(objective, model, each, images, draws())["latent"]
        gradients[name] = torch.autograd.grad(latent, list(model.parameters()))
    torch.testing.assert_close(gradients["live"], gradients["plain"])
    assert not torch.allclose(gradients["live"][0], gradients["frozen"][0])
    before = copy.deepcopy(model.state_dict())
    judge.update(model.encoder)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:0], lambda x: x[0], lambda x: x[..., 1:], lambda x: (255 * x).byte()],
    ids=["none", "one", "not square", "bytes"],
)
def test_a_batch_of_another_kind_is_refused_by_its_name(change):
    model, judge, x = make()
    with pytest.raises(UsageError, match=r"^x is 'torch\..*float \[N, C, S, S\]"):
        SelfTeachingObjective()(model, judge, change(x), draws())
