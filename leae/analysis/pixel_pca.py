"""PCA of the pixels as an autoencoder: the best that a linear one can do by squared error, and the bar to clear."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from leae.data.prepare import to_float


class PixelPCA(nn.Module):
    """Principal components of images' pixels.

    Args:
        images: uint8 [N, S, S, C], which they are fitted to.
        numbers: how many components; no more than there are images or pixels.

    Attributes:
        latent_size: how many components there are.
    """

    def __init__(self, images: np.ndarray, numbers: int):
        super().__init__()
        pixels = to_float(images, "cpu").flatten(1).numpy()
        self.latent_size = min(numbers, *pixels.shape)
        pca = PCA(self.latent_size, svd_solver="randomized", random_state=0).fit(pixels)
        self.register_buffer("mean", torch.from_numpy(pca.mean_).float())  # [C·S·S]
        self.register_buffer("directions", torch.from_numpy(pca.components_).float())  # [D, C·S·S]

    def encode(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] in [0, 1] → [N, D]"""
        return (images.flatten(1) - self.mean) @ self.directions.T

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions: float [N, C, S, S] in [0, 1] → the same."""
        return (self.encode(images) @ self.directions + self.mean).view(images.shape).clamp(0, 1)


class MeanImage(nn.Module):
    """What answers every image with the mean of the training images.

    Args:
        mean: float [C, S, S] in [0, 1].
    """

    def __init__(self, mean: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] → the same."""
        return self.mean.expand_as(images)
