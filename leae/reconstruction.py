"""The losses of the baselines: reconstruction, and what a variational one adds.

After Vincent et al. (2008), "Extracting and composing robust features with denoising autoencoders", and Kingma and
Welling (2013), "Auto-encoding variational Bayes", arXiv 1312.6114.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leae.autoencoder import OUTPUTS
from leae.errors import require, require_choice
from leae.layers import at_least_float32

LOSSES = ("mse", "bce")


@dataclass(frozen=True)
class ReconstructionLoss:
    """How far a decoder's raw output is from the images; call it on both.

    | kind | output    | the raw output is          | loss                                           |
    |------|-----------|----------------------------|------------------------------------------------|
    | mse  | "sigmoid" | logits of pixels in [0, 1] | (sigmoid(raw) − x)²                            |
    | mse  | "linear"  | pixels in [−1, 1]          | (raw − (2x − 1))²                              |
    | bce  | "sigmoid" | logits of pixels in [0, 1] | −x · log sigmoid(raw) − (1 − x) · log sigmoid(−raw) |

    The binary cross-entropy stays finite however sure the decoder is. For a perfect reconstruction it is the pixels'
    entropy, positive where they are between 0 and 1. `output` is the model's. Any other pair is a ValueError.
    """

    kind: str = "mse"
    output: str = "sigmoid"

    def __post_init__(self):
        require_choice(LOSSES, kind=self.kind)
        require_choice(OUTPUTS, output=self.output)
        probability = self.kind != "bce" or self.output == "sigmoid"
        require(probability, "output", self.output, "sigmoid for the loss bce, which takes probabilities")

    def __call__(self, raw: Tensor, images: Tensor) -> Tensor:
        """The loss, a mean: of the decoder's raw output against images in [0, 1], float [N, C, S, S] both."""
        raw = at_least_float32(raw)
        if self.kind == "bce":
            return F.binary_cross_entropy_with_logits(raw, images)
        if self.output == "linear":
            return F.mse_loss(raw, 2 * images - 1)
        return F.mse_loss(torch.sigmoid(raw), images)


def latent_from(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A code from the posterior, z = μ + σ · ε with the noise ε of N(0, I): [N, D] or [N, D, H, W], as all three."""
    return mean + torch.exp(log_variance / 2) * noise


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) of diagonal Gaussians [N, D] or [N, D, H, W] in nats: ½ · Σ (μ² + σ² − 1 − log σ²).

    Summed over the dimensions of a code and averaged over the batch: a scalar. The reconstruction loss beside it has
    to be summed over the pixels likewise: then β = 1 is the negative ELBO, by squared errors that of Gaussian pixels
    of variance ½. Were both averaged, β would silently be multiplied by the compression, up to 384 here, and the codes
    would collapse onto N(0, I). On a linear output's pixels in [−1, 1] squared errors are four times as large, and β
    weighs a quarter as much.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1).mean() / 2
