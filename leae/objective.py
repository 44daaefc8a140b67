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

The symmetric objective uses all of them. The crop objective uses the clean view alone: clean_crop and
λ · SIGReg(z_clean).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leae.autoencoder import BaseAutoencoder
from leae.distributed import local_rows, world_size
from leae.errors import UsageError
from leae.judge import Judge
from leae.masking import crop_and_resize, crop_side, draw_boxes, mask_side, mask_squares
from leae.sigreg import sigreg

OBJECTIVES = ("symmetric", "crop")
WHOLE = 1.0  # the crop ratio of the whole image


@dataclass(frozen=True)
class SelfTeachingObjective:
    """The objective for images of one size; call it on a batch.

    Args:
        image_size: side of the images in pixels.
        kind: "symmetric" or "crop".
        mask_ratio: share of an image's area that the masked view hides, in (0, 1).
        crop_ratios: sides of the crop boxes as shares of the image's side, each in (0, 1]; 1.0 is the whole image.
        sigreg_weight: λ, at least 0.

    Raises:
        UsageError: a value outside its range.
    """

    image_size: int
    kind: str = "symmetric"
    mask_ratio: float = 0.35
    crop_ratios: tuple[float, ...] = (0.15,)
    sigreg_weight: float = 0.03

    def __post_init__(self):
        if self.kind not in OBJECTIVES:
            raise UsageError(f"objective is {self.kind!r}; choose one of {', '.join(OBJECTIVES)}")
        object.__setattr__(self, "crop_ratios", tuple(map(float, self.crop_ratios)))  # 1 and 1.0 are one name
        if not self.crop_ratios or len(set(self.crop_ratios)) < len(self.crop_ratios):
            raise UsageError(f"crop ratios are {self.crop_ratios}; give one or several different ones, say (0.15, 1.0)")
        if not 0 <= self.sigreg_weight < float("inf"):
            raise UsageError(f"SIGReg weight is {self.sigreg_weight}; it must be at least 0, say 0.03")
        mask_side(self.image_size, self.mask_ratio)
        for ratio in self.crop_ratios:
            crop_side(self.image_size, ratio)

    @property
    def term_names(self) -> list[str]:
        """Names of the terms that a call returns, in their order."""
        if self.kind == "crop":
            terms = [f"clean_crop_{ratio}" for ratio in self.crop_ratios]
        else:
            pairs = [(f"clean_crop_{ratio}", f"masked_crop_{ratio}") for ratio in self.crop_ratios]
            terms = ["consistency", *(name for pair in pairs for name in pair)]
        return ["loss", "latent", "sigreg", *terms]

    def __call__(
        self, model: BaseAutoencoder, judge: Judge, images: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The loss of one batch, or of this process's rows of it, and every term of it by name.

        Args:
            model: E and D, in training mode, where its batch norm uses the statistics of each view's batch.
            judge: T.
            images: float [N, C, S, S] in [0, 1], at least two of them.
            generator: draws the masks, the boxes and SIGReg's directions; lives on the images' device.

        Returns:
            Scalars by name, as `term_names` lists them: "loss" to take the gradient of, its two parts "latent"
            and "sigreg" (λ included), and the terms that "latent" is the mean of.
        """
        if self.kind == "crop":
            return self._crop(model, judge, images, generator)
        return self._symmetric(model, judge, images, generator)

    def _symmetric(self, model, judge, images, generator) -> dict[str, Tensor]:
        z_clean, z_masked = model.encode_views(images, mask_squares(images, self.mask_ratio, generator))
        x_clean, x_masked = model.decode_views(z_clean, z_masked)

        terms = {}
        # Consistency compares whole reconstructions, and a crop ratio of 1 asks for the very same codes.
        for ratio in dict.fromkeys((WHOLE, *self.crop_ratios)):
            crop = self._draw_crop(ratio, len(images), generator)
            wanted = judge.ruler == "shared" or ratio in self.crop_ratios
            target, t_clean, t_masked = judge(crop(images) if wanted else None, crop(x_clean), crop(x_masked))
            if ratio == WHOLE:
                terms["consistency"] = F.mse_loss(t_clean, t_masked)
            if ratio in self.crop_ratios:
                terms[f"clean_crop_{ratio}"] = F.mse_loss(t_clean, target)
                terms[f"masked_crop_{ratio}"] = F.mse_loss(t_masked, target)
        gaussian = (sigreg(z_clean, generator) + sigreg(z_masked, generator)) / 2
        return self._sum(terms, gaussian)

    def _crop(self, model, judge, images, generator) -> dict[str, Tensor]:
        z_clean = model.encode(images)
        x_clean = model.decode(z_clean)

        terms = {}
        for ratio in self.crop_ratios:
            crop = self._draw_crop(ratio, len(images), generator)
            target, t_clean = judge(crop(images), crop(x_clean))
            terms[f"clean_crop_{ratio}"] = F.mse_loss(t_clean, target)
        return self._sum(terms, sigreg(z_clean, generator))

    def _draw_crop(self, ratio: float, count: int, generator: torch.Generator):
        """`crop` of the formulas: a function that cuts the same boxes out of whatever it is given."""
        side = crop_side(self.image_size, ratio)
        if side == self.image_size:
            return lambda images: images
        corners = local_rows(draw_boxes(count * world_size(), side, self.image_size, generator))
        return lambda images: crop_and_resize(images, corners, side)

    def _sum(self, terms: dict[str, Tensor], gaussian: Tensor) -> dict[str, Tensor]:
        latent = torch.stack(list(terms.values())).mean()
        sigreg_term = self.sigreg_weight * gaussian
        terms |= {"loss": latent + sigreg_term, "latent": latent, "sigreg": sigreg_term}
        return {name: terms[name] for name in self.term_names}
