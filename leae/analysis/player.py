"""What a run answers on the page of `leae play`: it fills in, changes and mixes pictures, and draws new ones."""

from functools import cached_property

import torch
from torch import Tensor

from leae.analysis.latents import LatentSpace, class_difference, draw_fitted
from leae.analysis.maps import fit_pca
from leae.codes import mean_square_distance
from leae.randomness import generator
from leae.training.evaluation import decibels

SLIDERS = 6  # attributes, classes, or principal components
SAMPLES = 6  # of either distribution


class Player(LatentSpace):
    """A run on the page. Codes are flat: float [N, D] on the CPU, and so are images, [N, C, S, S]."""

    def encode(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.run.model.encode(images.to(self.device)).float().cpu().flatten(1)

    @cached_property
    def between(self) -> float:
        """How far the codes of two training images are apart: the root of the mean square over all pairs."""
        return mean_square_distance(self.training).sqrt().item()

    def directions(self, attributes: list[str]) -> Tensor:
        """A direction [D] for each slider: from the mean code without an attribute, or of other classes, to its own.

        Without attributes they are the first principal components, each a standard deviation long.
        """
        if attributes:
            return torch.stack([class_difference(self.training, self.has_label(name)) for name in attributes])
        pca = fit_pca(self.training, SLIDERS)
        return torch.from_numpy(pca.components_ * pca.explained_variance_[:, None] ** 0.5)

    def fill(self, picture: Tensor, painted: Tensor) -> tuple[Tensor, str]:
        """The reconstruction [1, C, S, S] of a picture whose painted pixels, bool [S, S], have its mean colour.

        And what to say of it. Without paint it is that of the picture itself.
        """
        hidden = torch.where(painted, picture.mean(dim=(2, 3), keepdim=True), picture)
        clean, code = self.encode(torch.cat([picture, hidden])).split(1)
        answer = self.decode(code)
        errors = (answer - picture).square().mean(dim=(0, 1))
        if not painted.any():
            return answer, f"PSNR {decibels(errors.mean()).item():.1f} dB"
        inside = f"PSNR {decibels(errors[painted].mean()).item():.1f} dB inside the paint"
        outside = "" if painted.all() else f", {decibels(errors[~painted].mean()).item():.1f} dB outside"
        shift = f". Code shift {(code - clean).norm().item() / self.between:.2f}" if self.between else ""
        return answer, inside + outside + shift

    def mix(self, pictures: Tensor, painted: Tensor) -> Tensor:
        """The first of two pictures, but with the codes of the second at the painted positions of the map."""
        first, second = self.encode(pictures).unflatten(1, self.run.model.latent_shape)
        there = torch.nn.functional.adaptive_max_pool2d(painted[None].float(), first.shape[1:]) > 0
        return self.decode(torch.where(there, second, first).flatten()[None])

    def sample(self, fitted: bool, seed: int, spread: float) -> Tensor:
        """Images decoded from codes of N(0, I), or of a Gaussian fitted to training codes, deviating so much more."""
        training = self.training
        if fitted:
            mean = training.mean(dim=0)
            return self.decode(mean + spread * (draw_fitted(training, SAMPLES, seed) - mean))
        return self.decode(spread * torch.randn(SAMPLES, training.shape[1], generator=generator(seed, "samples")))
