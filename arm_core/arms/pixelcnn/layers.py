"""The layers of a PixelCNN and how they stack up: what the network owns and the spans read.

This module knows whole images and no cache.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from arm_core.causal_conv import (
    FREE,
    CausalConv2d,
    CausalConvTranspose2d,
    Groups,
    channel_groups,
    may_see,
    shift_down,
    shift_right,
)
from arm_core.contracts import AutoregressiveModel, Contexts
from arm_core.elementwise import Maps, concat_elu, gated
from arm_core.errors import InputError, whole
from arm_core.layout import Layout

U_KERNEL, UL_KERNEL = (2, 3), (2, 2)
Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class PixelCNNConfig:
    """Size of a PixelCNN; the defaults are the paper's (Table 1, "Default").

    Attributes:
        resnets: gated resnets per block and stream (R).
        filters: features of every layer (F), a multiple of the layout's channels.
        dropout: rate in [0, 1).
        dropout_unit: what is dropped: whole feature maps, as the code that the paper builds on does, or elements.
        classes: labels that can condition it; 0: it takes none, and has no parameters for them.
    """

    resnets: int = 5
    filters: int = 162
    dropout: float = 0.5
    dropout_unit: Literal["map", "element"] = "map"
    classes: int = 0


def label_rows(context: Contexts, classes: int, count: int) -> Int[Tensor, " count"]:
    """The rows of `GatedResnet.label_biases` of a context: labels in [0, classes), `classes` where it says -1.

    Raises:
        InputError: it is not one label or -1 for each of `count` samples, or there are no classes.
    """
    if classes == 0:
        raise InputError("this PixelCNN has no classes; leave context out, or train one with classes of at least 1")
    try:
        labels = torch.as_tensor(context)
    except (TypeError, ValueError) as error:
        raise InputError(f"context must hold integer labels ({error})") from None
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise InputError(f"context must be one integer label for each of the {count} samples, got {got}")
    wrong = (labels < -1) | (labels >= classes)
    if bool(wrong.any()):
        raise InputError(f"labels must be in [0, {classes}), or -1 for none, got {int(labels[wrong][0])}")
    labels = labels.long()
    return torch.where(labels < 0, classes, labels)


class Stream:
    """Feature maps, and concat_elu of them: several layers read it, so it is computed at most once."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps

    @cached_property
    def active(self) -> Maps:
        """concat_elu of the maps."""
        return concat_elu(self.maps)


class Streams(NamedTuple):
    """The two streams at one depth: u (rows above) and ul (above and left)."""

    u: Stream
    ul: Stream


