"""The judge: a slowly refreshed copy of the encoder, which the field calls an EMA teacher. It says what images mean."""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from leae.errors import require, require_choice, require_in
from leae.layers import at_least_float32, normalise, normalise_with

RULERS = ("shared", "own")


class Judge(nn.Module):
    """A copy T of the encoder E that gets no gradient and moves toward E after every optimizer step.

    Gradients flow through the judge to the images it is shown, never into its weights. It normalises with the
    statistics of the batches it is shown and neither reads nor changes running statistics, for crops are off the
    data's distribution.

    The encoder is E, which is copied: its `project` maps images to codes, its `norm` is the batch norm behind it. At
    every `update` T ← decay · T + (1 − decay) · E, the decay in [0, 1): 0 is the step-frozen judge. The ruler says by
    whose statistics reconstructions are measured: "shared", by those of the real views they are compared with; "own",
    as published, by their own. Then the judge is blind to a shift, or a loss of contrast, that the codes of the
    reconstructions have in common. Anything else, and an encoder without a batch norm, is a UsageError.
    """

    def __init__(self, encoder: nn.Module, decay: float = 0.99, ruler: str = "shared"):
        super().__init__()
        require_in("[0, 1)", JUDGE_DECAY=decay)
        require_choice(RULERS, JUDGE_RULER=ruler)
        ends_well = isinstance(encoder.norm, nn.BatchNorm1d | nn.BatchNorm2d)
        require(ends_well, "the end of the judge's encoder", type(encoder.norm).__name__, "a batch norm")
        self.decay, self.ruler = decay, ruler
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    def forward(self, real: Tensor, *reconstructions: Tensor) -> "Judgement":
        """T of one view of the images and of the same view of their reconstructions, float [N, C, S, S] in [0, 1] each.

        No gradient flows to `real`, neither from its own codes nor from those that are measured by its ruler.
        """
        return Judgement(self, real, reconstructions)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """T of images [N, C, S, S] by the statistics of all of them, and of no other process's."""
        codes = at_least_float32(self.encoder.project(images))
        variance, mean = torch.var_mean(codes, dim=[0, *range(2, codes.dim())], correction=0)
        return normalise_with(codes, mean, variance, self.encoder.norm)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Move toward the encoder: T ← decay · T + (1 − decay) · E."""
        torch._foreach_lerp_(list(self.encoder.parameters()), list(encoder.parameters()), 1 - self.decay)


@dataclass(frozen=True)
class Judgement:
    """Codes [N, *latent_shape] of a real view, the `target`, and of its reconstructions, computed when asked for."""

    judge: Judge
    real: Tensor
    views: tuple[Tensor, ...]

    @cached_property
    def reconstructions(self) -> tuple[Tensor, ...]:
        """In order: one pass through the convolutions, then each normalised by what the ruler selects."""
        codes = self.judge.encoder.project(torch.cat(self.views)).split([len(view) for view in self.views])
        shared = self.judge.ruler == "shared"
        return tuple(normalise(code, self._projected if shared else code, self.judge.encoder.norm) for code in codes)

    @cached_property
    @torch.no_grad()
    def target(self) -> Tensor:
        return normalise(self._projected, self._projected, self.judge.encoder.norm)

    @cached_property
    @torch.no_grad()
    def _projected(self) -> Tensor:
        return self.judge.encoder.project(self.real)
