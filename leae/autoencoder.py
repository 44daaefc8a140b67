"""The residual autoencoder: a strided encoder, a batch-normalised latent, a decoder that mirrors it.

    images [N, C, S, S] in [0, 1] → latent [N, D] (pooled) or [N, D, S/8, S/8] (spatial) → images [N, C, S, S]

A stem and two residual blocks each halve the image (total stride 8); two residual blocks and a head each double it.
What all autoencoders here share, and what makes one variational, comes first.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leae.errors import UsageError, require, require_choice, require_whole
from leae.layers import (
    BatchNorm,
    ChannelsLast,
    SpaceToDepthShortcut,
    StridedConv,
    Upsample,
    UpsampledConv,
    at_least_float32,
)

LARGEST_SIZE = 65_536  # of any size of a model; what is larger is a slip of the hand, or of a hostile file
LARGEST_IMAGE = 2048  # pixels a side
MOST_PARAMETERS = 2**30  # of a model that is trained: 4 GiB, and four times that with gradients and moments
STRIDE = 8  # image pixels per position of the encoder's map, along one side
LATENTS = ("pooled", "spatial")
OUTPUTS = ("sigmoid", "linear")


def require_pixels(images: Tensor) -> None:
    """Refuse float images with a value outside [0, 1], but for a rounding, by a `UsageError`."""
    outside = images[~((images >= -1e-3) & (images <= 1.001))]  # also of bfloat16, which has no 1.001
    if len(outside):
        raise UsageError(f"images have the value {outside[0].item():.4g}; values must be in [0, 1], as bytes / 255 are")


class BaseEncoder(nn.Module):
    """Images in [0, 1] to codes in two parts, so that a caller may choose what normalises: `project`, then `norm`.

    A subclass sets `norm` and defines `convolve`, which takes images in [0, 1], or in [−1, 1] for a linear output.
    """

    def __init__(self, output: str):
        super().__init__()
        self.output = output

    def project(self, images: Tensor) -> Tensor:
        """Codes before `norm`: [N, C, S, S] → [N, *latent_shape], twice the D if variational."""
        return self.convolve(images if self.output == "sigmoid" else 2 * images - 1)


class BaseAutoencoder(nn.Module):
    """What every autoencoder does with its encoder and its decoder. Images are in [0, 1] on either side of it.

    A subclass sets `encoder`, a `BaseEncoder`, and `decoder`, which maps codes to a raw output of the images' shape:
    logits of the pixels where `output` is "sigmoid", pixels in [−1, 1] where it is "linear"; ValueError for another.
    `image_shape` is (C, S, S), `latent_shape` that of one image's code. `settings` are the constructor's arguments by
    name, from which a checkpoint makes the model again.
    """

    variational = False  # see `Variational`

    def __init__(self, image_shape: tuple[int, ...], latent_shape: tuple[int, ...], output: str, settings: dict):
        super().__init__()
        require_choice(OUTPUTS, output=output)
        self.image_shape, self.latent_shape = image_shape, latent_shape
        self.output, self.settings = output, settings
        self.latent_size = math.prod(latent_shape)  # how many numbers the code of one image has
        self.compression = math.prod(image_shape) / self.latent_size

    def encode(self, images: Tensor) -> Tensor:
        """Codes [N, *latent_shape] of images, [N, C, S, S] in [0, 1] of the weights' type; ValueError for others.

        A batch norm uses the statistics of exactly this batch in training mode, else its running statistics.
        """
        return self.encoder.norm(self.project(images))

    def project(self, images: Tensor) -> Tensor:
        """`encode` before the encoder's `norm`."""
        kind, shape, dtype = getattr(images, "dtype", ""), getattr(images, "shape", ()), next(self.parameters()).dtype
        if kind != dtype or shape[1:] != self.image_shape:
            expected = f"{dtype} [N, {', '.join(map(str, self.image_shape))}]"
            raise UsageError(f"images are {type(images).__name__} {kind} {list(shape)}; this model takes {expected}")
        if not (self.training or torch.compiler.is_compiling()):  # a training step must not wait for its device
            require_pixels(images)
        return self.encoder.project(images)

    def decode(self, latent: Tensor) -> Tensor:
        """Images from codes: [N, *latent_shape] → float [N, C, S, S] in [0, 1]."""
        raw = at_least_float32(self.decoder(latent))
        return torch.sigmoid(raw) if self.output == "sigmoid" else ((raw + 1) / 2).clamp(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions of images: [N, C, S, S] → [N, C, S, S], both in [0, 1]."""
        return self.decode(self.encode(images))


class Variational:
    """What makes an autoencoder variational: `class VariationalX(Variational, X)`.

    The encoder's last layer is twice as wide and gives a diagonal Gaussian, the posterior over an image's codes.
    `encode`, and so `forward`, take its mean for the code: what is random is drawn where the model is trained. There
    is no batch norm; the KL divergence keeps the codes near N(0, I). After Kingma and Welling (2013), arXiv 1312.6114.
    """

    variational = True

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the codes of images: float [N, C, S, S] in [0, 1] → two of [N, *latent_shape]."""
        return at_least_float32(self.project(images)).chunk(2, dim=1)


class PosteriorMean(nn.Module):
    """A variational encoder's `norm`: [N, 2D, …] → [N, D, …], the first half, the mean."""

    def forward(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=1)[0]


class DownBlock(nn.Module):
    """Residual block that halves the map: [N, in_channels, H, W] → [N, out_channels, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.shortcut = SpaceToDepthShortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv2(F.silu(self.conv1(x))) + self.shortcut(x))


class UpBlock(nn.Module):
    """Residual block that doubles the map: [N, in_channels, H, W] → [N, out_channels, 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = UpsampledConv(in_channels, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        # A 1×1 convolution and nearest-neighbour upsampling commute: convolve a quarter of the pixels.
        return F.silu(self.conv2(F.silu(self.conv1(x))) + Upsample.apply(self.shortcut(x)))


class Encoder(BaseEncoder):
    """Images to vectors of `outputs` numbers, or, with None, to maps; then `norm`."""

    def __init__(self, channels: int, hidden_dim: int, map_shape: tuple, outputs: int | None, norm, output: str):
        super().__init__(output)
        self.stem = StridedConv(channels, hidden_dim)
        self.down1 = DownBlock(hidden_dim, 2 * hidden_dim)
        self.down2 = DownBlock(2 * hidden_dim, map_shape[0])
        self.to_latent = nn.Identity()
        if outputs is not None:
            self.to_latent = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(map_shape), outputs))
        self.norm = norm

    def convolve(self, images: Tensor) -> Tensor:
        return self.to_latent(ChannelsLast.apply(self.down2(self.down1(F.silu(self.stem(images))))))


class Decoder(nn.Module):
    """Vectors of `inputs` numbers, or, with None, maps to the raw output that `BaseAutoencoder.decode` makes pixels."""

    def __init__(self, channels: int, hidden_dim: int, map_shape: tuple, inputs: int | None):
        super().__init__()
        self.from_latent = nn.Identity()
        if inputs is not None:
            to_map = nn.Linear(inputs, math.prod(map_shape))
            self.from_latent = nn.Sequential(to_map, nn.Unflatten(1, map_shape), nn.SiLU())
        self.up1 = UpBlock(map_shape[0], 2 * hidden_dim)
        self.up2 = UpBlock(2 * hidden_dim, hidden_dim)
        self.head = UpsampledConv(hidden_dim, channels)

    def forward(self, latent: Tensor) -> Tensor:
        return self.head(self.up2(self.up1(ChannelsLast.apply(self.from_latent(latent)))))


class Autoencoder(BaseAutoencoder):
    """The residual autoencoder, with a pooled latent (one vector an image) or a spatial one (a map of codes).

    A size that cannot be built is a ValueError.
    """

    def __init__(
        self,
        image_size: int = 128,  # side of the images in pixels, a multiple of 8
        image_channels: int = 3,
        hidden_dim: int = 128,  # h: the stem has h channels, the blocks in the middle 2h
        latent: str = "pooled",  # or "spatial"
        latent_dim: int = 128,  # size of a pooled latent; or channels of a spatial one, then a divisor of 8h
        map_channels: int = 128,  # of the map before the pooled latent's linear layer, a divisor of 8h
        output: str = "sigmoid",  # or "linear"; see `BaseAutoencoder`
    ):
        require_choice(LATENTS, latent=latent)
        require_whole(STRIDE, LARGEST_IMAGE, image_size=image_size)
        require(image_size % STRIDE == 0, "image_size", image_size, f"a multiple of {STRIDE}")
        require_whole(1, LARGEST_SIZE, image_channels=image_channels, hidden_dim=hidden_dim)
        pooled, parts = latent == "pooled", 2 if self.variational else 1  # mean and log-variance are two parts
        if pooled:
            require_whole(1, LARGEST_SIZE, latent_dim=latent_dim)
            _require_divisor("map_channels", map_channels, 8, hidden_dim)
        else:
            _require_divisor("latent_dim", latent_dim, 8 // parts, hidden_dim)
            map_channels = parts * latent_dim
        sizes = {"image_size": image_size, "image_channels": image_channels, "hidden_dim": hidden_dim}
        latents = {"latent": latent, "latent_dim": latent_dim, "map_channels": map_channels}
        settings = {**sizes, **latents, "output": output}
        grid = (image_size // STRIDE, image_size // STRIDE)
        map_shape, latent_shape = (map_channels, *grid), (latent_dim,) if pooled else (latent_dim, *grid)
        super().__init__((image_channels, image_size, image_size), latent_shape, output, settings)
        norm = PosteriorMean() if self.variational else BatchNorm(latent_dim)
        outputs, inputs = (parts * latent_dim, latent_dim) if pooled else (None, None)
        self.encoder = Encoder(image_channels, hidden_dim, map_shape, outputs, norm, output)
        self.decoder = Decoder(image_channels, hidden_dim, map_shape if pooled else latent_shape, inputs)


def _require_divisor(name: str, channels: int, multiple: int, hidden_dim: int) -> None:
    """Refuse channels that do not divide a multiple of hidden_dim."""
    require_whole(1, LARGEST_SIZE, **{name: channels})
    whole = multiple * hidden_dim
    require(whole % channels == 0, name, channels, f"a divisor of {multiple} × hidden_dim = {whole}")


class VariationalAutoencoder(Variational, Autoencoder):
    """The same with a Gaussian posterior for its code; its two maps make a spatial `latent_dim` a divisor of 4h."""


def build(kind: type[BaseAutoencoder], *sizes, **options) -> BaseAutoencoder:
    """A model of a class, with its arguments; ValueError for more than 2**30 parameters, before they take memory."""
    with torch.device("meta"):  # shapes alone
        count = sum(parameter.numel() for parameter in kind(*sizes, **options).parameters())
    if count > MOST_PARAMETERS:
        remedy = "lower hidden_dim, map_channels, image_size or latent_dim"
        raise UsageError(f"the model would have {count:,} parameters; it may have {MOST_PARAMETERS:,}: {remedy}")
    return kind(*sizes, **options)
