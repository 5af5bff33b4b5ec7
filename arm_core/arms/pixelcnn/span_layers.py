"""The layers of a PixelCNN on the cells of spans, on top of the activations that earlier calls left, by torch.

Every convolution has a kernel of height two, so a cell needs its own row and the one above. A call gathers what the
kernels of its cells read and multiplies it by their weights: one matrix product a layer, whatever the pixels and slots.
Activations are kept by place, so a cell that is evaluated again overwrites what it had, and nothing is ever moved.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.arms.pixelcnn.cells import LEVELS, CellPair, Cells, Grid
from arm_core.arms.pixelcnn.layers import Block, GatedResnet, Resample, Stem, Trunk
from arm_core.causal_conv import CausalConv2d, CausalConvTranspose2d
from arm_core.elementwise import Rows, concat_elu_of_rows
from arm_core.layout import Layout
from arm_core.product import Product

MANY = 64
"""Rows from which on it pays to copy them in wide elements."""


Zeros = Callable[[list[int]], Tensor]
"""Memory of this shape, in the dtype of the ARM and on its device."""


class Pair(NamedTuple):
    """Rows of the stream u and of ul."""

    u: Rows
    ul: Rows


class SpanLayers:
    """All layers of a trunk, in its final dtype and on its device; later changes of its weights go unnoticed.

    Attributes:
        costs: multiply-adds of a cell of u and of ul, by level.
    """

    def __init__(self, trunk: Trunk, grids: list[Grid], zeros: Zeros) -> None:
        self.stem = SpanStem(trunk.layout, trunk.stem, grids[0])
        self.up = [SpanBlock(block, grid, zeros) for block, grid in zip(trunk.up, grids, strict=True)]
        self.shrink = [SpanShrink(part, grids[i], grids[i + 1], zeros) for i, part in enumerate(trunk.shrink)]
        self.down = [SpanBlock(block, grid, zeros) for block, grid in zip(trunk.down, grids[::-1], strict=True)]
        self.grow = [SpanGrow(part, grids[1 - i], grids[2 - i], zeros) for i, part in enumerate(trunk.grow)]
        self.head = Product(_matrix(trunk.head), _bias(trunk.head))
        self.costs = [self._costs(level) for level in range(LEVELS)]

    def begin(self, slots: Int[Tensor, " new"], labels: Int[Tensor, " new"]) -> None:
        """Put the labels of new samples into slots."""
        for block in (*self.up, *self.down):
            for resnet in (resnet for pair in block.pairs for resnet in pair):
                resnet.begin(slots, labels)

    def __call__(self, x: Int[Tensor, "slots dims"], at: list[CellPair]) -> tuple[Rows, Rows]:
        """The last activations and the logits of the cells of ul at the finest level."""
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
        return streams.ul, self.head(F.elu(streams.ul))

    def _costs(self, level: int) -> tuple[int, int]:
        parts: list[SpanBlock | SpanShrink | SpanGrow] = [self.up[level], self.down[LEVELS - 1 - level]]
        parts += [self.shrink[level - 1], self.grow[LEVELS - 1 - level]] if level > 0 else []
        u, ul = (sum(part.cost[stream] for part in parts) for stream in (0, 1))
        return u, ul + self.head.cost * (level == 0)


class ActivationCache:
    """Activations of one layer at every place; what a kernel of `width` reads of a row is one stretch of them."""

    def __init__(self, grid: Grid, features: int, width: int, zeros: Zeros) -> None:
        self.rows = zeros([grid.places, features])
        self.stretches = self.rows.as_strided((grid.places - width + 1, width * features), (features, 1))

    def put(self, values: Rows, at: Cells) -> None:
        """Keep the values of these cells."""
        if values.shape[0] >= MANY:
            _wide(self.rows).index_copy_(0, at.places, _wide(values))
        elif values.shape[0] > 0:
            self.rows.index_copy_(0, at.places, values)

    def at(self, cells: Cells) -> Rows:
        """What is kept of these cells."""
        return self.rows.index_select(0, cells.places)

    def read(self, reads: Int[Tensor, " two_n"]) -> Rows:
        """What kernels read that begin at these places."""
        return self.stretches.index_select(0, reads).view(reads.shape[0] // 2, 2 * self.stretches.shape[1])


def _wide(rows: Rows) -> Tensor:
    """The same memory in elements of 16 bytes if it can be: rows are then copied in half the time."""
    whole = rows.shape[1] * rows.itemsize % torch.complex128.itemsize == 0
    return rows.view(torch.complex128) if whole else rows


def _matrix(conv: CausalConv2d | CausalConvTranspose2d) -> Tensor:
    """(taps * inputs, outputs)"""
    return conv.masked_weight().permute(2, 3, 1, 0).flatten(0, 2)


def _bias(conv: CausalConv2d | CausalConvTranspose2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach().clone()


class SpanResnet:
    """A gated resnet; each slot has the bias of its label."""

    def __init__(self, net: GatedResnet, grid: Grid, skips: int, zeros: Zeros) -> None:
        bias = _bias(net.inward)
        self.skip: Product | None = None
        if net.skip is not None:
            bias = bias + _bias(net.skip)
            self.skip = Product(torch.cat(net.skip_weights(skips), dim=1)[:, :, 0, 0].T)
        self.inward, self.outward = (
            Product(_matrix(net.inward), bias),
            Product(_matrix(net.outward), _bias(net.outward)),
        )
        self.labels: tuple[Tensor, Tensor] | None = None  # what each label, and the one of each slot, adds to the gates
        if net.label is not None:
            by_label = net.label_biases()
            self.labels = by_label, by_label[-1:].repeat(grid.slots, 1)
        self.filters = len(bias)
        self.between = ActivationCache(grid, 2 * self.filters, net.inward.weight.shape[3], zeros)
        self.cost = sum(part.cost for part in (self.inward, self.outward, self.skip) if part is not None)

    def begin(self, slots: Int[Tensor, " new"], labels: Int[Tensor, " new"]) -> None:
        """Put new labels into slots."""
        assert self.labels is not None
        by_label, by_slot = self.labels
        by_slot.index_copy_(0, slots, by_label.index_select(0, labels))

    def __call__(self, x: Rows, kept: ActivationCache, at: Cells, skips: list[Rows]) -> Rows:
        if at.numbers.shape[0] == 0:
            return x
        y = self.inward(kept.read(at.reads))
        if self.skip is not None:
            y += self.skip(torch.cat(skips, dim=1) if len(skips) > 1 else skips[0])
        self.between.put(concat_elu_of_rows(y), at)
        z = self.outward(self.between.read(at.reads))
        if self.labels is not None:
            z += self.labels[1].index_select(0, at.slots)
        gate = z.sigmoid()
        return torch.addcmul(x, z[:, : self.filters], gate[:, self.filters :])


class SpanBlock:
    """Pairs of gated resnets at one level: going up their activations go onto the stack, coming down off it."""

    def __init__(self, block: Block, grid: Grid, zeros: Zeros) -> None:
        pairs = list(block)
        self.descends, self.filters = pairs[0].u.skip is not None, pairs[0].u.inward.weight.shape[0]
        skips = 2 if self.descends else 1
        self.pairs = [(SpanResnet(pair.u, grid, 1, zeros), SpanResnet(pair.ul, grid, skips, zeros)) for pair in pairs]
        self.u_kept = [ActivationCache(grid, 2 * self.filters, 3, zeros) for _ in range(len(pairs) + 1)]
        self.ul_kept = [ActivationCache(grid, 2 * self.filters, 2, zeros) for _ in pairs]
        self.cost = sum(u.cost for u, _ in self.pairs), sum(ul.cost for _, ul in self.pairs)

    def __call__(self, streams: Pair, at: CellPair, stack: list[Pair]) -> Pair:
        u, ul = streams
        if u.shape[0] == 0 and ul.shape[0] == 0:  # few samples: rows begin seldom at the coarser levels
            if self.descends:
                del stack[-len(self.pairs) :]
            else:
                stack += [streams] * (len(self.pairs) + 1)
            return streams
        act_u = concat_elu_of_rows(u)
        self.u_kept[0].put(act_u, at.u)
        for i, (u_net, ul_net) in enumerate(self.pairs):
            act_ul = concat_elu_of_rows(ul)
            self.ul_kept[i].put(act_ul, at.ul)
            if not self.descends:
                stack.append(Pair(act_u, act_ul))
            skip = stack.pop() if self.descends else None
            u = u_net(u, self.u_kept[i], at.u, [skip.u] if skip else [])
            act_u = concat_elu_of_rows(u)
            self.u_kept[i + 1].put(act_u, at.u)
            above = self.u_kept[i + 1].at(at.ul)
            ul = ul_net(ul, self.ul_kept[i], at.ul, [above, skip.ul] if skip else [above])
        if not self.descends:
            stack.append(Pair(act_u, concat_elu_of_rows(ul)))
        return Pair(u, ul)


class SpanShrink:
    """Half the resolution: reads the streams at the finer level, and keeps them there."""

    def __init__(self, part: Resample, fine: Grid, coarse: Grid, zeros: Zeros) -> None:
        filters = part.u.weight.shape[0]
        self.u, self.ul = (Product(_matrix(conv), _bias(conv)) for conv in (part.u, part.ul))
        self.u_kept, self.ul_kept = (ActivationCache(fine, filters, width, zeros) for width in (3, 2))
        self.taps, self.per_slot = fine.taps[2 * coarse.row * fine.width + 2 * coarse.column], fine.per_slot
        self.cost = self.u.cost, self.ul.cost

    def __call__(self, streams: Pair, fine: CellPair, coarse: CellPair) -> Pair:
        self.u_kept.put(streams.u, fine.u)
        self.ul_kept.put(streams.ul, fine.ul)
        u, ul = (
            (self.taps.index_select(0, at.numbers) + (at.slots * self.per_slot)[:, None]).flatten() for at in coarse
        )
        return Pair(self.u(self.u_kept.read(u)), self.ul(self.ul_kept.read(ul)))


class SpanGrow:
    """Twice the resolution: a cell's share in each finer cell that it reaches is kept, and finer cells pick theirs.

    A cell of ul reaches 2 x 2 finer ones; a cell of u 2 x 3, of which the left column belongs to the cell beside it.
    """

    def __init__(self, part: Resample, fine: Grid, coarse: Grid, zeros: Zeros) -> None:
        u, ul = (conv.masked_weight().permute(0, 2, 3, 1) for conv in (part.u, part.ul))  # (in, height, width, out)
        self.filters = filters = u.shape[-1]
        bias = u.new_zeros(2, 3, filters)
        bias[:, 1:] = _bias(part.u)  # once for each finer cell: the left column is another cell's
        self.u = Product(u.flatten(1), bias.flatten())
        self.ul = Product(ul.flatten(1), _bias(part.ul).repeat(4))
        self.u_kept, self.ul_kept = (ActivationCache(coarse, count * filters, 1, zeros) for count in (6, 4))
        self.coarse = coarse
        row, column = fine.row % 2, fine.column % 2
        cell = fine.row.div(2, rounding_mode="floor") * coarse.width + fine.column.div(2, rounding_mode="floor")
        self.ul_share = coarse.place[cell] * 4 + row * 2 + column
        self.u_share = coarse.place[cell] * 6 + row * 3 + 1 + column
        # An odd column also gets from the cell to the right; a column of zeros stands beside the last one.
        self.right_share = torch.where(column == 1, coarse.place[cell] + 1, 0) * 6 + row * 3
        self.cost = self.u.cost, self.ul.cost

    def __call__(self, streams: Pair, coarse: CellPair, fine: CellPair) -> Pair:
        self.u_kept.put(self.u(streams.u), coarse.u)
        self.ul_kept.put(self.ul(streams.ul), coarse.ul)
        u_shares, ul_shares = (kept.rows.view(-1, self.filters) for kept in (self.u_kept, self.ul_kept))
        u_slot, ul_slot = fine.u.slots * (6 * self.coarse.per_slot), fine.ul.slots * (4 * self.coarse.per_slot)
        u = u_shares.index_select(0, self.u_share.index_select(0, fine.u.numbers) + u_slot)
        u += u_shares.index_select(0, self.right_share.index_select(0, fine.u.numbers) + u_slot)
        return Pair(u, ul_shares.index_select(0, self.ul_share.index_select(0, fine.ul.numbers) + ul_slot))


class SpanStem:
    """The first convolutions, on one-hot images: sums of rows of tables, one for each value of each dim that they read.

    What lies outside the image counts as one more value, whose rows are zero. The map of ones and the biases are part
    of the rows of dims that are inside whenever they count.
    """

    def __init__(self, layout: Layout, stem: Stem, grid: Grid) -> None:
        self.layout, self.grid = layout, grid
        above, row_above, left = (
            self._table(conv, bias_tap) for conv, bias_tap in ((stem.above, 4), (stem.row_above, 1), (stem.left, 1))
        )
        row_above[0] += left[0]  # both read the pixel above and to the left
        parts, offsets = [row_above, left[1:]], [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
        if stem.here is not None:
            here = stem.here.masked_weight()[:, :, 0, 0].T.unflatten(0, (layout.channels, layout.categories))
            parts.append(F.pad(here, (0, 0, 0, 1)).unsqueeze(0))
            offsets.append((0, 0))
        self.u_dims = self._dims([(row, column) for row in (-2, -1) for column in (-1, 0, 1)])
        self.ul_dims = self._dims(offsets)
        self.u_table, self.ul_table = above.flatten(0, 2), torch.cat(parts).flatten(0, 2)
        ahead = torch.arange(max(self.u_dims.shape[1], self.ul_dims.shape[1]), device=grid.row.device)
        self.first_row = ahead * (layout.categories + 1)

    def __call__(self, x: Int[Tensor, "slots dims"], at: CellPair) -> Pair:
        values = F.pad(x, (0, 1), value=self.layout.categories).flatten()  # the last one: outside the image
        u, ul = (
            self._sum(values, dims, table, cells)
            for dims, table, cells in zip((self.u_dims, self.ul_dims), (self.u_table, self.ul_table), at, strict=True)
        )
        return Pair(u, ul)

    def _sum(self, values: Tensor, dims: Tensor, table: Tensor, at: Cells) -> Rows:
        if at.numbers.shape[0] == 0:
            return table[:0]
        read = dims.index_select(0, at.numbers) + (at.slots * (self.layout.dims + 1))[:, None]
        return F.embedding_bag(values.take(read) + self.first_row[: dims.shape[1]], table, mode="sum")

    def _table(self, conv: CausalConv2d, bias_tap: int) -> Float[Tensor, "taps channels values filters"]:
        weight = conv.masked_weight().flatten(2).permute(2, 1, 0)  # (taps, channels * categories and the ones, filters)
        table = weight[:, :-1].unflatten(1, (self.layout.channels, self.layout.categories)).contiguous()
        table[:, 0] += weight[:, -1:]
        table[bias_tap, 0] += _bias(conv)
        return F.pad(table, (0, 0, 0, 1))

    def _dims(self, offsets: list[tuple[int, int]]) -> Int[Tensor, "cells reads"]:
        """The dims of the pixels at the offsets from every pixel; `layout.dims` for those outside the image."""
        row, column = (torch.tensor(offset, device=self.grid.row.device) for offset in zip(*offsets, strict=True))
        row, column = self.grid.row[:, None] + row, self.grid.column[:, None] + column
        inside = (row >= 0) & (column >= 0) & (column < self.layout.width)
        channel = torch.arange(self.layout.channels, device=row.device)
        dims = (row * self.layout.width + column)[:, :, None] * self.layout.channels + channel
        return torch.where(inside[:, :, None], dims, self.layout.dims).flatten(1)
