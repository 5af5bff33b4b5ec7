"""The discrete-latent autoencoder (paper app. A.3): images to a quarter of their size in categories, and back.

ReLU follows every convolution but the last of each half; batch normalisation is inside the residual blocks only. Once
trained it is frozen in eval mode: its running statistics are then part of the code.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor, nn

from arm_core.errors import InputError
from arm_core.eval_mode import eval_mode
from arm_core.latents.quantizer import straight_through
from arm_core.layout import Layout

SHRINKS = 4
"""How much smaller latents are than images, a side."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Size of an autoencoder; the defaults are the paper's: 4 x 8 x 8 latents of 128 categories from 3 x 32 x 32.

    For images of 3 channels the defaults make 30,040,835 parameters, 13,447,680 of them in the encoder.

    Attributes:
        width: features of the inner layers (w), even; the outer ones have w / 2.
        channels: of the latents.
        categories: of each latent, in [2, 256].
    """

    width: int = 512
    channels: int = 4
    categories: int = 128


class DiscreteAutoencoder(nn.Module):
    """Encoder, quantiser and decoder.

    Args:
        layout: of the images.
        config: see `AutoencoderConfig`.

    Attributes:
        layout, config: as given.
        latent_layout: of the latents; the layout of the ARM that models them.

    Raises:
        InputError: the image's extents are no multiples of 4, or a value of the config is out of range.
    """

    def __init__(self, layout: Layout, config: AutoencoderConfig) -> None:
        super().__init__()
        _check(layout, config)
        self.layout, self.config = layout, config
        extents = layout.height // SHRINKS, layout.width // SHRINKS
        self.latent_layout = Layout(config.channels, *extents, config.categories)
        wide, half, codes = config.width, config.width // 2, config.channels * config.categories
        self.encoder = nn.Sequential(
            *(nn.Conv2d(layout.channels, half, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(half, half, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(half, half, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(half, wide, 4, stride=2, padding=1), nn.ReLU()),
            *(BasicBlock(wide), BasicBlock(wide)),
            nn.Conv2d(wide, codes, 1),
        )
        self.decoder = nn.Sequential(
            *(nn.Conv2d(codes, wide, 1), nn.ReLU()),
            *(BasicBlock(wide), BasicBlock(wide)),
            *(nn.ConvTranspose2d(wide, wide, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(wide, half, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(half, half, 3, padding=1), nn.ReLU()),
            nn.Conv2d(half, layout.channels, 3, padding=1),
        )

    def forward(self, images: Integer[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        """The reconstruction on [-1, 1], through the quantiser; this is what training differentiates."""
        codes = straight_through(self._logits(images))  # (n, channels, h, w, categories)
        return self.decoder(codes.permute(0, 1, 4, 2, 3).flatten(1, 2))

    def scaled(self, images: Integer[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        """Values 0 .. categories - 1 on [-1, 1]."""
        kind = next(self.parameters()).dtype
        return images.to(kind) * (2 / (self.layout.categories - 1)) - 1

    def encode(self, images: UInt8[Tensor, "n channels height width"]) -> Int64[Tensor, "n c h w"]:
        """The latents of images, in eval mode and without gradient, whatever the module's mode is."""
        with eval_mode(self), torch.no_grad():
            return self._logits(images).argmax(dim=-1)

    def decode(self, latents: Integer[Tensor, "n c h w"]) -> UInt8[Tensor, "n channels height width"]:
        """The images of latents, rounded to the image's categories; in eval mode and without gradient.

        Raises:
            InputError: the latents are not of `latent_layout`.
        """
        like = self.latent_layout
        expected = (like.channels, like.height, like.width)
        if tuple(latents.shape[1:]) != expected:
            raise InputError(
                f"latents must have shape (n, {', '.join(map(str, expected))}), got {tuple(latents.shape)}"
            )
        with eval_mode(self), torch.no_grad():
            codes = F.one_hot(latents.long(), like.categories).to(next(self.parameters()).dtype)
            on_unit = self.decoder(codes.permute(0, 1, 4, 2, 3).flatten(1, 2)).add(1).div(2)
            return (on_unit * (self.layout.categories - 1)).round().clamp(0, self.layout.categories - 1).to(torch.uint8)

    def _logits(self, images: Tensor) -> Float[Tensor, "n c h w categories"]:
        maps = self.encoder(self.scaled(images))
        return maps.unflatten(1, (self.config.channels, self.config.categories)).permute(0, 1, 3, 4, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a way around them (He et al., 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(y)))


def _check(layout: Layout, config: AutoencoderConfig) -> None:
    for name in ("height", "width"):
        extent = getattr(layout, name)
        if extent % SHRINKS:
            nearest = max(SHRINKS, round(extent / SHRINKS) * SHRINKS)
            raise InputError(
                f"autoencoder: image {name} must be a multiple of 4 (it halves twice), got {extent}; nearest: {nearest}"
            )
    if config.width < 2 or config.width % 2:
        raise InputError(f"autoencoder: width must be even and at least 2, got {config.width}")
    if config.channels < 1:
        raise InputError(f"autoencoder: channels must be at least 1, got {config.channels}")
    if not 2 <= config.categories <= 256:
        raise InputError(f"autoencoder: categories must be in [2, 256] to fit a byte, got {config.categories}")
