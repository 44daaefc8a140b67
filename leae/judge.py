"""The judge: a slowly refreshed copy of the encoder that says what an image means."""

import copy

import torch
from torch import Tensor, nn

from leae.errors import UsageError
from leae.normalisation import normalise

RULERS = ("shared", "own")


class Judge(nn.Module):
    """A copy T of the encoder E that gets no gradient and follows E after every optimizer step.

    Gradients flow through the judge to the images it is shown, never into its weights. It normalises with the
    statistics of the batches it is shown and neither reads nor changes running statistics, for crops are off the
    data's distribution. Which batch the statistics are taken from is the ruler:

    - "shared": reconstructions are measured by the statistics of the real views they are compared with.
    - "own": every batch of views by its own, as published. Then the judge is blind to a shift, or a loss of
      contrast, that the codes of the reconstructions have in common.

    Args:
        encoder: E, whose `project` maps images to codes and whose `norm` is the batch norm behind it; copied, and
            left as it is.
        decay: T ← decay · T + (1 − decay) · E at every `follow`, in [0, 1). 0 is the step-frozen judge.
        ruler: "shared" or "own".

    Raises:
        UsageError: decay or ruler is none of these, or the encoder does not end in a batch norm.
    """

    def __init__(self, encoder: nn.Module, decay: float = 0.99, ruler: str = "shared"):
        super().__init__()
        if not 0 <= decay < 1:
            raise UsageError(f"judge decay is {decay}; it must be at least 0 (step-frozen) and below 1, say 0.99")
        if ruler not in RULERS:
            raise UsageError(f"judge ruler is {ruler!r}; choose one of {', '.join(RULERS)}")
        if not isinstance(encoder.norm, nn.BatchNorm1d | nn.BatchNorm2d):
            raise UsageError(f"the judge's encoder ends in {type(encoder.norm).__name__}; it must end in a batch norm")
        self.decay = decay
        self.ruler = ruler
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    def forward(self, real: Tensor | None, *reconstructions: Tensor) -> tuple[Tensor | None, ...]:
        """T(real), which is a target, and T of each of the reconstructions that are compared with it.

        All reconstructions share one pass through the convolutions; each is normalised as its own batch.

        Args:
            real: float [N, C, S, S], views of images; None where reconstructions are compared with each other alone
                and each is its own ruler.
            *reconstructions: float [N, C, S, S] each, the same views of reconstructions of these images.

        Returns:
            Codes in the same order. No gradient flows to `real`, neither from its own codes nor from those of
            the reconstructions that are measured by its ruler.
        """
        norm, target = self.encoder.norm, None
        if real is not None:
            with torch.no_grad():
                real_codes = self.encoder.project(real)
                target = normalise(real_codes, real_codes, norm)
        judged = self.encoder.project(torch.cat(reconstructions)).split([len(view) for view in reconstructions])
        rulers = [real_codes] * len(judged) if self.ruler == "shared" else judged
        return target, *(normalise(codes, ruler, norm) for codes, ruler in zip(judged, rulers, strict=True))

    def encode(self, images: Tensor) -> Tensor:
        """T of images [N, C, S, S] by their own batch statistics."""
        codes = self.encoder.project(images)
        return normalise(codes, codes, self.encoder.norm)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Move toward the encoder: T ← decay · T + (1 − decay) · E."""
        torch._foreach_lerp_(list(self.encoder.parameters()), list(encoder.parameters()), 1 - self.decay)
