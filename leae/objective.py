"""The self-teaching objective, term by term.

For a batch of images x, encoder E, decoder D and judge T:

    z_clean  = E(x)          x_clean  = D(z_clean)
    z_masked = E(mask(x))    x_masked = D(z_masked)

    consistency = MSE(T(x_clean), T(x_masked))
    clean_crop  = MSE(T(crop(x)), T(crop(x_clean)))      for each crop ratio, with the same boxes in every term
    masked_crop = MSE(T(crop(x)), T(crop(x_masked)))
    latent      = mean of the terms in use
    sigreg      = λ · ½ (SIGReg(z_clean) + SIGReg(z_masked))
    loss        = latent + sigreg

The symmetric objective uses all of them. The alternating objective judges every image in one view: the first, third, …
of the batch in the clean one, the others in the masked one. So it has no consistency, each other term is over half of
the batch, and a step costs 0.6 times as much. The crop objective uses the clean view alone: clean_crop and
λ · SIGReg(z_clean).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.distributed import local_rows, world_size
from leae.errors import require, require_choice, require_in
from leae.judge import WHOLE, Judge
from leae.masking import crop_and_resize, crop_side, draw_boxes, mask_squares
from leae.sigreg import sigreg

ALL, FROM_FIRST, FROM_SECOND = slice(None), slice(0, None, 2), slice(1, None, 2)  # all of a batch, or every other image
# The images whose clean views, and those whose masked views, are used.
OBJECTIVES = {"symmetric": (ALL, ALL), "alternating": (FROM_FIRST, FROM_SECOND), "crop": (ALL,)}


@dataclass(frozen=True)
class SelfTeachingObjective:
    """The objective; call it on a batch. A value outside its range is a ValueError."""

    kind: str = "symmetric"  # or "alternating", or "crop"
    mask_ratio: float = 0.35  # share of an image's area that the masked view hides, in (0, 1)
    crop_ratios: tuple[float, ...] = (0.15, 1.0)  # sides of the boxes as shares of the image's; 1.0 is the whole image
    sigreg_weight: float = 0.1  # λ, at least 0

    def __post_init__(self):
        require_choice(OBJECTIVES, kind=self.kind)
        require_in("[0, inf)", sigreg_weight=self.sigreg_weight)
        require_in("(0, 1)", mask_ratio=self.mask_ratio)
        ratios = self.crop_ratios
        some = isinstance(ratios, tuple) and len(ratios) > 0
        require(some, "crop_ratios", ratios, "a tuple of at least one number, as in (0.15,) or (0.15, 1.0)")
        for ratio in ratios:
            require_in("(0, 1]", **{"an entry of crop_ratios": ratio})
        require(len(set(ratios)) == len(ratios), "crop_ratios", ratios, "different numbers")
        object.__setattr__(self, "crop_ratios", tuple(map(float, ratios)))  # 1 and 1.0 are one name

    def __call__(
        self, model: nn.Module, judge: Judge, x: Tensor, generator: torch.Generator, step: int = 0
    ) -> dict[str, Tensor]:
        """The loss of one batch, or of this process's rows of it, and every term of it by name.

        The model is E and D: its `encode` maps images [n, C, S, S] to codes [n, D] or [n, D, H, W], normalised by the
        statistics of this batch, its `decode` maps codes to images in [0, 1]. The judge is T. `x` are images, float
        [N, C, S, S] in [0, 1], at least two of each view. The generator, on their device, draws masks, boxes and
        SIGReg's directions. `step` optimizer steps came before: for schedules. A mask that hides no pixel of images of
        this size, or a crop below 2×2 pixels, is a ValueError.

        Scalars come back by name: "loss" to take the gradient of, its two parts "latent" and "sigreg" (λ included), and
        the terms that "latent" is the mean of: "consistency" (symmetric), "clean_crop_0.15", "masked_crop_0.15".
        """
        crop_ratios = self.crop_ratios  # a schedule goes here: `self.crop_ratios if step < 10_000 else (1.0,)`, say
        symmetric, rows = self.kind == "symmetric", OBJECTIVES[self.kind]
        views = x[rows[0]], *(mask_squares(x[part], self.mask_ratio, generator) for part in rows[1:])
        z = [model.encode(view) for view in views]  # z_clean, z_masked, each normalised by its own statistics
        reconstructions = [model.decode(code) for code in z]  # x_clean, x_masked

        # What the judge sees of x and of its reconstructions at each crop ratio; consistency wants the whole image.
        judged = {}
        for ratio in dict.fromkeys((WHOLE, *crop_ratios) if symmetric else crop_ratios):
            crop = draw_crop(ratio, x, generator)
            judged[ratio] = judge(crop(x), *map(crop, reconstructions, rows), ratio=ratio)

        terms = {}
        if symmetric:
            _, (t_clean, t_masked) = judged[WHOLE]
            terms["consistency"] = F.mse_loss(t_clean, t_masked)
        for ratio in (ratio for ratio in judged if ratio in crop_ratios):
            target, codes = judged[ratio]
            for view, part, code in zip(("clean", "masked"), rows, codes, strict=False):  # or the clean one alone
                terms[f"{view}_crop_{ratio}"] = F.mse_loss(code, target[part])
        latent = torch.stack(list(terms.values())).mean()
        regularity = self.sigreg_weight * sum(sigreg(code, generator) for code in z) / len(z)
        return {"loss": latent + regularity, "latent": latent, "sigreg": regularity, **terms}


def draw_crop(ratio: float, x: Tensor, generator: torch.Generator) -> Callable[..., Tensor]:
    """`crop` of the formulas: it cuts the same boxes out of whatever views of x it is given, of these rows of x."""
    count, size = len(x), x.shape[-1]
    side = crop_side(size, ratio)
    if side == size:
        return lambda views, rows=ALL: views
    corners = local_rows(draw_boxes(count * world_size(), side, size, generator))
    return lambda views, rows=ALL: crop_and_resize(views, corners[rows], side)
