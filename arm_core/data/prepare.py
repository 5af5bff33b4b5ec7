"""What the options do to pixels, and how images are cut into splits.

Random draws are the raw bits of Philox: NumPy promises that these never change, which it does not for the
methods of its generators. So a split stays the same split under every version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arm_core.data.base import DataOptions, Images
from arm_core.errors import InputError

_STATIC_SEED = 1  # not that of a split: the draws would be the same
Rows = slice | np.ndarray


@dataclass(frozen=True)
class Preparation:
    """What `DataOptions` mean for images of one shape; known before an image is read.

    Images are downscaled, then cropped to their centre, then binarised or cut to `bits`; without binarisation they
    have 2^bits categories, 256 unless told.

    Attributes:
        options: as given.
        shape: (channels, height, width) of the prepared images.
        categories: of their values.
        variant: the text that tells this preparation from others.
    """

    options: DataOptions
    shape: tuple[int, int, int]
    categories: int
    variant: str

    def grey(self, images: Images) -> Images:
        """Downscaled and cropped."""
        smaller = downscale(images, self.options.downscale) if self.options.downscale > 1 else images
        return crop_centre(smaller, self.options.crop) if self.options.crop is not None else smaller

    def levels(self, grey: Images, *, part: int = 0) -> Images:
        """With the values that the options ask for; `part` tells apart the draws of a dataset's published parts."""
        if self.options.binarise is not None:
            return binarise(grey, self.options.binarise, seed=_STATIC_SEED + part)
        return grey >> (8 - self.options.bits) if self.options.bits is not None else grey

    def build(self, parts: Sequence[Images], cuts: Mapping[str, tuple[int, Rows]]) -> dict[str, Any]:
        """What `Dataset` takes of the images.

        Args:
            parts: as published, for example train and test.
            cuts: split -> (part, rows of it).
        """
        grey = [self.grey(images) for images in parts]
        ready = [self.levels(images, part=index) for index, images in enumerate(grey)]
        part, rows = cuts["train"]
        return {
            "variant": self.variant,
            "categories": self.categories,
            "splits": {name: ready[index][chosen] for name, (index, chosen) in cuts.items()},
            "grey": grey[part][rows] if self.options.binarise == "dynamic" else None,
        }


def preparation(name: str, options: DataOptions, shape: tuple[int, int, int], *, prefix: str = "") -> Preparation:
    """Check that the options fit images of `shape` (channels, height, width), and say what they make of them.

    Raises:
        InputError: an option that images of that shape cannot have.
    """
    channels, height, width = shape
    if channels != 1:
        refuse(name, options, binarise="these are colour images; use bits for fewer levels")
    if options.downscale > min(height, width):
        refuse(name, options, downscale=f"the images have {height}x{width} pixels; use a smaller factor")
    height, width = height // options.downscale, width // options.downscale
    if options.crop is not None:
        if options.crop > min(height, width):
            raise InputError(f"crop must be at most {min(height, width)} for these images, got {options.crop}")
        height = width = options.crop
    categories = 2 if options.binarise is not None else 2 ** (options.bits or 8)
    size = f"{height}x{width} " if (height, width) != shape[1:] else ""
    scale = f" 1/{options.downscale}" if options.downscale > 1 else ""
    variant = prefix + size + (options.binarise or f"{options.bits or 8}-bit") + scale
    return Preparation(options, (channels, height, width), categories, variant)


def refuse(name: str, options: DataOptions, **reasons: str) -> None:
    """Raise an InputError for the first option that is set and that the dataset cannot serve."""
    for option, reason in reasons.items():
        value = getattr(options, option)
        if value != getattr(DataOptions(), option):
            raise InputError(f"{name}: {option}={value!r} is not possible: {reason}")


def binarise(images: Images, how: str, *, seed: int = _STATIC_SEED) -> Images:
    """0 or 1 for every value, by `threshold`, or by one draw of that seed."""
    if how == "threshold":
        return (images >= 128).astype(np.uint8)
    draw = _draws(images.size, seed=seed).reshape(images.shape) % 255  # uniform on 0 .. 254
    return (draw < images).astype(np.uint8)


def downscale(images: Images, factor: int) -> Images:
    """Average blocks of factor x factor pixels; what does not fill a block is cut off."""
    count, channels, height, width = images.shape
    rows, columns = height // factor, width // factor
    whole = images[:, :, : rows * factor, : columns * factor]
    blocks = whole.reshape(count, channels, rows, factor, columns, factor)
    return np.rint(blocks.mean(axis=(3, 5))).astype(np.uint8)


def crop_centre(images: Images, side: int) -> Images:
    """The central square of `side` pixels."""
    height, width = images.shape[2:]
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(images[:, :, top : top + side, left : left + side])


def stratified_split(labels: np.ndarray, sizes: Mapping[str, int], *, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, shuffled, every label in the same proportion (up to one image) in all of them."""
    key = _draws(len(labels), seed=seed)
    quantile = np.empty(len(labels))  # of each row among the rows of its label
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        quantile[rows[np.argsort(key[rows])]] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.lexsort((key, quantile))  # labels interleaved, so that a cut anywhere cuts each in proportion
    parts = np.split(order, np.cumsum(list(sizes.values()))[:-1])
    return {name: part[np.argsort(key[part])] for name, part in zip(sizes, parts, strict=True)}


def drawn_split(count: int, sizes: Mapping[str, int], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of each split, drawn without labels, each in ascending order; the rest goes to `train`.

    Args:
        count: of rows.
        sizes: of the splits beside train.
        seed: of the draw.
    """
    order = np.argsort(_draws(count, seed=seed), kind="stable")
    drawn: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        drawn[name], order = np.sort(order[:size]), order[size:]
    return {"train": np.sort(order), **drawn}


TENTHS = "valid and test: a tenth each, drawn, seed 0"


def tenths(count: int) -> dict[str, np.ndarray]:
    """Rows of each split where there is no other rule: a tenth each for validation and test."""
    return drawn_split(count, {"valid": count // 10, "test": count // 10})


def _draws(count: int, *, seed: int) -> np.ndarray:
    """Uniform 64-bit integers."""
    return np.random.Philox(key=seed).random_raw(count)
