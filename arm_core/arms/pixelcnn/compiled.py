"""The layers of spans in C++ (`arm_core/native/layers.hpp`): listed once, and run as one operation.

It has the weights, caches and tables of `span_layers`. Convolutions read the caches where they lie, so that nothing is
gathered, and what those layers hand to each other is kept by place too. This module knows how layers follow each other,
and no arithmetic.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from arm_core.arms.pixelcnn.cells import Grid
from arm_core.arms.pixelcnn.span_layers import (
    ActivationCache,
    SpanBlock,
    SpanGrow,
    SpanLayers,
    SpanResnet,
    SpanShrink,
    SpanStem,
)
from arm_core.elementwise import Rows
from arm_core.product import Product


class Source(NamedTuple):
    """What a layer reads of each cell: stretches of `length` that begin at the rows in the cell's line of a table, in
    slot k k times `per_slot` rows further on."""

    rows: Rows
    table: Int[Tensor, "cells reads"]
    per_slot: int
    length: int


class Stream(NamedTuple):
    """Where a block keeps one of its streams.

    Attributes:
        kind: of its cells: u and ul of the finest level are 0 and 1, of the next 2 and 3.
        values: before the nonlinearity.
        active: after it, before each pair of resnets and after the last one.
    """

    kind: int
    grid: Grid
    values: Rows
    active: list[ActivationCache]

    def stretches(self, of: ActivationCache) -> Source:
        """What a convolution reads of them."""
        return Source(of.rows, self.grid.taps, self.grid.per_slot, of.stretches.shape[1])

    def own(self, rows: Rows, length: int | None = None) -> Source:
        """What is kept of the cell itself, or the first features of it."""
        return Source(rows, self.grid.place[:, None], self.grid.per_slot, length or rows.shape[1])


Streams = tuple[Stream, Stream]
Skip = tuple[ActivationCache, ActivationCache]
Values = tuple[Rows, Rows]


class CompiledLayers:
    """Does what `layers` do, on a CPU.

    Args:
        layers: whose weights and caches it uses.
        grids: of every level.
        memory: where it keeps more; the caches lie there too.
    """

    def __init__(self, layers: SpanLayers, grids: list[Grid], memory: Any) -> None:
        kinds = [grid for grid in grids for _ in range(2)]
        places, per_slot = [grid.place[:, None] for grid in kinds], [grid.per_slot for grid in kinds]
        self._code: Any = torch.classes.arm_core.Layers(memory, places, per_slot)
        self._memory, self._outside = memory, layers.stem.layout.categories
        self._list(layers, grids)

    def __call__(
        self, x: Int[Tensor, "slots dims"], begin: Int[Tensor, "slots kinds"], end: Int[Tensor, "slots kinds"]
    ) -> tuple[Int[Tensor, " pixels"], Rows, Rows]:
        """The pixels counted over all slots, their last activations and their logits.

        Args:
            x: the sequences, all of categories.
            begin, end: the cells of each kind.
        """
        pixels, (hidden, logits) = self._code.run(F.pad(x, (0, 1), value=self._outside), begin, end)
        return pixels, hidden, logits

    def _list(self, layers: SpanLayers, grids: list[Grid]) -> None:
        # What a shrink keeps, to read it, are the values of the block before.
        read = [(shrink.u_kept.rows, shrink.ul_kept.rows) for shrink in layers.shrink]
        up = [
            self._streams(block, level, grids[level], values=values)
            for level, (block, values) in enumerate(zip(layers.up, [*read, None], strict=True))
        ]
        skips: list[Skip] = []
        for level, here in enumerate(up):
            self._read_image(layers.stem, here) if level == 0 else self._shrink(layers.shrink[level - 1], here)
            self._pairs(layers.up[level], here, None)
            skips += zip(*(stream.active for stream in here), strict=True)
        top = skips.pop()
        u, ul = up[-1]
        here = self._streams(layers.down[0], len(up) - 1, u.grid, values=(u.values, ul.values), first=top)
        self._pairs(layers.down[0], here, skips)
        for step, (block, grow) in enumerate(zip(layers.down[1:], layers.grow, strict=True), start=2):
            coarse, here = here, self._streams(block, len(up) - step, grids[-step])
            self._grow(grow, coarse, here)
            self._pairs(block, here, skips)
        _, ul = here
        self._add(ul.kind, [ul.own(ul.values)])
        self._add(ul.kind, [ul.own(ul.active[-1].rows, ul.values.shape[1])], layers.head)  # elu: the first half of it

    def _read_image(self, stem: SpanStem, streams: Streams) -> None:
        for to, dims, table in zip(streams, (stem.u_dims, stem.ul_dims), (stem.u_table, stem.ul_table), strict=True):
            chosen = Source(table, dims, stem.layout.dims + 1, table.shape[1])
            self._keep(to, [chosen], tokens=stem.layout.categories + 1)

    def _shrink(self, part: SpanShrink, coarse: Streams) -> None:
        for to, product, kept in zip(coarse, (part.u, part.ul), (part.u_kept, part.ul_kept), strict=True):
            self._keep(to, [Source(kept.rows, part.taps, part.per_slot, kept.stretches.shape[1])], product)

    def _grow(self, part: SpanGrow, coarse: Streams, fine: Streams) -> None:
        tables = torch.stack([part.u_share, part.right_share], dim=1), part.ul_share[:, None]
        for of, to, product, kept, table in zip(
            coarse, fine, (part.u, part.ul), (part.u_kept, part.ul_kept), tables, strict=True
        ):
            self._add(of.kind, [of.own(of.values)], product, values=kept.rows)
            shares = kept.rows.view(-1, part.filters)
            self._keep(to, [Source(shares, table, of.grid.per_slot * (len(shares) // len(kept.rows)), part.filters)])

    def _pairs(self, block: SpanBlock, streams: Streams, skips: list[Skip] | None) -> None:
        u, ul = streams
        for i, (u_net, ul_net) in enumerate(block.pairs):
            skip = None if skips is None else skips.pop()
            self._resnet(u_net, u, i, [u.own(skip[0].rows)] if skip else [])
            above = ul.own(u.active[i + 1].rows)
            self._resnet(ul_net, ul, i, [above, ul.own(skip[1].rows)] if skip else [above])

    def _resnet(self, net: SpanResnet, stream: Stream, i: int, skips: list[Source]) -> None:
        inward = net.inward
        if net.skip is not None:
            inward = Product(torch.cat([inward.matrix, net.skip.matrix]), inward.bias)
        reads = stream.stretches(stream.active[i])
        self._add(stream.kind, [reads, *skips], inward, active=net.between.rows)
        by_slot = None if net.labels is None else net.labels[1]
        between = stream.stretches(net.between)
        self._keep(stream, [between], net.outward, after=i + 1, by_slot=by_slot, gated=True)

    def _keep(
        self, to: Stream, sources: list[Source], product: Product | None = None, *, after: int = 0, **more: Any
    ) -> None:
        self._add(to.kind, sources, product, values=to.values, active=to.active[after].rows, **more)

    def _add(
        self,
        kind: int,
        sources: list[Source],
        product: Product | None = None,
        *,
        tokens: int = 0,
        by_slot: Rows | None = None,
        gated: bool = False,
        values: Rows | None = None,
        active: Rows | None = None,
    ) -> None:
        """One more layer, see `Layer` in C++."""
        rows, tables, per_slot, lengths = map(list, zip(*sources, strict=True))
        matrix, bias = (None, None) if product is None else (product.matrix, product.bias)
        self._code.add(kind, rows, tables, per_slot, lengths, tokens, matrix, bias, by_slot, gated, values, active)

    def _streams(
        self, block: SpanBlock, level: int, grid: Grid, *, values: Values | None = None, first: Skip | None = None
    ) -> Streams:
        """Those of a block, which goes on from `values`, and from `first` after the nonlinearity, if they are given."""
        filters, zeros = block.filters, self._memory.zeros
        before = values or (zeros([grid.places, filters]), zeros([grid.places, filters]))
        active = [*block.u_kept], [*block.ul_kept, ActivationCache(grid, 2 * filters, 2, zeros)]
        for stream, given in zip(active, first or (), strict=False):
            stream[0] = given
        u, ul = (Stream(2 * level + i, grid, before[i], active[i]) for i in range(2))
        return u, ul