class Layers(nn.ModuleList, Generic[Layer]):
    """A list of layers of one type."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__(layers)

    def __iter__(self) -> Iterator[Layer]:
        return cast(Iterator[Layer], super().__iter__())


class Stem(nn.Module):
    """From the image to the first pair of streams; the only place where mask A is needed.

    Its convolutions read the one-hot image and, all but `here`, a map of ones, which tells the image from its padding.
    """

    def __init__(self, layout: Layout, groups: Groups) -> None:
        super().__init__()
        self.categories = layout.categories
        filters, values = len(groups), layout.channels * layout.categories
        self.above = CausalConv2d(values + 1, filters, (2, 3))
        self.row_above = CausalConv2d(values + 1, filters, (1, 3))
        self.left = CausalConv2d(values + 1, filters, (2, 1))
        self.here: CausalConv2d | None = None
        if layout.channels > 1:  # with one channel mask A hides the whole pixel
            visible = may_see(groups, channel_groups(values, layout.channels), strict=True)
            self.here = CausalConv2d(values, filters, (1, 1), bias=False, here=visible)

    def forward(self, values: Int[Tensor, "batch channels height width"]) -> Streams:
        above, row_above, left = (
            conv.of_one_hot(values, self.categories) for conv in (self.above, self.row_above, self.left)
        )
        ul = shift_down(row_above) + shift_right(left)
        if self.here is not None:
            ul = ul + self.here.of_one_hot(values, self.categories)
        return Streams(Stream(shift_down(above)), Stream(ul))


class GatedResnet(nn.Module):
    """x + p * sigmoid(q), where (p, q) come from x and from what skips to it.

    A label adds its own bias to p and q, as the conditional PixelCNN does (van den Oord et al., 2016, "Conditional
    image generation with PixelCNN decoders", equation 4); it begins at zero.

    Args:
        groups: channel group of each of the F features of x.
        kernel: of both convolutions.
        config: for the dropout and the classes.
        skip: channel group of each feature of the second input, or None when there is none.
    """

    def __init__(self, groups: Groups, kernel: tuple[int, int], config: PixelCNNConfig, *, skip: Groups | None) -> None:
        super().__init__()
        filters, doubled = len(groups), groups.repeat(2)  # concat_elu and (p, q) both repeat the groups
        self.inward = CausalConv2d(2 * filters, filters, kernel, here=may_see(groups, doubled, strict=False))
        self.skip: CausalConv2d | None = None
        if skip is not None:
            visible = may_see(groups, skip.repeat(2), strict=False)
            self.skip = CausalConv2d(2 * len(skip), filters, (1, 1), here=visible)
        self.dropout, self.by_map = config.dropout, config.dropout_unit == "map"
        self.outward = CausalConv2d(2 * filters, 2 * filters, kernel, here=may_see(doubled, doubled, strict=False))
        self.label = nn.Parameter(torch.zeros(config.classes, 2 * filters)) if config.classes else None
        self.register_load_state_dict_pre_hook(_rename_aside)

    def forward(self, x: Stream, *skips: Stream, labels: Tensor | None) -> Stream:
        y = self.inward(x.active)
        if self.skip is not None:
            bias = self.skip.bias  # once: the skips are one input, read stream by stream
            for stream, weight in zip(skips, self.skip_weights(len(skips)), strict=True):
                y, bias = F.conv2d(stream.active, weight, bias).add_(y), None
        dropout = self.dropout if self.training else 0.0
        active = concat_elu(y, dropout=dropout, by_map=self.by_map, margin=self.outward.margin)
        gates = self.outward.of_padded(active)
        if labels is not None:
            gates = gates + F.embedding(labels, self.label_biases()).to(gates.dtype)[:, :, None, None]
        return Stream(gated(x.maps, gates))

    def label_biases(self) -> Float[Tensor, "classes_and_none gates"]:
        """What each label adds to (p, q); zeros, the last row, where there is none."""
        assert self.label is not None
        return F.pad(self.label, (0, 0, 0, 1))

    def skip_weights(self, streams: int) -> list[Tensor]:
        """The part of `skip` that reads each stream: concat_elu([u, ul]) is elu([u, ul, -u, -ul])."""
        assert self.skip is not None
        by_sign = self.skip.masked_weight().unflatten(1, (2, streams, -1))
        return [weight.flatten(1, 2) for weight in by_sign.unbind(2)]


def _rename_aside(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Checkpoints of the first version call `skip` `aside`."""
    for name in [name for name in state if name.startswith(f"{prefix}aside.")]:
        state[f"{prefix}skip.{name.removeprefix(f'{prefix}aside.')}"] = state.pop(name)


class ResnetPair(nn.Module):
    """One gated resnet a stream; ul sees the new u, and both see their skips on the way down."""

    def __init__(self, groups: Groups, config: PixelCNNConfig, *, skips: bool) -> None:
        super().__init__()
        free = torch.full_like(groups, FREE)
        self.u = GatedResnet(free, U_KERNEL, config, skip=free if skips else None)
        self.ul = GatedResnet(groups, UL_KERNEL, config, skip=torch.cat([free, groups]) if skips else free)

    def forward(self, streams: Streams, skip: Streams | None, labels: Tensor | None) -> Streams:
        u = self.u(streams.u, *(() if skip is None else (skip.u,)), labels=labels)
        return Streams(u, self.ul(streams.ul, u, *(() if skip is None else (skip.ul,)), labels=labels))


class Resample(nn.Module):
    """Halve (`up=False`) or double the resolution of both streams."""

    def __init__(self, groups: Groups, *, up: bool) -> None:
        super().__init__()
        filters, here = len(groups), may_see(groups, groups, strict=False)
        self.u: CausalConv2d | CausalConvTranspose2d
        self.ul: CausalConv2d | CausalConvTranspose2d
        if up:
            self.u = CausalConvTranspose2d(filters, filters, U_KERNEL)
            self.ul = CausalConvTranspose2d(filters, filters, UL_KERNEL, here=here)
        else:
            self.u = CausalConv2d(filters, filters, U_KERNEL, stride=2)
            self.ul = CausalConv2d(filters, filters, UL_KERNEL, stride=2, here=here)

    def forward(self, streams: Streams) -> Streams:
        return Streams(Stream(self.u(streams.u.maps)), Stream(self.ul(streams.ul.maps)))


Block = Layers[ResnetPair]


class Trunk(AutoregressiveModel):
    """All layers of a PixelCNN: three resolutions down and up again, each with a block of resnet pairs.

    Raises:
        InputError: height or width is no multiple of 4, or filters no multiple of the channels.
    """

    def __init__(self, layout: Layout, config: PixelCNNConfig) -> None:
        _check(layout, config)
        super().__init__(layout, config.filters // layout.channels)
        self.config, self.granule = config, layout.channels
        self.seam = layout.width * layout.channels  # where a row begins, all of that row of u is evaluated
        groups = channel_groups(config.filters, layout.channels)
        logit_groups = channel_groups(layout.channels * layout.categories, layout.channels)

        def block(pairs: int, *, skips: bool) -> Block:
            return Layers(ResnetPair(groups, config, skips=skips) for _ in range(pairs))

        self.stem, depth = Stem(layout, groups), config.resnets
        self.up = Layers(block(depth, skips=False) for _ in range(3))
        self.shrink = Layers(Resample(groups, up=False) for _ in range(2))
        self.down = Layers(block(pairs, skips=True) for pairs in (depth, depth + 1, depth + 1))
        self.grow = Layers(Resample(groups, up=True) for _ in range(2))
        self.head = CausalConv2d(
            config.filters, len(logit_groups), (1, 1), here=may_see(logit_groups, groups, strict=False)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check(layout: Layout, config: PixelCNNConfig) -> None:
    for name in ("height", "width"):
        extent = getattr(layout, name)
        if extent % 4:
            nearest = max(4, round(extent / 4) * 4)
            raise InputError(
                f"PixelCNN: {name} must be a multiple of 4 (it halves twice), got {extent}; nearest: {nearest}"
            )
    for name, least in (("resnets", 1), ("filters", -(2**63)), ("classes", 0)):  # the rule of filters follows
        whole(f"PixelCNN: {name}", getattr(config, name), least)
    if config.filters < 1 or config.filters % layout.channels:
        nearest = max(1, round(config.filters / layout.channels)) * layout.channels
        raise InputError(
            f"PixelCNN: filters must be a positive multiple of the channels ({layout.channels}), "
            f"got {config.filters}; nearest: {nearest}"
        )
    if not 0 <= config.dropout < 1:
        raise InputError(f"PixelCNN: dropout must be in [0, 1), got {config.dropout}")
    if config.dropout_unit not in ("map", "element"):
        raise InputError(f"PixelCNN: dropout_unit must be 'map' or 'element', got {config.dropout_unit!r}")
