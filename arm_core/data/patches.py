"""Patches as categories: side x side pixels of few values become one token, and back, losing nothing."""

import numpy as np
from jaxtyping import Integer

from arm_core.data.base import SPLITS, Dataset, Images
from arm_core.errors import InputError
from arm_core.layout import Layout


def tokens_of(images: Images, side: int, categories: int) -> Images:
    """(n, C, H, W) values -> (n, C, H / side, W / side): pixels count in raster order, the first one most."""
    count, channels, height, width = images.shape
    blocks = images.reshape(count, channels, height // side, side, width // side, side)
    tokens = np.zeros((count, channels, height // side, width // side), np.uint16)
    for row in range(side):
        for column in range(side):
            tokens = tokens * np.uint16(categories) + blocks[:, :, :, row, :, column]
    return tokens.astype(np.uint8)


def pixels_of(tokens: Integer[np.ndarray, "count channels height width"], side: int, categories: int) -> Images:
    """What `tokens_of` was given."""
    count, channels, height, width = tokens.shape
    places = categories ** np.arange(side * side - 1, -1, -1).reshape(side, side)
    blocks = tokens[:, :, :, None, :, None] // places[:, None, :] % categories
    return blocks.reshape(count, channels, height * side, width * side).astype(np.uint8)


def pixel_layout(layout: Layout, side: int) -> Layout:
    """The layout of the images whose patches have this one."""
    categories = round(layout.categories ** (1 / side**2))
    return Layout(layout.channels, layout.height * side, layout.width * side, categories)


def token_layout(layout: Layout, side: int) -> Layout:
    """The layout of an image's patches.

    Raises:
        InputError: the patches do not fill the image, or have more than 256 values.
    """
    if layout.height % side or layout.width % side:
        raise InputError(f"patches={side} must divide height and width, got {layout.height} and {layout.width}")
    if (categories := layout.categories**side**2) > 256:
        raise InputError(
            f"patches={side} of {layout.categories} values a pixel have {categories} values, and there may be 256; "
            "use smaller patches, `binarise` or fewer `bits`"
        )
    return Layout(layout.channels, layout.height // side, layout.width // side, categories)


def in_patches(dataset: Dataset, side: int) -> Dataset:
    """A dataset whose pixels are the patches of another's.

    Raises:
        InputError: see `token_layout`; or the images are binarised anew at every step.
    """
    layout, kept = token_layout(dataset.layout, side), dataset.layout.categories
    if dataset.is_dynamic:
        raise InputError("patches are cut once; use binarise: static, threshold or fixed")
    labels = {name: dataset.labels(name) for name in SPLITS}
    return Dataset(
        name=dataset.name,
        variant=f"{dataset.variant} in {side}x{side} patches",
        status=dataset.status,
        categories=layout.categories,
        splits={name: tokens_of(dataset.split(name).numpy(), side, kept) for name in SPLITS},
        rule=dataset.rule,
        sources=dataset.sources,
        published=dataset.published,
        labels={name: of.numpy() for name, of in labels.items() if of is not None} or None,
    )
