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
    """

    def __init__(self, grids: list[Grid], slots: int, window: int, *, compact: bool) -> None:
        self.compact, device = compact, grids[0].place.device
        self.before = self._cells_before(grids)
        wide = min(window, grids[0].cells)
        room = (self.before[wide:] - self.before[:-wide]).amax(dim=0)  # the most cells of each kind in a span
        kind = torch.arange(2 * LEVELS, device=device).repeat_interleave(slots * room)
        self.room = (slots * room).tolist()
        place = torch.arange(len(kind), device=device) - (slots * (room.cumsum(0) - room))[kind]
        self.slots, self.ahead = place.div(room[kind], rounding_mode="floor"), place % room[kind]
        self.range = self.slots * (2 * LEVELS) + kind
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
    ) -> tuple[list[CellPair], Bool[Tensor, " n"] | None]:
        """The cells by level, and which of the finest ul only fill up the shape (None: none do).

        Args:
            first, stop: in pixels; a slot's span is [first, stop), empty where they are equal.
        """
        begin, end = (self.before.index_select(0, at) for at in (first, stop))
        numbers = begin.flatten().index_select(0, self.range) + self.ahead
        inside = numbers < end.flatten().index_select(0, self.range)
        slots, first_row, first_place, sizes, padding = self.slots, self.first_row, self.first_place, self.room, None
        if self.compact:
            index = inside.nonzero().flatten()
            numbers, slots, first_row, first_place = (
                table.index_select(0, index) for table in (numbers, slots, first_row, first_place)
            )
            sizes = (end - begin).sum(dim=0).tolist()
        else:
            outside = inside.logical_not()
            numbers, padding = numbers.masked_fill(outside, 0), outside.split(sizes)[1]
        row = numbers + first_row
        places = self.place.index_select(0, row) + first_place
        if not self.compact:
            places = torch.where(inside, places, self.nowhere)
        reads = (self.taps.index_select(0, row) + first_place[:, None]).flatten().split([2 * size for size in sizes])
        kinds = [
            Cells(*parts) for parts in zip(*(of.split(sizes) for of in (numbers, slots, places)), reads, strict=True)
        ]
        return [CellPair(*kinds[place : place + 2]) for place in range(0, 2 * LEVELS, 2)], padding
