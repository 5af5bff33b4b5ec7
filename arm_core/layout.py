"""The order of the dimensions. The only place that knows it.

Outside the networks everything is flat: an image (channels, height, width) becomes `dims` integers in raster order
with channels fastest (paper app. A.1: rows, then columns, then the channels of a pixel).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from arm_core.errors import InputError


@dataclass(frozen=True)
class Layout:
    """The shape of one image and the number of values a dimension can take.

    Attributes:
        channels, height, width: extents of the image, each at least 1.
        categories: values of a dimension are 0 .. categories - 1; at least 2.

    Example:
        >>> Layout(channels=3, height=32, width=32, categories=256).dims
        3072
    """

    channels: int
    height: int
    width: int
    categories: int

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("height", 1), ("width", 1), ("categories", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"layout: {name} must be an integer of at least {least}, got {value!r}")

    @property
    def dims(self) -> int:
        """The length of the flat sequence."""
        return self.channels * self.height * self.width

    def flatten(self, images: Shaped[Tensor, "batch channels height width"]) -> Shaped[Tensor, "batch dims"]:
        """Images (n, C, H, W) as sequences (n, dims); any dtype is kept."""
        expected = (self.channels, self.height, self.width)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(f"images must have shape (n, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        return images.permute(0, 2, 3, 1).reshape(len(images), self.dims)

    def unflatten(self, x: Shaped[Tensor, "batch dims"]) -> Shaped[Tensor, "batch channels height width"]:
        """Sequences (n, dims) as images (n, C, H, W): the inverse of `flatten`."""
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise InputError(f"sequences must have shape (n, {self.dims}), got {tuple(x.shape)}")
        return x.reshape(len(x), self.height, self.width, self.channels).permute(0, 3, 1, 2)

    def coordinates(self) -> np.ndarray:
        """(dims, 3): the (row, column, channel) of every dimension."""
        return np.stack(np.unravel_index(np.arange(self.dims), (self.height, self.width, self.channels)), axis=1)
