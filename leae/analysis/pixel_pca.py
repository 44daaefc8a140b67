"""What encoders are compared with that need no training: PCA of the pixels, and the mean image.

PCA is the best that a linear autoencoder can do by squared error.
"""

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from leae.data.batches import to_float


class PixelPCA(nn.Module):
    """Principal components of images' pixels.

    Args:
        images: uint8 [N, S, S, C], which they are fitted to.
        components: how many; no more are kept than there are images or pixels.
    """

    def __init__(self, images: np.ndarray, components: int):
        super().__init__()
        pixels = to_float(images, "cpu").flatten(1).numpy()
        self.components = min(components, *pixels.shape)
        pca = PCA(self.components, svd_solver="randomized", random_state=0).fit(pixels)
        self.register_buffer("mean", torch.from_numpy(pca.mean_).float())  # [C·S·S]
        self.register_buffer("directions", torch.from_numpy(pca.components_).float())  # [D, C·S·S]

    def encode(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] in [0, 1] → [N, D]"""
        return (images.flatten(1) - self.mean) @ self.directions.T

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions: float [N, C, S, S] in [0, 1] → the same."""
        return (self.encode(images) @ self.directions + self.mean).view(images.shape).clamp(0, 1)


class MeanImage(nn.Module):
    """Reconstructs every image as the mean image, float [C, S, S] in [0, 1]."""

    def __init__(self, mean: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """float [N, C, S, S] → the same."""
        return self.mean.expand_as(images)
