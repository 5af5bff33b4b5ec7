"""Where the cells of a PixelCNN lie in its caches, and which of them a span covers.

A cache keeps a few rows of every slot at one resolution: row r at its number modulo the depth, between two columns of
zeros, so that what a kernel reads of a row is one stretch of memory. Two more rows per slot are `nothing` (zeros: the
row above the image) and `nowhere` (for cells that only fill up a fixed shape). This module knows indices, and no
weights or activations.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from arm_core.layout import Layout

LEVELS = 3
"""Resolutions of the trunk: level l has a cell for every 2^l x 2^l pixels, and the cell knows what lies before the
first of them."""


class Grid:
    """The cells of one level and their places.

    Args:
        height, width: cells of an image.
        depth: rows that a slot keeps: those of a span and the one above it.
        slots: how many.
        device: of the tables.

    Attributes:
        places: of all slots.
        place: (cells,) of each cell in its slot.
        taps: (cells, 2) where what a kernel reads begins, a row above each cell and in its own row: a column to the
            left of it.
    """

    def __init__(self, height: int, width: int, depth: int, slots: int, device: torch.device) -> None:
        self.width, self.cells, self.slots = width, height * width, slots
        across = width + 2
        self.per_slot = (depth + 2) * across
        self.places = slots * self.per_slot
        self.nowhere = (depth + 1) * across + 1
        number = torch.arange(self.cells, device=device)
        self.row, self.column = number.div(width, rounding_mode="floor"), number % width
        self.place = self.row % depth * across + self.column + 1
        above = torch.where(self.row > 0, (self.row - 1) % depth, depth) * across + self.column
        self.taps = torch.stack([above, self.place - 1], dim=1)


def build_grids(layout: Layout, slots: int, window: int, device: torch.device) -> list[Grid]:
    """The grid of every level, for spans of at most `window` pixels."""
    rows = min(layout.height, -(-(window - 1) // layout.width) + 1)  # that a span can touch
    return [
        Grid(layout.height >> level, layout.width >> level, -(-(rows - 1) // (1 << level)) + 2, slots, device)
        for level in range(LEVELS)
    ]


class Cells(NamedTuple):
    """The cells of one level and stream that a call evaluates, over all slots.

    Attributes:
        numbers: of each cell in its image, in raster order.
        slots: the slot of each.
        places: where each is kept, counted over all slots.
        reads: (2 n,) where the stretches begin that a kernel reads: a row above each cell, then in its own row.
    """

    numbers: Int[Tensor, " n"]
    slots: Int[Tensor, " n"]
    places: Int[Tensor, " n"]
    reads: Int[Tensor, " two_n"]


class CellPair(NamedTuple):
    """The cells of both streams at one level."""

    u: Cells
    ul: Cells


class _Chosen(NamedTuple):
    """Entries of the tables of `SpanCells` that a call evaluates.

    Attributes:
        rows: which; None: all of them.
        numbers: of the cell of each.
        outside: which of them only fill up; None: none do.
        counts: how many spans cover of each kind.
        sizes: how many entries there are of each kind.
    """

    rows: Int[Tensor, " n"] | None
    numbers: Int[Tensor, " n"]
    outside: Bool[Tensor, " n"] | None
    counts: list[int]
    sizes: list[int]


class SpanCells:
    """From where the spans of the slots begin and end to the cells of all levels.

    A cell of the ul stream is evaluated when its first pixel lies in the span. A row of the u stream, which knows the
    rows above, when its first pixel does: then, and only then, an input of it may have changed. Either way the cells
    of a span follow each other in raster order, so two tables say which they are.

    Args:
        grids: of every level.
        slots: how many.
        window: pixels of a span.
        compact: leave out what a span does not cover; otherwise every call has the same shapes, as a captured CUDA
            graph needs, and what is not covered is computed in vain.
        rounded: with `compact`, fill up the cells of each kind to one of a few counts (by an eighth at most): what has
            to be prepared for every new shape then soon is.
    """

    def __init__(self, grids: list[Grid], slots: int, window: int, *, compact: bool, rounded: bool = False) -> None:
        self.compact, self.rounded, device = compact, compact and rounded, grids[0].place.device
        self.before = self._cells_before(grids)
        wide = min(window, grids[0].cells)
        room = (self.before[wide:] - self.before[:-wide]).amax(dim=0)  # the most cells of each kind in a span
        self.room = (slots * room).tolist()
        entries = slots * room
        if self.rounded:  # what fills up are cells of one more slot
            entries += entries.div(8, rounding_mode="floor")
        kind = torch.arange(2 * LEVELS, device=device).repeat_interleave(entries)
        place = torch.arange(len(kind), device=device) - (entries.cumsum(0) - entries)[kind]
        self.slots = place.div(room[kind], rounding_mode="floor").clamp_max(slots)
        self.ahead = place - self.slots * room[kind]
        self.range, self.fills = self.slots * (2 * LEVELS) + kind, self.slots == slots
        self.slots = self.slots.masked_fill(self.fills, 0)
        sizes = torch.tensor([[grid.cells, grid.per_slot, grid.nowhere] for grid in grids for _ in range(2)]).to(device)
        self.first_row = (sizes[:, 0].cumsum(0) - sizes[:, 0])[kind]
        self.first_place = sizes[kind, 1] * self.slots
        self.nowhere = self.first_place + sizes[kind, 2]
        self.place = torch.cat([grid.place for grid in grids for _ in range(2)])
        self.taps = torch.cat([grid.taps for grid in grids for _ in range(2)])

    @staticmethod
    def _cells_before(grids: list[Grid]) -> Int[Tensor, "pixels_and_end kinds"]:
        """How many cells of u and ul of each level begin before each pixel, and before the end of the image."""
        width, pixels = grids[0].width, grids[0].cells
        pixel = torch.arange(pixels + 1, device=grids[0].place.device)
        row, column = pixel.div(width, rounding_mode="floor"), pixel % width
        counts = []
        for level, grid in enumerate(grids):
            size, begins = 1 << level, row % (1 << level) == 0
            above = (row + size - 1).div(size, rounding_mode="floor") * grid.width
            left = (column + size - 1).div(size, rounding_mode="floor")
            counts += [above + begins * (column > 0) * grid.width, above + begins * left]
        return torch.stack(counts, dim=1)

    def __call__(
        self, first: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> tuple[list[CellPair], list[int], Bool[Tensor, " n"] | None]:
        """The cells by level; how many spans cover of each kind; which of the finest ul only fill up (None: none do).

        Args:
            first, stop: in pixels; a slot's span is [first, stop), empty where they are equal.
        """
        begin, end = self.ranges(first, stop)
        choose = self._filled_up if self.rounded else self._covered if self.compact else self._all
        rows, numbers, outside, counts, sizes = choose(begin, end)
        tables = [self.slots, self.first_row, self.first_place, self.nowhere]
        if rows is not None:
            tables = [table.index_select(0, rows) for table in tables]
        slots, first_row, first_place, nowhere = tables
        if outside is not None:
            numbers = numbers.masked_fill(outside, 0)
        row = numbers + first_row
        places = self.place.index_select(0, row) + first_place
        if outside is not None:
            places = torch.where(outside, nowhere, places)
        reads = (self.taps.index_select(0, row) + first_place[:, None]).flatten().split([2 * size for size in sizes])
        kinds = [
            Cells(*parts) for parts in zip(*(of.split(sizes) for of in (numbers, slots, places)), reads, strict=True)
        ]
        at = [CellPair(*kinds[place : place + 2]) for place in range(0, 2 * LEVELS, 2)]
        return at, counts, None if outside is None else outside.split(sizes)[1]

    def ranges(
        self, first: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> tuple[Int[Tensor, "slots kinds"], Int[Tensor, "slots kinds"]]:
        """The cells of each kind (u and ul of the first level, of the second, ...): [begin, end) of each slot."""
        begin, end = (self.before.index_select(0, at) for at in (first, stop))
        return begin, end

    def _all(self, begin: Tensor, end: Tensor) -> _Chosen:
        """Fixed shapes: every entry, also those that no span covers."""
        numbers, inside = self._numbered(begin, end)
        return _Chosen(None, numbers, inside.logical_not(), self.room, self.room)

    def _covered(self, begin: Tensor, end: Tensor) -> _Chosen:
        """What spans cover and no more."""
        counts = (end - begin).sum(dim=0).tolist()
        return _Chosen(*self._inside(begin, end), None, counts, counts)

    def _filled_up(self, begin: Tensor, end: Tensor) -> _Chosen:
        """What spans cover, and cells of one more slot up to the next of a few counts."""
        counts = (end - begin).sum(dim=0).tolist()
        sizes = [_round_up(count) for count in counts]
        fill = begin.new_tensor([[size - count for size, count in zip(sizes, counts, strict=True)]])
        rows, numbers = self._inside(torch.cat([begin, torch.zeros_like(fill)]), torch.cat([end, fill]))
        outside = self.fills.index_select(0, rows) if sizes != counts else None
        return _Chosen(rows, numbers, outside, counts, sizes)

    def _inside(self, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """The entries that spans cover, and the numbers of their cells."""
        numbers, inside = self._numbered(begin, end)
        rows = inside.nonzero().flatten()
        return rows, numbers.index_select(0, rows)

    def _numbered(self, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the cell of each entry, and whether a span covers it."""
        numbers = begin.flatten().index_select(0, self.range) + self.ahead
        return numbers, numbers < end.flatten().index_select(0, self.range)


def _round_up(count: int) -> int:
    """To one of eight counts an octave; below 32 as it is."""
    step = 1 << max(0, count.bit_length() - 4) if count >= 32 else 1
    return -(-count // step) * step
