"""The objective against the formulas written down plainly (leae/analysis/plain.py), in float64."""

import copy

import pytest
import torch

from leae.analysis.plain import plain_objective, plain_step
from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.objective import SelfTeachingObjective

SIZE = 32


def make(latent="pooled", decay=0.99, ruler="shared", seed=0):
    """A model, a judge that has begun to differ from its encoder, and a batch."""
    torch.manual_seed(seed)
    model = Autoencoder(SIZE, 3, hidden_dim=4, latent=latent, latent_dim=8, map_channels=8).double()
    judge = Judge(model.encoder, decay, ruler)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    judge.update(model.encoder)
    return model, judge, torch.rand(6, 3, SIZE, SIZE, dtype=torch.float64)


@pytest.mark.parametrize("latent", ["pooled", "spatial"])
@pytest.mark.parametrize(("decay", "ruler"), [(0.0, "own"), (0.99, "shared")])
@pytest.mark.parametrize(
    ("kind", "ratios"), [("symmetric", (0.15,)), ("symmetric", (0.4, 1.0)), ("crop", (0.15,)), ("crop", (1.0, 0.5))]
)
def test_values_and_gradients_are_those_of_the_formulas(latent, decay, ruler, kind, ratios):
    model, judge, images = make(latent, decay, ruler)
    objective = SelfTeachingObjective(SIZE, kind, mask_ratio=0.35, crop_ratios=ratios, sigreg_weight=0.03)
    ours = objective(model, judge, images, torch.Generator().manual_seed(7))
    plain = plain_objective(objective, model, judge, images, torch.Generator().manual_seed(7))
    assert list(ours) == objective.term_names
    assert set(ours) == set(plain)
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name])

    parameters = list(model.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(ours["loss"], parameters), torch.autograd.grad(plain["loss"], parameters), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_the_published_constants_train_like_the_formulas_for_several_steps():
    objective = SelfTeachingObjective(SIZE, "symmetric", mask_ratio=0.35, crop_ratios=(0.15,), sigreg_weight=0.03)
    ours, judge, images = make(decay=0.0, ruler="own")
    plain, plain_judge = copy.deepcopy(ours), copy.deepcopy(judge)
    for model, its_judge, fast in ((ours, judge, True), (plain, plain_judge, False)):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            if not fast:
                plain_step(objective, model, its_judge, optimizer, images, generator)
                continue
            loss = objective(model, its_judge, images, generator)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            its_judge.update(model.encoder)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    for mine, theirs in zip(judge.encoder.parameters(), ours.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)  # step-frozen: after the step the judge is the encoder


def test_running_statistics_move_once_for_every_view():
    model, judge, images = make()
    SelfTeachingObjective(SIZE)(model, judge, images, torch.Generator().manual_seed(0))
    assert model.encoder.norm.num_batches_tracked == 2
    assert judge.encoder.norm.num_batches_tracked == 0


class Perfect(torch.nn.Module):
    """A stand-in for a model whose reconstructions of clean views are the images themselves."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def encode_views(self, clean, masked):
        self.views = (clean, masked)
        return self.model.encode_views(clean, masked)

    def decode_views(self, *latents):
        return self.views


def test_every_term_of_a_ratio_uses_the_same_boxes():
    model, judge, images = make()
    terms = SelfTeachingObjective(SIZE, crop_ratios=(0.15, 0.5, 1))(
        Perfect(model), judge, images, torch.Generator().manual_seed(0)
    )
    for ratio in (0.15, 0.5, 1.0):  # 1 in the settings is 1.0; other boxes would show other parts of the same image
        assert terms[f"clean_crop_{ratio}"] < 1e-20
        assert terms[f"masked_crop_{ratio}"] > 1e-6


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        ({"kind": "pixels"}, ["pixels", "symmetric", "crop"]),
        ({"mask_ratio": 0.0}, ["mask ratio", "0.35"]),
        ({"mask_ratio": 1.2}, ["mask ratio", "1.2"]),
        ({"crop_ratios": (0.0,)}, ["crop ratio", "0.15"]),
        ({"crop_ratios": (0.15, 1.5)}, ["crop ratio", "1.5"]),
        ({"crop_ratios": ()}, ["crop ratios"]),
        ({"crop_ratios": (0.2, 0.2)}, ["crop ratios", "different"]),
        ({"sigreg_weight": -1.0}, ["SIGReg weight"]),
        ({"sigreg_weight": float("nan")}, ["SIGReg weight"]),
    ],
)
def test_impossible_settings_are_refused(settings, mentions):
    with pytest.raises(UsageError) as refusal:
        SelfTeachingObjective(SIZE, **settings)
    assert all(text in str(refusal.value) for text in mentions)
