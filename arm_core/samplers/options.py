"""What the samplers' keywords may be, checked once before a sampler starts."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, SpanCache
from arm_core.errors import InputError
from arm_core.layout import Layout
from arm_core.samplers.slots import WholeImages


def check_noise(arm: AutoregressiveModel, noise: Tensor) -> None:
    """Raise an InputError unless noise is (batch, dims, categories) of the ARM's dtype and on its device."""
    dims, categories = arm.layout.dims, arm.layout.categories
    if noise.ndim != 3 or tuple(noise.shape[1:]) != (dims, categories):
        raise InputError(
            f"noise must have shape (batch, dims, categories) = (batch, {dims}, {categories}) for this ARM, "
            f"got {tuple(noise.shape)}; make it with sample_noise(arm.layout, ...)"
        )
    weight = next((p for p in arm.parameters() if p.is_floating_point()), noise)  # an ARM may have no parameters
    for name in ("dtype", "device"):
        wanted, got = getattr(weight, name), getattr(noise, name)
        if wanted != got:
            raise InputError(f"noise must have the ARM's {name}, {wanted}, got {got}; pass {name}= to sample_noise")


def check_temperature(temperature: float) -> None:
    """Raise an InputError unless the temperature is a finite number of at least 0."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"temperature must be a finite number of at least 0, got {temperature}")


def check_prefix(layout: Layout, prefix: Tensor, count: int) -> Int[Tensor, "count known"]:
    """The prefix, or an InputError unless it is integers (count, known) with known <= dims, all valid categories."""
    if prefix.ndim != 2 or len(prefix) != count or prefix.shape[1] > layout.dims:
        raise InputError(
            f"prefix must have shape (samples, known) = ({count}, at most {layout.dims}), got {tuple(prefix.shape)}"
        )
    if prefix.is_floating_point() or prefix.dtype == torch.bool:
        raise InputError(f"prefix must hold integers, the categories of the leading dimensions, got {prefix.dtype}")
    if prefix.numel() and not 0 <= int(prefix.min()) <= int(prefix.max()) < layout.categories:
        raise InputError(
            f"prefix must hold categories in [0, {layout.categories - 1}], "
            f"got {int(prefix.min())} to {int(prefix.max())}"
        )
    return prefix.long()


def span_cache(arm: AutoregressiveModel, slots: int, window: int) -> SpanCache:
    """The ARM's cache for spans of this many dims; whole images, for any ARM, when they cover the image.

    Raises:
        InputError: the window is no positive number, or the ARM has no spans.
    """
    if window < 1:
        raise InputError(f"window must be at least 1 dim, got {window}")
    if window < arm.layout.dims and slots > 0:
        cache = arm.span_cache(slots, window)
        if cache.window < arm.layout.dims:
            return cache
    return WholeImages(arm)
