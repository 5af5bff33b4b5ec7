"""PixelCNN with categorical outputs and channel-autoregressive masks (paper app. A.1).

The trunk is that of PixelCNN++ (Salimans et al., 2017): a stream u that holds the rows above a pixel, a stream ul
that also holds what lies to its left, three resolutions with skips. Changed as the paper says: K logits per dimension
instead of mixtures of logistics, one-hot inputs instead of [-1, 1], no weight normalisation, and masks that make the
channels of a pixel autoregressive too (van den Oord et al., 2016).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from arm_core.arms.pixelcnn_windows import PixelCNNSpans
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
from arm_core.contracts import ArmOutput, AutoregressiveModel
from arm_core.elementwise import Maps, concat_elu, gated
from arm_core.errors import InputError
from arm_core.layout import Layout

U_KERNEL, UL_KERNEL = (2, 3), (2, 2)


@dataclass(frozen=True)
class PixelCNNConfig:
    """Size of a PixelCNN; the defaults are the paper's (Table 1, "Default").

    Attributes:
        resnets: gated resnets per block and stream (R).
        filters: features of every layer (F), a multiple of the layout's channels.
        dropout: rate in [0, 1).
        dropout_unit: what is dropped: whole feature maps, as the code that the paper builds on does, or elements.
    """

    resnets: int = 5
    filters: int = 162
    dropout: float = 0.5
    dropout_unit: Literal["map", "element"] = "map"


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


class PixelCNN(AutoregressiveModel):
    """See the module. Hidden features: the last ul activation, F / C per dimension.

    Raises:
        InputError: height or width is no multiple of 4, or filters no multiple of the channels.
    """

    def __init__(self, layout: Layout, config: PixelCNNConfig) -> None:
        _check(layout, config)
        super().__init__(layout, config.filters // layout.channels)
        self.config = config
        groups = channel_groups(config.filters, layout.channels)
        self.stem = Stem(layout, groups)
        depth = config.resnets
        self.up = nn.ModuleList([ResnetPairs(depth, groups, config, skips=False) for _ in range(3)])
        self.shrink = nn.ModuleList([Resample(groups, up=False) for _ in range(2)])
        self.down = nn.ModuleList([ResnetPairs(n, groups, config, skips=True) for n in (depth, depth + 1, depth + 1)])
        self.grow = nn.ModuleList([Resample(groups, up=True) for _ in range(2)])
        logit_groups = channel_groups(layout.channels * layout.categories, layout.channels)
        self.head = CausalConv2d(
            config.filters, len(logit_groups), (1, 1), here=may_see(logit_groups, groups, strict=False)
        )
        self.granule = layout.channels
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def span_cache(self, slots: int, window: int) -> PixelCNNSpans:
        return PixelCNNSpans(self, slots, window)

    def forward(self, x: Int[Tensor, "batch dims"]) -> ArmOutput:
        streams = self.stem(self.layout.unflatten(x))
        stack = [streams]
        for level, block in enumerate(self.up.children()):
            if level > 0:
                streams = self.shrink[level - 1](streams)
                stack.append(streams)
            for pair in block.children():
                streams = pair(streams)
                stack.append(streams)
        streams = stack.pop()
        for level, block in enumerate(self.down.children()):
            if level > 0:
                streams = self.grow[level - 1](streams)
            for pair in block.children():
                streams = pair(streams, stack.pop())
        hidden = streams.ul.maps
        return ArmOutput(self._flat(self.head(F.elu(hidden))), self._flat(hidden))

    def _flat(self, maps: Maps) -> Float[Tensor, "batch dims features"]:
        return maps.permute(0, 2, 3, 1).reshape(len(maps), self.layout.dims, -1)


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


class ResnetPairs(nn.ModuleList):
    """A block: `count` pairs of gated resnets at one resolution."""

    def __init__(self, count: int, groups: Groups, config: PixelCNNConfig, *, skips: bool) -> None:
        super().__init__(ResnetPair(groups, config, skips=skips) for _ in range(count))


class ResnetPair(nn.Module):
    """One gated resnet a stream; ul sees the new u, and both see their skips on the way down."""

    def __init__(self, groups: Groups, config: PixelCNNConfig, *, skips: bool) -> None:
        super().__init__()
        free = torch.full_like(groups, FREE)
        self.u = GatedResnet(free, U_KERNEL, config, aside=free if skips else None)
        self.ul = GatedResnet(groups, UL_KERNEL, config, aside=torch.cat([free, groups]) if skips else free)

    def forward(self, streams: Streams, skip: Streams | None = None) -> Streams:
        u = self.u(streams.u, *(() if skip is None else (skip.u,)))
        return Streams(u, self.ul(streams.ul, u, *(() if skip is None else (skip.ul,))))


class GatedResnet(nn.Module):
    """x + p * sigmoid(q), where (p, q) come from x and what stands aside of it.

    Args:
        groups: channel group of each of the F features of x.
        kernel: of both convolutions.
        config: for the dropout.
        aside: channel group of each feature of the second input, or None when there is none.
    """

    def __init__(
        self, groups: Groups, kernel: tuple[int, int], config: PixelCNNConfig, *, aside: Groups | None
    ) -> None:
        super().__init__()
        filters, doubled = len(groups), groups.repeat(2)  # concat_elu and (p, q) both repeat the groups
        self.inward = CausalConv2d(2 * filters, filters, kernel, here=may_see(groups, doubled, strict=False))
        self.aside: CausalConv2d | None = None
        if aside is not None:
            visible = may_see(groups, aside.repeat(2), strict=False)
            self.aside = CausalConv2d(2 * len(aside), filters, (1, 1), here=visible)
        self.dropout, self.by_map = config.dropout, config.dropout_unit == "map"
        self.outward = CausalConv2d(2 * filters, 2 * filters, kernel, here=may_see(doubled, doubled, strict=False))

    def forward(self, x: Stream, *aside: Stream) -> Stream:
        y = self.inward(x.active)
        if self.aside is not None:
            bias = self.aside.bias  # once: what stands aside is one input, read stream by stream
            for stream, weight in zip(aside, self._weights_aside(len(aside)), strict=True):
                y, bias = F.conv2d(stream.active, weight, bias).add_(y), None
        dropout = self.dropout if self.training else 0.0
        active = concat_elu(y, dropout=dropout, by_map=self.by_map, margin=self.outward.margin)
        return Stream(gated(x.maps, self.outward.of_padded(active)))

    def _weights_aside(self, streams: int) -> Iterator[Tensor]:
        """The part of `aside` that reads each stream: concat_elu([u, ul]) is elu([u, ul, -u, -ul])."""
        assert self.aside is not None
        by_sign = self.aside.masked_weight().unflatten(1, (2, streams, -1))
        return (weight.flatten(1, 2) for weight in by_sign.unbind(2))


class Resample(nn.Module):
    """Halve (`up=False`) or double the resolution of both streams."""

    def __init__(self, groups: Groups, *, up: bool) -> None:
        super().__init__()
        filters, here = len(groups), may_see(groups, groups, strict=False)
        self.u: nn.Module
        self.ul: nn.Module
        if up:
            self.u = CausalConvTranspose2d(filters, filters, U_KERNEL)
            self.ul = CausalConvTranspose2d(filters, filters, UL_KERNEL, here=here)
        else:
            self.u = CausalConv2d(filters, filters, U_KERNEL, stride=2)
            self.ul = CausalConv2d(filters, filters, UL_KERNEL, stride=2, here=here)

    def forward(self, streams: Streams) -> Streams:
        return Streams(Stream(self.u(streams.u.maps)), Stream(self.ul(streams.ul.maps)))


def _check(layout: Layout, config: PixelCNNConfig) -> None:
    for name in ("height", "width"):
        extent = getattr(layout, name)
        if extent % 4:
            nearest = max(4, round(extent / 4) * 4)
            raise InputError(
                f"PixelCNN: {name} must be a multiple of 4 (it halves twice), got {extent}; nearest: {nearest}"
            )
    if config.resnets < 1:
        raise InputError(f"PixelCNN: resnets must be at least 1, got {config.resnets}")
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
