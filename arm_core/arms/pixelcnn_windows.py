"""PixelCNN on spans: some pixels of every slot, on top of the activations that earlier calls left.

Every convolution has a kernel of height two, so a cell needs its own row and the one above. A call gathers what the
kernels of its cells read and multiplies it by their weights: one matrix product a layer, whatever the pixels and slots.
Activations are kept by position, so a cell that is evaluated again overwrites what it had, and nothing is ever moved.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.arms.pixelcnn_places import LEVELS, Entries, Grid, Spans
from arm_core.contracts import SpanOutput
from arm_core.layout import Layout

if TYPE_CHECKING:
    from arm_core.arms.pixelcnn import PixelCNN

Rows = Float[Tensor, "_ _"]  # (entries, features)
_SMALL = 4096
"""Elements below which an operation on a CPU costs about the same whatever it does."""
Part = Any  # a module of PixelCNN; the types of what modules hold are not known to a type checker


class Pair(NamedTuple):
    """One thing for the stream u and one for ul."""

    u: Rows
    ul: Rows


class At(NamedTuple):
    """The entries of both streams at one level."""

    u: Entries
    ul: Entries


class PixelCNNSpans:
    """The `SpanCache` of a PixelCNN (`arm_core.contracts`).

    Args:
        arm: in its final dtype and on its device; later changes of its weights go unnoticed.
        slots: how many samples are in work.
        window: most dims of a span, rounded up to whole pixels.
        compact: see `Spans`; None: on CPUs.
    """

    def __init__(self, arm: "PixelCNN", slots: int, window: int, *, compact: bool | None = None) -> None:
        self.layout = layout = arm.layout
        pixels = min(-(-window // layout.channels), layout.height * layout.width)
        self.window, self.slots = pixels * layout.channels, slots
        weight = arm.head.weight.detach()
        self.spans = Spans(
            layout,
            slots,
            pixels,
            compact=weight.device.type == "cpu" if compact is None else compact,
            device=weight.device,
        )
        grids = self.spans.grids
        self.stem = _Stem(layout, arm.stem, grids[0])
        self.up = [_Block(part, grid) for part, grid in zip(arm.up.children(), grids, strict=True)]
        self.shrink = [_Shrink(part, grids[i], grids[i + 1]) for i, part in enumerate(arm.shrink.children())]
        self.down = [_Block(part, grid) for part, grid in zip(arm.down.children(), grids[::-1], strict=True)]
        self.grow = [_Grow(part, grids[1 - i], grids[2 - i]) for i, part in enumerate(arm.grow.children())]
        self.head = _Product(_flat(arm.head), arm.head.bias)
        self._costs = self._cell_costs()
        self._whole = sum(sum(cost) * grid.cells for cost, grid in zip(self._costs, grids, strict=True))

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`."""
        channels = self.layout.channels
        first, end = (dims.div(channels, rounding_mode="floor") for dims in (start, stop + channels - 1))
        u, ul, real = self.spans.entries(first, end)
        at = [At(*entries) for entries in zip(u, ul, strict=True)]
        streams = self.stem(x, at[0])
        stack: list[Pair] = []
        for level, block in enumerate(self.up):
            if level > 0:
                streams = self.shrink[level - 1](streams, at[level - 1], at[level])
            streams = block(streams, at[level], stack)
        stack.pop()
        for step, block in enumerate(self.down):
            level = LEVELS - 1 - step
            if step > 0:
                streams = self.grow[step - 1](streams, at[level + 1], at[level])
            streams = block(streams, at[level], stack)
        logits = self.head(F.elu(streams.ul))
        pixels = at[0].ul.slots * self.spans.pixels + at[0].ul.cells
        if real is not None:
            pixels = torch.where(real, pixels, self.slots * self.spans.pixels)
        index = (pixels[:, None] * channels + torch.arange(channels, device=x.device)).flatten()
        return SpanOutput(
            index, logits.view(-1, self.layout.categories), streams.ul.reshape(len(index), -1), self._work(at)
        )

    def _cell_costs(self) -> list[tuple[int, int]]:
        """Multiply-adds of a cell of u and of ul, by level."""
        costs = []
        for level in range(LEVELS):
            parts: list[Any] = [self.up[level], self.down[LEVELS - 1 - level]]
            parts += [self.shrink[level - 1], self.grow[LEVELS - 1 - level]] if level > 0 else []
            u, ul = (sum(part.cost[stream] for part in parts) for stream in (0, 1))
            costs.append((u, ul + self.head.cost * (level == 0)))
        return costs

    def _work(self, at: list[At]) -> float:
        done = sum(entries.u.size * u + entries.ul.size * ul for entries, (u, ul) in zip(at, self._costs, strict=True))
        return done / self._whole


