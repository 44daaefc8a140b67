"""How near a reconstruction is to its image, over the whole of it and inside its square.

Images and references are float [N, C, S, S] in [0, 1]; `inside` is bool [N, 1, S, S], true in each image's square.
"""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from leae.analysis.trained import batches_of
from leae.data.batches import Images
from leae.errors import UsageError
from leae.masking import inside_squares
from leae.training.evaluation import MaskedViews, psnr


def mean_inside(values: Tensor, inside: Tensor) -> Tensor:
    """The mean of values [N, C, S, S] over each image's square: float [N]."""
    return (values.mean(dim=1, keepdim=True) * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3))


def ssim(images: Tensor, references: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity of each image, and of its square: the means of its map over either. Two of float [N].

    Wang et al. (2004), with their Gaussian window of σ 1.5, by torchmetrics.
    """
    # Its convolutions are several times as fast on a CPU where memory is channels last.
    pair = [part.contiguous(memory_format=torch.channels_last) for part in (images, references)]
    options = {"data_range": 1.0, "reduction": "none", "return_full_image": True}
    whole, similarity = structural_similarity_index_measure(*pair, **options)
    return whole, mean_inside(similarity, inside)


def gradient_energy(images: Tensor, inside: Tensor) -> Tensor:
    """The sum of squared differences between neighbouring pixels of each image, where both are inside: float [N].

    The ratio of a reconstruction's energy to its original's is its sharpness: 1 is as sharp, a blurry average is far
    below, and noise is above.
    """
    down = images.diff(dim=2).square() * (inside[:, :, 1:] & inside[:, :, :-1])
    right = images.diff(dim=3).square() * (inside[..., 1:] & inside[..., :-1])
    return down.sum(dim=(1, 2, 3)) + right.sum(dim=(1, 2, 3))


def reconstruction_figures(
    model, images: Images, views: MaskedViews, weights: np.ndarray, device: torch.device, title: str
) -> dict[str, np.ndarray]:
    """Means over images uint8 [N, S, S, C] of how well a model reconstructs them, from clean and from masked views.

    They are float64 [B], by `weights`, float [B, N], which say how often each image counts: "psnr", "psnr_square" (dB),
    "ssim", "ssim_square" and "sharpness_square", each of them once with "_clean" and once with "_masked" behind it.
    Sharpness is the ratio of the sums over all images, so that flat squares do not count for much; it is NaN where all
    of them are flat or have one pixel.
    """
    by_image = defaultdict(list)
    for first, batch in batches_of(images, device, title):
        inside = inside_squares(views.corners(len(batch), first).to(device), views.side, images.shape[1])
        by_image["energy"].append(gradient_energy(batch, inside))  # of the original images
        for view, shown in (("clean", batch), ("masked", views(batch, first))):
            reconstruction = model(shown)
            whole, square = ssim(reconstruction, batch, inside)
            figures = {
                "psnr": psnr(reconstruction, batch),
                "psnr_square": -10 * torch.log10(mean_inside((reconstruction - batch).square(), inside)),
                "ssim": whole,
                "ssim_square": square,
                "sharpness_square": gradient_energy(reconstruction, inside),
            }
            for figure, values in figures.items():
                by_image[f"{figure}_{view}"].append(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        totals = {key: weights @ torch.cat(values).cpu().double().numpy() for key, values in by_image.items()}
        energy, count = totals.pop("energy"), weights.sum(axis=1)
        return {key: total / (energy if key.startswith("sharpness") else count) for key, total in totals.items()}


class PerceptualFigures:
    """LPIPS (AlexNet) and FID (Inception) of reconstructions, by torchmetrics; lower is nearer.

    FID depends on the number of images: only figures of as many compare. A `UsageError` if what they need is not
    installed, or the networks' weights cannot be fetched.
    """

    def __init__(self, device: torch.device):
        from torchmetrics.image.fid import FrechetInceptionDistance  # take seconds to import
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self.fid = FrechetInceptionDistance(normalize=True).to(device)
            self.lpips = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
        except (ModuleNotFoundError, OSError) as error:
            lacking = f"LPIPS and FID need torch-fidelity and two networks' weights ({' '.join(str(error).split())})"
            raise UsageError(f"{lacking}; go online once, with uv run --extra perceptual -m leae evaluate …") from error

    def __call__(self, model, images, views, device, title) -> dict[str, float]:
        """Takes what `reconstruction_figures` does: "lpips" and "fid", each with "_clean" and "_masked" behind it."""
        figures = {}
        for view in ("clean", "masked"):
            for first, batch in batches_of(images, device, title):
                reconstruction = model(views(batch, first) if view == "masked" else batch).expand(-1, 3, -1, -1)
                original = batch.expand(-1, 3, -1, -1)  # the networks take colours
                self.lpips.update(reconstruction, original)
                self.fid.update(original, real=True)
                self.fid.update(reconstruction, real=False)
            for name, metric in (("lpips", self.lpips), ("fid", self.fid)):
                figures[f"{name}_{view}"] = metric.compute().item()
                metric.reset()
        return figures
