"""The objective against the formulas written down plainly: one pass per view, loops over images, float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.masking import crop_side, draw_boxes, mask_side
from leae.objective import SelfTeachingObjective
from leae.sigreg import KNOTS, LAST_KNOT, draw_directions

SIZE = 32


def make(latent="pooled", decay=0.99, ruler="shared", seed=0):
    """A model, a judge that has begun to differ from its encoder, and a batch."""
    torch.manual_seed(seed)
    model = Autoencoder(SIZE, 3, hidden_dim=4, latent=latent, latent_dim=8, map_channels=8).double()
    judge = Judge(model.encoder, decay, ruler)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    judge.follow(model.encoder)
    return model, judge, torch.rand(6, 3, SIZE, SIZE, dtype=torch.float64)


def plain_mask(images, corners, side):
    masked = images.clone()
    for image, (top, left) in zip(masked, corners.tolist(), strict=True):
        image[:, top : top + side, left : left + side] = image.mean(dim=(1, 2))[:, None, None]
    return masked


def plain_crop(images, corners, side):
    crops = [
        F.interpolate(
            image[None, :, top : top + side, left : left + side], (SIZE, SIZE), mode="bilinear", align_corners=True
        )
        for image, (top, left) in zip(images, corners.tolist(), strict=True)
    ]
    return torch.cat(crops)


def plain_norm(codes, ruler, norm):
    over = (0,) if codes.dim() == 2 else (0, 2, 3)
    shape = (1, -1) if codes.dim() == 2 else (1, -1, 1, 1)
    mean, variance = ruler.mean(over, keepdim=True), ruler.var(over, correction=0, keepdim=True)
    return (codes - mean) / (variance + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


def plain_sigreg(codes, generator):
    directions = draw_directions(codes.shape[1], generator, codes.dtype)
    t = torch.linspace(0, LAST_KNOT, KNOTS, dtype=codes.dtype)
    positions = codes.flatten(2).unbind(2) if codes.dim() == 4 else [codes]
    scores = []
    for samples in positions:
        angles = (samples @ directions)[:, :, None] * t  # [N, directions, knots]
        error = (angles.cos().mean(0) - torch.exp(-(t**2) / 2)) ** 2 + angles.sin().mean(0) ** 2
        scores.append(2 * len(samples) * torch.trapezoid(error * torch.exp(-(t**2) / 2), t).mean())
    return torch.stack(scores).mean()


def plain_objective(objective, model, judge, images, generator):
    """The design's formulas, each view by itself. Draws come in the order: mask, boxes of each ratio, directions."""
    count, symmetric = len(images), objective.kind == "symmetric"
    E, D, T = model.encoder, model.decode, judge.encoder
    z = {"clean": plain_norm(E.project(images), E.project(images), E.norm)}
    if symmetric:
        side = mask_side(SIZE, objective.mask_ratio)
        masked = plain_mask(images, draw_boxes(count, side, SIZE, generator), side)
        z["masked"] = plain_norm(E.project(masked), E.project(masked), E.norm)
    x = {view: D(code) for view, code in z.items()}

    def judged(view, real):
        codes = T.project(view)
        return plain_norm(codes, T.project(real) if judge.ruler == "shared" else codes, T.norm)

    terms = {}
    if symmetric:
        draw_boxes(count, SIZE, SIZE, generator)  # the whole image has one position
        terms["consistency"] = F.mse_loss(judged(x["clean"], images), judged(x["masked"], images))
    for ratio in objective.crop_ratios:
        side = crop_side(SIZE, ratio)
        if not (symmetric and ratio == 1.0):
            corners = draw_boxes(count, side, SIZE, generator)
        real = plain_crop(images, corners, side) if side < SIZE else images
        target = plain_norm(T.project(real), T.project(real), T.norm).detach()
        for view in x:
            shown = plain_crop(x[view], corners, side) if side < SIZE else x[view]
            terms[f"{view}_crop_{ratio}"] = F.mse_loss(judged(shown, real), target)
    latent = sum(terms.values()) / len(terms)
    sigreg = objective.sigreg_weight * sum(plain_sigreg(code, generator) for code in z.values()) / len(z)
    return {"loss": latent + sigreg, "latent": latent, "sigreg": sigreg, **terms}


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
    fast, judge, images = make(decay=0.0, ruler="own")
    plain, plain_judge = copy.deepcopy(fast), copy.deepcopy(judge)
    for model, its_judge, compute in ((fast, judge, objective), (plain, plain_judge, None)):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            if compute:
                loss = compute(model, its_judge, images, generator)["loss"]
            else:
                loss = plain_objective(objective, model, its_judge, images, generator)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            its_judge.follow(model.encoder)
    for mine, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    for mine, theirs in zip(judge.encoder.parameters(), fast.encoder.parameters(), strict=True):
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