class _Product:
    """rows @ matrix + bias."""

    def __init__(self, matrix: Tensor, bias: Part) -> None:
        self.matrix, self.bias = matrix.contiguous(), bias.detach()
        self.cost = matrix.numel()

    def __call__(self, rows: Rows) -> Rows:
        return torch.addmm(self.bias, rows, self.matrix)


class _Kept:
    """Activations of one layer at every place; what a kernel of `width` reads of a row is one stretch of them."""

    def __init__(self, grid: Grid, features: int, width: int, like: Tensor) -> None:
        self.rows = like.new_zeros(grid.places, features)
        self.stretches = self.rows.as_strided((grid.places - width + 1, width * features), (features, 1))

    def put(self, values: Rows, at: Entries) -> None:
        self.rows.index_copy_(0, at.places, values)

    def at(self, places: Int[Tensor, " n"]) -> Rows:
        return self.rows.index_select(0, places)

    def read(self, reads: Int[Tensor, " reads"]) -> Rows:
        return self.stretches.index_select(0, reads).view(reads.shape[0] // 2, 2 * self.stretches.shape[1])


def _masked(conv: Part) -> Tensor:
    weight: Tensor = conv.masked_weight()
    return weight.detach()


def _flat(conv: Part) -> Tensor:
    """(taps * inputs, outputs)"""
    return _masked(conv).permute(2, 3, 1, 0).flatten(0, 2)


def _concat_elu(x: Rows) -> Rows:
    """elu([x, -x]). One exponential serves both: exp(-|x|) - 1 lies below x where x > 0, and above it elsewhere."""
    if x.numel() < _SMALL:  # fewer operations count more than fewer exponentials
        return F.elu_(torch.cat([x, -x], dim=1))
    bent = x.abs().neg_().expm1_()
    return torch.cat([torch.maximum(x, bent), torch.maximum(-x, bent)], dim=1)


class _Resnet:
    """A gated resnet; `asides` lists which of the inputs from aside come together."""

    def __init__(self, net: Part, grid: Grid, asides: list[Tensor]) -> None:
        inward, outward = net.inward, net.outward
        bias = inward.bias
        self.asides = []
        if net.aside is not None:
            bias = bias + net.aside.bias
            weight = _masked(net.aside)[:, :, 0, 0].T
            self.asides = [weight[part].contiguous() for part in asides]
        self.inward, self.outward = _Product(_flat(inward), bias), _Product(_flat(outward), outward.bias)
        self.filters = len(inward.bias)
        self.between = _Kept(grid, 2 * self.filters, inward.weight.shape[3], inward.weight.detach())
        self.cost = sum(part.numel() for part in (self.inward.matrix, self.outward.matrix, *self.asides))

    def __call__(self, x: Rows, kept: _Kept, at: Entries, asides: list[Rows]) -> Rows:
        if at.size == 0:
            return x
        y = self.inward(kept.read(at.reads))
        for rows, matrix in zip(asides, self.asides, strict=True):
            y.addmm_(rows, matrix)
        self.between.put(_concat_elu(y), at)
        z = self.outward(self.between.read(at.reads))
        gate = z.sigmoid()
        return torch.addcmul(x, z[:, : self.filters], gate[:, self.filters :])


class _Block:
    """Pairs of gated resnets at one level: going up their activations go onto the stack, coming down off it."""

    def __init__(self, block: Part, grid: Grid) -> None:
        pairs = list(block.children())
        filters, like = len(pairs[0].u.inward.bias), pairs[0].u.inward.weight.detach()
        self.descends = pairs[0].u.aside is not None
        both = torch.arange(4 * filters, device=like.device).view(2, 2, filters)  # (sign, stream, feature)
        alone = torch.arange(2 * filters, device=like.device)
        u_asides, ul_asides = (
            ([alone], [both[:, 0].flatten(), both[:, 1].flatten()]) if self.descends else ([], [alone])
        )
        self.pairs = [(_Resnet(pair.u, grid, u_asides), _Resnet(pair.ul, grid, ul_asides)) for pair in pairs]
        self.u_kept = [_Kept(grid, 2 * filters, 3, like) for _ in range(len(pairs) + 1)]
        self.ul_kept = [_Kept(grid, 2 * filters, 2, like) for _ in pairs]
        self.cost = sum(u.cost for u, _ in self.pairs), sum(ul.cost for _, ul in self.pairs)

    def __call__(self, streams: Pair, at: At, stack: list[Pair]) -> Pair:
        u, ul = streams
        act_u = _concat_elu(u)
        self.u_kept[0].put(act_u, at.u)
        for i, (u_net, ul_net) in enumerate(self.pairs):
            act_ul = _concat_elu(ul)
            self.ul_kept[i].put(act_ul, at.ul)
            if not self.descends:
                stack.append(Pair(act_u, act_ul))
            skip = stack.pop() if self.descends else None
            u = u_net(u, self.u_kept[i], at.u, [skip.u] if skip else [])
            act_u = _concat_elu(u)
            self.u_kept[i + 1].put(act_u, at.u)
            above = self.u_kept[i + 1].at(at.ul.places)
            ul = ul_net(ul, self.ul_kept[i], at.ul, [above, skip.ul] if skip else [above])
        if not self.descends:
            stack.append(Pair(act_u, _concat_elu(ul)))
        return Pair(u, ul)


class _Shrink:
    """Half the resolution: reads the streams at the finer level, and keeps them there."""

    def __init__(self, part: Part, fine: Grid, coarse: Grid) -> None:
        like = part.u.weight.detach()
        self.u, self.ul = (_Product(_flat(conv), conv.bias) for conv in (part.u, part.ul))
        self.u_kept, self.ul_kept = _Kept(fine, like.shape[1], 3, like), _Kept(fine, like.shape[1], 2, like)
        self.fine, self.first = fine, 2 * coarse.row * fine.width + 2 * coarse.column
        self.cost = self.u.cost, self.ul.cost

    def __call__(self, streams: Pair, fine: At, coarse: At) -> Pair:
        self.u_kept.put(streams.u, fine.u)
        self.ul_kept.put(streams.ul, fine.ul)
        u, ul = (self.fine.reads(self.first.index_select(0, at.cells), at.slots) for at in coarse)
        return Pair(self.u(self.u_kept.read(u)), self.ul(self.ul_kept.read(ul)))


class _Grow:
    """Twice the resolution: a cell's share in each finer cell that it reaches is kept, and finer cells pick theirs.

    A cell of ul reaches 2 x 2 finer ones; a cell of u 2 x 3, of which the left column belongs to the cell beside it.
    """

    def __init__(self, part: Part, fine: Grid, coarse: Grid) -> None:
        u, ul = (_masked(conv).permute(0, 2, 3, 1) for conv in (part.u, part.ul))  # (in, height, width, out)
        self.filters = filters = u.shape[-1]
        bias = u.new_zeros(2, 3, filters)
        bias[:, 1:] = part.u.bias.detach()  # once for each finer cell: the left column is another cell's
        self.u = _Product(u.flatten(1), bias.flatten())
        self.ul = _Product(ul.flatten(1), part.ul.bias.repeat(4))
        self.u_kept, self.ul_kept = (_Kept(coarse, count * filters, 1, u) for count in (6, 4))
        self.coarse = coarse
        row, column = fine.row % 2, fine.column % 2
        cell = fine.row.div(2, rounding_mode="floor") * coarse.width + fine.column.div(2, rounding_mode="floor")
        self.ul_share = coarse.place[cell] * 4 + row * 2 + column
        self.u_share = coarse.place[cell] * 6 + row * 3 + 1 + column
        # An odd column also gets from the cell to the right; a column of zeros stands beside the last one.
        self.right_share = torch.where(column == 1, coarse.place[cell] + 1, 0) * 6 + row * 3
        self.cost = self.u.cost, self.ul.cost

    def __call__(self, streams: Pair, coarse: At, fine: At) -> Pair:
        self.u_kept.put(self.u(streams.u), coarse.u)
        self.ul_kept.put(self.ul(streams.ul), coarse.ul)
        u_shares, ul_shares = (kept.rows.view(-1, self.filters) for kept in (self.u_kept, self.ul_kept))
        u_slot, ul_slot = fine.u.slots * (6 * self.coarse.per_slot), fine.ul.slots * (4 * self.coarse.per_slot)
        u = u_shares.index_select(0, self.u_share.index_select(0, fine.u.cells) + u_slot)
        u += u_shares.index_select(0, self.right_share.index_select(0, fine.u.cells) + u_slot)
        return Pair(u, ul_shares.index_select(0, self.ul_share.index_select(0, fine.ul.cells) + ul_slot))


class _Stem:
    """The first convolutions, on one-hot images: sums of rows of tables, one for each value of each dim that they read.

    What lies outside the image counts as one more value, whose rows are zero. The map of ones and the biases are part
    of the rows of dims that are inside whenever they count.
    """

    def __init__(self, layout: Layout, stem: Part, grid: Grid) -> None:
        self.layout, self.grid = layout, grid
        above, row_above, left = (
            self._table(conv, bias_tap) for conv, bias_tap in ((stem.above, 4), (stem.row_above, 1), (stem.left, 1))
        )
        row_above[0] += left[0]  # both read the pixel above and to the left
        parts, offsets = [row_above, left[1:]], [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
        if stem.here is not None:
            here = _masked(stem.here)[:, :, 0, 0].T.unflatten(0, (layout.channels, layout.categories))
            parts.append(F.pad(here, (0, 0, 0, 1)).unsqueeze(0))
            offsets.append((0, 0))
        self.u_dims = self._dims([(row, column) for row in (-2, -1) for column in (-1, 0, 1)])
        self.ul_dims = self._dims(offsets)
        self.u_table, self.ul_table = above.flatten(0, 2), torch.cat(parts).flatten(0, 2)
        ahead = torch.arange(max(self.u_dims.shape[1], self.ul_dims.shape[1]), device=grid.row.device)
        self.first_row = ahead * (layout.categories + 1)

    def __call__(self, x: Int[Tensor, "slots dims"], at: At) -> Pair:
        values = F.pad(x, (0, 1), value=self.layout.categories).flatten()  # the last one: outside the image
        u, ul = (
            self._sum(values, dims, table, entries)
            for dims, table, entries in zip((self.u_dims, self.ul_dims), (self.u_table, self.ul_table), at, strict=True)
        )
        return Pair(u, ul)

    def _sum(self, values: Tensor, dims: Tensor, table: Tensor, at: Entries) -> Rows:
        if at.size == 0:
            return table[:0]
        read = dims.index_select(0, at.cells) + (at.slots * (self.layout.dims + 1))[:, None]
        return F.embedding_bag(values.take(read) + self.first_row[: dims.shape[1]], table, mode="sum")

    def _table(self, conv: Part, bias_tap: int) -> Float[Tensor, "taps channels values filters"]:
        weight = _masked(conv).flatten(2).permute(2, 1, 0)  # (taps, channels * categories and the ones, filters)
        table = weight[:, :-1].unflatten(1, (self.layout.channels, self.layout.categories)).contiguous()
        table[:, 0] += weight[:, -1:]
        table[bias_tap, 0] += conv.bias.detach()
        return F.pad(table, (0, 0, 0, 1))

    def _dims(self, offsets: list[tuple[int, int]]) -> Int[Tensor, "cells reads"]:
        """The dims of the pixels at the offsets from every pixel; `layout.dims` for those outside the image."""
        row, column = (torch.tensor(offset, device=self.grid.row.device) for offset in zip(*offsets, strict=True))
        row, column = self.grid.row[:, None] + row, self.grid.column[:, None] + column
        inside = (row >= 0) & (column >= 0) & (column < self.layout.width)
        channel = torch.arange(self.layout.channels, device=row.device)
        dims = (row * self.layout.width + column)[:, :, None] * self.layout.channels + channel
        return torch.where(inside[:, :, None], dims, self.layout.dims).flatten(1)
