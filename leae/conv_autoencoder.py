"""The small convolutional autoencoder for 32×32 images, the one that textbooks begin with, and its variational sibling.

    images [N, C, 32, 32] in [0, 1] → latent [N, D] → images [N, C, 32, 32]

Three convolutions of stride 2 and a linear layer, and the same backwards: 390,273 parameters at the defaults.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from leae.autoencoder import LARGEST_SIZE, BaseAutoencoder, BaseEncoder, PosteriorMean, Variational
from leae.errors import require, require_whole
from leae.layers import BatchNorm

IMAGE_SIZE = 32  # side in pixels; 28×28 digits are padded by 2
# The logit of pixels, 0.12, that an untrained model begins with. Digits are dark: from grey, the first steps drive all
# pixels so far down that the sigmoid is flat there, and a mean squared error stays with black images for ever.
DARK = -2.0


class ConvEncoder(BaseEncoder):
    """Images to codes of `outputs` numbers; then `norm`."""

    def __init__(self, channels: int, outputs: int, norm: nn.Module, output: str):
        super().__init__(output)
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1)
        self.to_latent = nn.Linear(128 * 4 * 4, outputs)
        self.norm = norm

    def convolve(self, images: Tensor) -> Tensor:
        maps = F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(images))))))  # [N, 128, 4, 4]
        return self.to_latent(maps.flatten(1))


class ConvDecoder(nn.Module):
    """Codes of `inputs` numbers to the raw output that `BaseAutoencoder.decode` makes pixels."""

    def __init__(self, channels: int, inputs: int):
        super().__init__()
        self.from_latent = nn.Linear(inputs, 128 * 4 * 4)
        self.conv1 = nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1)
        self.conv2 = nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1)
        self.conv3 = nn.ConvTranspose2d(32, channels, kernel_size=4, stride=2, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        maps = F.relu(self.from_latent(latent)).unflatten(1, (128, 4, 4))
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(maps)))))


class ConvAutoencoder(BaseAutoencoder):
    """The small autoencoder for images of any number of channels; ValueError for a size that cannot be built.

    With `batch_norm`, a batch norm without parameters ends the encoder, as the self-teaching objective needs it. The
    textbooks have none, and the variational one cannot have one.
    """

    def __init__(
        self, image_channels: int = 1, latent_dim: int = 32, output: str = "sigmoid", batch_norm: bool = False
    ):
        require_whole(1, LARGEST_SIZE, image_channels=image_channels, latent_dim=latent_dim)
        require(not (self.variational and batch_norm), "batch_norm", batch_norm, "False for a variational encoder")
        sizes = {"image_channels": image_channels, "latent_dim": latent_dim}
        settings = {**sizes, "output": output, "batch_norm": batch_norm}
        super().__init__((image_channels, IMAGE_SIZE, IMAGE_SIZE), (latent_dim,), output, settings)
        outputs, norm = latent_dim, BatchNorm(latent_dim, affine=False) if batch_norm else nn.Identity()
        if self.variational:
            outputs, norm = 2 * latent_dim, PosteriorMean()
        self.encoder = ConvEncoder(image_channels, outputs, norm, output)
        self.decoder = ConvDecoder(image_channels, latent_dim)
        if output == "sigmoid":
            nn.init.constant_(self.decoder.conv3.bias, DARK)


class VariationalConvAutoencoder(Variational, ConvAutoencoder):
    """The same with a Gaussian posterior for its code; only the encoder's last layer differs."""
