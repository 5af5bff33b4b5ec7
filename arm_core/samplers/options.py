"""What the samplers' keywords may be, checked once before a sampler starts."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from arm_core.contracts import AutoregressiveModel, Contexts, SpanCache
from arm_core.errors import InputError, whole
from arm_core.gumbel import DenseNoise, KeyedNoise, NoiseSource
from arm_core.layout import Layout
from arm_core.samplers.work import WholeImages

Noise = Tensor | KeyedNoise
"""Float (batch, dims, categories), or the same where it is asked for."""


def noise_source(arm: AutoregressiveModel, noise: Noise) -> NoiseSource:
    """The noise as a source, or an InputError unless it fits the ARM's layout, dtype and device."""
    dims, categories = arm.layout.dims, arm.layout.categories
    if isinstance(noise, KeyedNoise):
        shape: tuple[int, ...] = (len(noise), noise.layout.dims, noise.layout.categories)
    else:
        shape = tuple(noise.shape)
    if len(shape) != 3 or shape[1:] != (dims, categories):
        raise InputError(
            f"noise must have shape (batch, dims, categories) = (batch, {dims}, {categories}) for this ARM, "
            f"got {shape}; make it with sample_noise(arm.layout, ...)"
        )
    weight = weight_of(arm, noise)
    for name, wanted in (("dtype", noise_dtype(weight.dtype)), ("device", weight.device)):
        got = getattr(noise, name)
        if wanted != got:
            raise InputError(f"noise must have the ARM's {name}, {wanted}, got {got}; pass {name}= to sample_noise")
    return noise if isinstance(noise, KeyedNoise) else DenseNoise(noise)


def weight_of(arm: nn.Module, otherwise: Any) -> Any:
    """A weight of the ARM, whose dtype and device are those of its noise; something else if it has none."""
    return next((weight for weight in arm.parameters() if weight.is_floating_point()), otherwise)


def noise_dtype(weights: torch.dtype) -> torch.dtype:
    """Of the noise for an ARM: that of its weights, but float32 at least: 16 bits would favour low categories."""
    return torch.promote_types(weights, torch.float32)


def keyed_noise(arm: AutoregressiveModel, *, seed: int, sample_ids: Sequence[int]) -> KeyedNoise:
    """The noise of an ARM's samples, in the dtype and on the device that it wants."""
    weight = weight_of(arm, torch.empty(0, dtype=torch.float64))
    dtype = noise_dtype(weight.dtype)
    return KeyedNoise(arm.layout, seed=seed, sample_ids=sample_ids, dtype=dtype, device=weight.device)


def noise_dtype_of(arm: nn.Module) -> torch.dtype:
    """Of the noise for this ARM; float64 if it has no weights."""
    return noise_dtype(weight_of(arm, torch.empty(0, dtype=torch.float64)).dtype)


def _check_prefix(layout: Layout, prefix: Tensor, count: int) -> Int[Tensor, "count known"]:
    """The prefix of each sample, or an InputError unless it is integers, all valid categories, of known <= dims.

    (known,) is that of all `count` samples, (count, known) one each.
    """
    if not isinstance(prefix, Tensor):
        raise InputError(f"prefix must be a tensor of integers, got {type(prefix).__name__}; torch.as_tensor makes one")
    if prefix.ndim == 1:
        prefix = prefix.expand(count, -1)
    if prefix.ndim != 2 or len(prefix) != count or prefix.shape[1] > layout.dims:
        remedy = "; the upper half of images is layout.flatten(images)[:, : layout.dims // 2]" * (prefix.ndim > 2)
        raise InputError(
            f"prefix must have shape (known,), or (samples, known) = ({count}, at most {layout.dims}), "
            f"got {tuple(prefix.shape)}{remedy}"
        )
    if prefix.is_floating_point() or prefix.dtype == torch.bool:
        raise InputError(f"prefix must hold integers, the categories of the leading dimensions, got {prefix.dtype}")
    if prefix.numel() and not 0 <= int(prefix.min()) <= int(prefix.max()) < layout.categories:
        raise InputError(
            f"prefix must hold categories in [0, {layout.categories - 1}], "
            f"got {int(prefix.min())} to {int(prefix.max())}"
        )
    return prefix.long()


def check_end(layout: Layout, end: int | Sequence[int] | None) -> list[int]:
    """The categories that end a sample, or an InputError unless they are categories of the layout."""
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    for category in ends:
        if isinstance(category, bool) or not isinstance(category, int) or not 0 <= category < layout.categories:
            raise InputError(f"end must be a category in [0, {layout.categories - 1}], or several, got {end!r}")
    return ends


def check_conditions(
    arm: AutoregressiveModel, count: int, prefix: Tensor | None, context: Contexts | None
) -> Int[Tensor, "count known"] | None:
    """What `count` samples are conditioned on: the prefix, checked.

    Raises:
        InputError: the prefix does not fit, or there are contexts, but not one for each sample of an ARM that takes
            them.
    """
    if context is not None:
        _check_context(arm, context, count)
    return None if prefix is None else _check_prefix(arm.layout, prefix, count)


def _check_context(arm: AutoregressiveModel, context: Contexts, count: int) -> None:
    if "context" not in inspect.signature(arm.forward).parameters:
        raise InputError(f"{type(arm).__name__} takes no context; leave it out, or give its forward(x, context=None)")
    given = "a single one" if isinstance(context, Tensor) and context.ndim == 0 else f"{len(context)}"
    if given != f"{count}":
        raise InputError(f"context must hold one context per sample, {count} in all, got {given}")


def span_cache(arm: AutoregressiveModel, slots: int, window: int, *, recorded: bool = False) -> SpanCache:
    """The ARM's cache for spans of this many dims; whole images, for any ARM, when they cover the image.

    Args:
        arm, slots, window: as for `AutoregressiveModel.span_cache`.
        recorded: whether the steps will be, if the cache lets them.

    Raises:
        InputError: the window is no positive number, or the ARM has no spans.
    """
    window = whole("window", window, 1)
    if window < arm.layout.dims and slots > 0:
        cache = (arm.recorded_cache if recorded else arm.span_cache)(slots, window)
        if cache.window < arm.layout.dims:
            return cache
    return WholeImages(arm)
