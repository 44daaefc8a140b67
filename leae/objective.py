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
from torch import Tensor

from leae.autoencoder import BaseAutoencoder
from leae.distributed import local_rows, world_size
from leae.errors import require, require_choice, require_in
from leae.judge import WHOLE, Judge
from leae.masking import crop_and_resize, crop_side, draw_boxes, mask_side, mask_squares
from leae.sigreg import sigreg

ALL, ODD, EVEN = slice(None), slice(0, None, 2), slice(1, None, 2)  # the first image of a batch, the third, …
# The images whose clean views, and those whose masked views, are used.
OBJECTIVES = {"symmetric": (ALL, ALL), "alternating": (ODD, EVEN), "crop": (ALL,)}


@dataclass(frozen=True)
class SelfTeachingObjective:
    """The objective for images of one size; call it on a batch. A value outside its range is a UsageError."""

    image_size: int  # side of the images in pixels
    kind: str = "symmetric"  # or "alternating", or "crop"
    mask_ratio: float = 0.35  # share of an image's area that the masked view hides, in (0, 1)
    crop_ratios: tuple[float, ...] = (0.15, 1.0)  # sides of the boxes as shares of the image's; 1.0 is the whole image
    sigreg_weight: float = 0.1  # λ, at least 0

    def __post_init__(self):
        require_choice(OBJECTIVES, OBJECTIVE=self.kind)
        require_in("[0, inf)", SIGREG_WEIGHT=self.sigreg_weight)
        mask_side(self.image_size, self.mask_ratio)
        ratios = self.crop_ratios
        some = isinstance(ratios, tuple) and len(ratios) > 0
        require(some, "CROP_RATIOS", ratios, "a tuple of at least one number, as in (0.15,) or (0.15, 1.0)")
        for ratio in ratios:
            crop_side(self.image_size, ratio)
        require(len(set(ratios)) == len(ratios), "CROP_RATIOS", ratios, "different numbers")
        object.__setattr__(self, "crop_ratios", tuple(map(float, ratios)))  # 1 and 1.0 are one name

    def __call__(
        self, model: BaseAutoencoder, judge: Judge, x: Tensor, generator: torch.Generator, step: int = 0
    ) -> dict[str, Tensor]:
        """The loss of one batch, or of this process's rows of it, and every term of it by name.

        The model is E and D, in training mode, where its batch norm uses the statistics of each view's batch; the judge
        is T. `x` are images, float [N, C, S, S] in [0, 1], at least two of each view. The generator, on their device,
        draws masks, boxes and SIGReg's directions. `step` optimizer steps came before: for schedules.

        Scalars come back by name: "loss" to take the gradient of, its two parts "latent" and "sigreg" (λ included), and
        the terms that "latent" is the mean of: "consistency" (symmetric), "clean_crop_0.15", "masked_crop_0.15".
        """
        crop_ratios = self.crop_ratios  # a schedule goes here: `self.crop_ratios if step < 10_000 else (1.0,)`, say
        symmetric, rows = self.kind == "symmetric", OBJECTIVES[self.kind]
        views = x[rows[0]], *(mask_squares(x[part], self.mask_ratio, generator) for part in rows[1:])
        z = model.encode_views(*views)  # z_clean, z_masked
        reconstructions = model.decode_views(*z)  # x_clean, x_masked

        # What the judge sees of x and of its reconstructions at each crop ratio; consistency wants the whole image.
        judged = {}
        for ratio in dict.fromkeys((WHOLE, *crop_ratios) if symmetric else crop_ratios):
            crop = self._draw_crop(ratio, len(x), generator)
            seen = map(crop, reconstructions, rows)
            judged[ratio] = judge(crop(x), *seen, ratio=ratio, target=ratio in crop_ratios)

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

    def _draw_crop(self, ratio: float, count: int, generator: torch.Generator) -> Callable[..., Tensor]:
        """`crop` of the formulas: it cuts the same boxes out of whatever views it is given, of these rows of x."""
        side = crop_side(self.image_size, ratio)
        if side == self.image_size:
            return lambda views, rows=ALL: views
        corners = local_rows(draw_boxes(count * world_size(), side, self.image_size, generator))
        return lambda views, rows=ALL: crop_and_resize(views, corners[rows], side)
