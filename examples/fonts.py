"""A dataset of one's own: letters and digits of every TrueType font in a folder, drawn as small grey images.

    harness check examples/fonts.py:Fonts
    harness sweep examples/sweep.yaml

Without a folder it takes the fonts that matplotlib brings.
"""

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from arm_core import InputError, Layout

GLYPHS = string.ascii_letters + string.digits
PARTS = {"train": slice(20, None), "valid": slice(0, 10), "test": slice(10, 20)}
"""Percent of the images, counted in a seeded order."""


@dataclass(frozen=True)
class FontsConfig:
    """Images of `size` x `size` pixels in `levels` shades of grey, black included."""

    size: int = 16
    levels: int = 2

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 4:
            raise InputError(f"size must be a multiple of 4, and at least 8, got {self.size}")
        if not 2 <= self.levels <= 256:
            raise InputError(f"levels must be in [2, 256], got {self.levels}")


class Fonts:
    """The letters and digits of all fonts, each image once, split 80 / 10 / 10 in a seeded order.

    Args:
        root: folder of .ttf files, searched with its subfolders; None: the fonts of matplotlib.
        config: size and shades.
    """

    def __init__(self, root: Path | None, config: FontsConfig) -> None:
        files = sorted((root or _fonts_of_matplotlib()).rglob("*.ttf"))
        if not files:
            raise InputError(f"there is no .ttf file in {root}; give another folder as `root`")
        drawn = np.stack([image for file in files for image in _draw(file, config.size)])
        self.layout = Layout(channels=1, height=config.size, width=config.size, categories=config.levels)
        shades = (drawn.astype(np.uint16) * config.levels // 256).astype(np.uint8)
        images = np.unique(shades, axis=0)  # fonts share letters, and those that a font lacks all look the same
        order = np.random.default_rng(0).permutation(len(images))
        self.images = torch.from_numpy(images[order])[:, None]

    def split(self, name: str) -> Tensor:
        """uint8 (n, 1, size, size), values 0 .. levels - 1."""
        first, last, _ = PARTS[name].indices(100)
        count = len(self.images)
        return self.images[count * first // 100 : count * last // 100]


def _draw(file: Path, size: int) -> list[np.ndarray]:
    font, images = ImageFont.truetype(str(file), size - 2), []
    for glyph in GLYPHS:
        image = Image.new("L", (size, size))
        ImageDraw.Draw(image).text((size / 2, size / 2), glyph, fill=255, font=font, anchor="mm")
        images.append(np.asarray(image))
    return images


def _fonts_of_matplotlib() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
