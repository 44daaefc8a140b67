"""The judge: a slowly refreshed copy of the encoder, an EMA teacher. The loss compares its codes of images."""

import copy

import torch
from torch import Tensor, nn

from leae.errors import require, require_choice, require_in
from leae.layers import normalise, normalise_with
from leae.masking import require_ratios
from leae.whitening import Whitening, whiten

NORMS = ("shared", "own", "whitened")
WHOLE = 1.0  # the crop ratio of the whole image


class Judge(nn.Module):
    """A copy T of the encoder E that gets no gradient and moves toward E after every optimizer step.

    Gradients flow through the judge to the images it is shown, never into its weights. It normalises with the
    statistics of the batches it is shown and neither reads nor changes running statistics, for crops are off the
    data's distribution.

    The encoder is E, which is copied: its `project` maps images to codes, its `norm` is the batch norm behind it. At
    every `update` T ← decay · T + (1 − decay) · E, the decay in [0, 1): 0 is the step-frozen judge. `norm` says which
    statistics normalise the codes of reconstructions: "shared", those of the real views they are compared with; "own",
    as published, their own: then the judge is blind to a shift, or a loss of contrast, that the codes of the
    reconstructions have in common. "whitened" is "shared" and then times a W for each kind of view, the whole image and
    every crop ratio; ε is W's (see `Whitening`). Anything else, and an encoder without a batch norm, is a ValueError. A
    live judge is E itself, with gradients into its weights: for the ablation.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decay: float = 0.99,
        norm: str = "whitened",
        epsilon: float = 1.0,
        crop_ratios: tuple[float, ...] = (0.15, 1.0),
        live: bool = False,
    ):
        super().__init__()
        require_in("[0, 1)", decay=decay)
        require_choice(NORMS, norm=norm)
        require_ratios(crop_ratios)
        ends_well = isinstance(encoder.norm, nn.BatchNorm1d | nn.BatchNorm2d)
        require(ends_well, "the end of the judge's encoder", type(encoder.norm).__name__, "a batch norm")
        self.decay, self.norm = decay, norm
        self.encoder = encoder if live else copy.deepcopy(encoder).requires_grad_(False)
        self.whitened_ratios = tuple(dict.fromkeys((WHOLE, *crop_ratios))) if norm == "whitened" else ()
        size, device = encoder.norm.num_features, encoder.norm.running_mean.device
        self.whitenings = nn.ModuleList(Whitening(size, epsilon, device) for _ in self.whitened_ratios)

    def forward(self, real: Tensor | None, *views: Tensor, ratio: float = WHOLE) -> tuple[Tensor | None, list[Tensor]]:
        """T of a real view, the target, and of its reconstructions: codes [N, *latent_shape] of each.

        All are crops of this ratio, float [N, C, S, S] in [0, 1]. A whitened norm must know the ratio (ValueError); in
        training mode, it folds `real` into its moving average before it computes W. No gradient flows to `real`,
        neither from its own codes nor from those that are normalised with its statistics. With a norm of their own, it
        may be None (else ValueError), and so the target: a pass less where no term has that.
        """
        require(real is not None or self.norm == "own", "real", real, f"images, as the norm is {self.norm}")
        project, norm, target = self.encoder.project, self.encoder.norm, None
        if real is not None:
            with torch.no_grad():
                projected = project(real)
                target = normalise(projected, norm)
        codes = [project(view) for view in views]
        if self.norm == "own":
            return target, [normalise(code, norm) for code in codes]
        codes = [normalise_with(code, projected, norm) for code in codes]
        if self.norm == "shared":
            return target, codes
        require(ratio in self.whitened_ratios, "ratio", ratio, f"one of its crop_ratios, {self.whitened_ratios}")
        whitening = self.whitenings[self.whitened_ratios.index(ratio)]
        if self.training:
            whitening.update(target)
        W = whitening.matrix()
        return whiten(target, W), [whiten(code, W) for code in codes]

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Move toward the encoder: T ← decay · T + (1 − decay) · E."""
        torch._foreach_lerp_(list(self.encoder.parameters()), list(encoder.parameters()), 1 - self.decay)
