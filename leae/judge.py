"""The judge: a slowly refreshed copy of the encoder, which the field calls an EMA teacher. It says what images mean."""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from leae.errors import require, require_choice, require_number
from leae.layers import at_least_float32, normalise, normalise_with

RULERS = ("shared", "own")
BATCH = 256  # images at a time in `Judge.encode`


class Judge(nn.Module):
    """A copy T of the encoder E that gets no gradient and moves toward E after every optimizer step.

    Gradients flow through the judge to the images it is shown, never into its weights. It normalises with the
    statistics of the batches it is shown and neither reads nor changes running statistics, for crops are off the
    data's distribution. Which batch the statistics are taken from is the ruler:

    - "shared": reconstructions are measured by the statistics of the real views they are compared with.
    - "own": every batch of views by its own, as published. Then the judge is blind to a shift, or a loss of
      contrast, that the codes of the reconstructions have in common.

    Args:
        encoder: E, whose `project` maps images to codes and whose `norm` is the batch norm behind it; copied, and
            left as it is.
        decay: T ← decay · T + (1 − decay) · E at every `update`, in [0, 1). 0 is the step-frozen judge.
        ruler: "shared" or "own".

    Raises:
        UsageError: decay or ruler is none of these, or the encoder does not end in a batch norm.
    """

    def __init__(self, encoder: nn.Module, decay: float = 0.99, ruler: str = "shared"):
        super().__init__()
        require_number(JUDGE_DECAY=decay)
        require(0 <= decay < 1, "JUDGE_DECAY", decay, "at least 0 (step-frozen) and below 1, say 0.99")
        require_choice(RULERS, JUDGE_RULER=ruler)
        ends_well = isinstance(encoder.norm, nn.BatchNorm1d | nn.BatchNorm2d)
        require(ends_well, "the end of the judge's encoder", type(encoder.norm).__name__, "a batch norm")
        self.decay = decay
        self.ruler = ruler
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    def forward(self, real: Tensor, *reconstructions: Tensor) -> "Judgement":
        """T of one view of the images and of the same view of their reconstructions.

        Args:
            real: float [N, C, S, S] in [0, 1]. No gradient flows to it, neither from its own codes nor from those of
                the reconstructions that are measured by its ruler.
            *reconstructions: float [N, C, S, S] each, in [0, 1].
        """
        return Judgement(self, real, reconstructions)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """T of any number of images [N, C, S, S] by the batch statistics of all of them, for an evaluation.

        Takes what is given for the whole batch, also where several processes share a run. A single image's pooled
        code is the batch norm's bias, for nothing else is left of it.
        """
        codes = torch.cat([at_least_float32(self.encoder.project(batch)) for batch in images.split(BATCH)])
        variance, mean = torch.var_mean(codes, dim=[0, *range(2, codes.dim())], correction=0)
        return normalise_with(codes, mean, variance, self.encoder.norm)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Move toward the encoder: T ← decay · T + (1 − decay) · E."""
        torch._foreach_lerp_(list(self.encoder.parameters()), list(encoder.parameters()), 1 - self.decay)


class Judgement:
    """Codes by the judge of images, the `target`, and of their `reconstructions`, in order: [N, *latent_shape] each.

    All reconstructions share one pass through the convolutions, and each is normalised as its own batch. The images
    have theirs once the ruler needs their codes or the target is asked for, which never happens to some.
    """

    def __init__(self, judge: Judge, real: Tensor, reconstructions: tuple[Tensor, ...]):
        self.encoder, self.real = judge.encoder, real
        ruler = self._real_codes if judge.ruler == "shared" else None
        codes = self.encoder.project(torch.cat(reconstructions)).split([len(view) for view in reconstructions])
        self.reconstructions = tuple(
            normalise(code, code if ruler is None else ruler, self.encoder.norm) for code in codes
        )

    @cached_property
    @torch.no_grad()
    def _real_codes(self) -> Tensor:
        return self.encoder.project(self.real)

    @cached_property
    @torch.no_grad()
    def target(self) -> Tensor:
        return normalise(self._real_codes, self._real_codes, self.encoder.norm)
