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

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.distributed import local_rows, world_size
from leae.errors import require, require_choice, require_in
from leae.judge import WHOLE, Judge
from leae.masking import crop_and_resize, crop_side, draw_boxes, fill_squares, mask_side, require_ratios
from leae.sigreg import draw_directions, sigreg_along

ALL, FROM_FIRST, FROM_SECOND = slice(None), slice(0, None, 2), slice(1, None, 2)  # all of a batch, or every other image
# The images whose clean views, and those whose masked views, are used.
OBJECTIVES = {"symmetric": (ALL, ALL), "alternating": (FROM_FIRST, FROM_SECOND), "crop": (ALL,)}


class Draws(NamedTuple):
    """What is random in a step. Corners, int64 [n, 2], are row and column of the top left pixels of n squares."""

    masks: list[Tensor]  # the corners that the masked view hides; none without a masked view
    crops: dict[float, Tensor | None]  # by crop ratio: the corners of each image's box; None for the whole image
    directions: list[Tensor]  # [D, DIRECTIONS] of SIGReg for each view's codes


@dataclass(frozen=True)
class SelfTeachingObjective:
    """The objective; call it on a batch. A value outside its range is a ValueError.

    A step in two parts: `draw` draws all that is random, `terms` is then a function of tensors, which can be compiled.
    """

    kind: str = "symmetric"  # or "alternating", or "crop"
    mask_ratio: float = 0.35  # share of an image's area that the masked view hides, in (0, 1)
    crop_ratios: tuple[float, ...] = (0.15, 1.0)  # sides of the boxes as shares of the image's; 1.0 is the whole image
    sigreg_weight: float = 0.1  # λ, at least 0

    def __post_init__(self):
        require_choice(OBJECTIVES, kind=self.kind)
        require_in("[0, inf)", sigreg_weight=self.sigreg_weight)
        require_in("(0, 1)", mask_ratio=self.mask_ratio)
        require_ratios(self.crop_ratios)
        object.__setattr__(self, "crop_ratios", tuple(map(float, self.crop_ratios)))  # 1 and 1.0 are one name

    def __call__(
        self, model: nn.Module, judge: Judge, x: Tensor, generator: torch.Generator, step: int = 0
    ) -> dict[str, Tensor]:
        """The loss of one batch and every term of it by name: `terms` of what the generator draws."""
        return self.terms(model, judge, x, self.draw(judge, x, generator, step))

    def draw(self, judge: Judge, x: Tensor, generator: torch.Generator, step: int = 0) -> Draws:
        """What is random in the step of a batch, drawn by a generator on its device.

        `step` optimizer steps came before: for schedules. A mask that hides no pixel of images of this size, a crop
        below 2×2 pixels, or an x that is no such batch, is a ValueError.
        """
        fits = x.dim() == 4 and x.is_floating_point() and len(x) > 0 and x.shape[2] == x.shape[3]
        require(fits, "x", f"{x.dtype} {[*x.shape]}", "images, float [N, C, S, S] in [0, 1], N > 0")
        crop_ratios = self.crop_ratios  # a schedule goes here: `self.crop_ratios if step < 10_000 else (1.0,)`, say
        size, rows = x.shape[-1], OBJECTIVES[self.kind]

        def boxes(count: int, side: int) -> Tensor:
            return local_rows(draw_boxes(count * world_size(), side, size, generator))

        masks = [boxes(len(x[part]), mask_side(size, self.mask_ratio)) for part in rows[1:]]
        sides = {ratio: crop_side(size, ratio) for ratio in crop_ratios}
        crops = {ratio: boxes(len(x), side) if side < size else None for ratio, side in sides.items()}
        dim = judge.encoder.norm.num_features
        return Draws(masks, crops, [draw_directions(dim, generator, x.dtype) for _ in rows])

    def terms(self, model: nn.Module, judge: Judge, x: Tensor, draws: Draws) -> dict[str, Tensor]:
        """The loss of one batch, or of this process's rows of it, and every term of it by name.

        The model is E and D: its `encode` maps images [n, C, S, S] to codes [n, D] or [n, D, H, W], normalised by the
        statistics of this batch, its `decode` maps codes to images in [0, 1]. The judge is T. `x` are images, float
        [N, C, S, S] in [0, 1], at least two of each view, `draws` theirs.

        Scalars come back by name: "loss" to take the gradient of, its two parts "latent" and "sigreg" (λ included), and
        the terms that "latent" is the mean of: "consistency" (symmetric), "clean_crop_0.15", "masked_crop_0.15".
        """
        symmetric, rows, size = self.kind == "symmetric", OBJECTIVES[self.kind], x.shape[-1]
        hidden = mask_side(size, self.mask_ratio)
        masked = [fill_squares(x[part], mask, hidden) for part, mask in zip(rows[1:], draws.masks, strict=True)]
        views = x[rows[0]], *masked
        z = [model.encode(view) for view in views]  # z_clean, z_masked, each normalised by its own statistics
        reconstructions = [model.decode(code) for code in z]  # x_clean, x_masked

        # What the judge sees of x and of its reconstructions at each crop ratio; consistency wants the whole image.
        judged = {}
        for ratio in dict.fromkeys((WHOLE, *draws.crops) if symmetric else draws.crops):
            real, shown, corners = x, reconstructions, draws.crops.get(ratio)
            if corners is not None:
                side = crop_side(size, ratio)
                real = crop_and_resize(x, corners, side)
                shown = [crop_and_resize(r, corners[part], side) for r, part in zip(reconstructions, rows, strict=True)]
            compared = ratio in draws.crops or judge.norm != "own"  # with the real view, or by its statistics
            judged[ratio] = judge(real if compared else None, *shown, ratio=ratio)

        terms = {}
        if symmetric:
            _, (t_clean, t_masked) = judged[WHOLE]
            terms["consistency"] = F.mse_loss(t_clean, t_masked)
        for ratio in draws.crops:
            target, codes = judged[ratio]
            for view, part, code in zip(("clean", "masked"), rows, codes, strict=False):  # or the clean one alone
                terms[f"{view}_crop_{ratio}"] = F.mse_loss(code, target[part])
        latent = torch.stack(list(terms.values())).mean()
        regularity = self.sigreg_weight * sum(map(sigreg_along, draws.directions, z)) / len(z)
        return {"loss": latent + regularity, "latent": latent, "sigreg": regularity, **terms}
