"""Where the cells of a PixelCNN lie in its caches, and which of them a span covers.

A cache keeps a few rows of every slot at one resolution: row r at its number modulo the depth, between two columns of
zeros, so that what a kernel reads of a row is one stretch of memory. Two more rows per slot are `nothing` (zeros: the
row above the image) and `nowhere` (for entries that only fill up a fixed shape). This module knows indices, and no
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


Chosen = tuple[Tensor, Tensor, Tensor | None]


class Entries(NamedTuple):
    """The cells of one level and stream that a call evaluates, over all slots.

    Attributes:
        cells: number of each cell in its image, in raster order.
        slots: the slot of each.
        places: where each is kept, counted over all slots.
        reads: (2 n,) where the stretches begin that a kernel reads: a row above each cell, then in its own row.
    """

    cells: Int[Tensor, " n"]
    slots: Int[Tensor, " n"]
    places: Int[Tensor, " n"]
    reads: Int[Tensor, " reads"]

    @property
    def size(self) -> int:
        """Cells, those included that only fill up a fixed shape."""
        return self.cells.shape[0]


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
        self.width, self.cells = width, height * width
        across = width + 2
        self.per_slot = (depth + 2) * across
        self.places = slots * self.per_slot
        self.nowhere = (depth + 1) * across + 1
        number = torch.arange(self.cells, device=device)
        self.row, self.column = number.div(width, rounding_mode="floor"), number % width
        self.place = self.row % depth * across + self.column + 1
        above = torch.where(self.row > 0, (self.row - 1) % depth, depth) * across + self.column
        self.taps = torch.stack([above, self.place - 1], dim=1)

    def entries(self, cells: Tensor, slots: Tensor, real: Bool[Tensor, " n"] | None) -> Entries:
        """Entries of cells; those that are not `real` are kept nowhere."""
        place = self.place.index_select(0, cells)
        if real is not None:
            place = torch.where(real, place, self.nowhere)
        return Entries(cells, slots, place + slots * self.per_slot, self.reads(cells, slots))

    def reads(self, cells: Tensor, slots: Tensor) -> Int[Tensor, " reads"]:
        """Where the stretches begin that kernels at these cells read."""
        return (self.taps.index_select(0, cells) + (slots * self.per_slot)[:, None]).flatten()


class Spans:
    """From where the spans of the slots begin and end to the entries of all levels.

    A cell of the ul stream is evaluated when its first pixel lies in the span. A row of the u stream, which knows the
    rows above, when its first pixel does: then, and only then, an input of it may have changed.

    Args:
        layout: of the images.
        slots: how many.
        window: pixels of a span.
        compact: leave out what a span does not cover; otherwise every call has the same shapes, as a captured CUDA
            graph needs, and what is not covered is computed in vain.
        device: of the tables.
    """

    def __init__(self, layout: Layout, slots: int, window: int, *, compact: bool, device: torch.device) -> None:
        self.pixels, self.compact, self.window = layout.height * layout.width, compact, window
        rows = min(layout.height, -(-(window - 1) // layout.width) + 1)  # that a span can touch
        self.grids = []
        for level in range(LEVELS):
            depth = -(-(rows - 1) // (1 << level)) + 2
            self.grids.append(Grid(layout.height >> level, layout.width >> level, depth, slots, device))
        row, column = self.grids[0].row, self.grids[0].column
        self.is_cell, self.is_row, self.cell = [], [], []
        for level, grid in enumerate(self.grids):
            self.is_cell.append((row % (1 << level) == 0) & (column % (1 << level) == 0))
            self.is_row.append(self.is_cell[-1] & (column == 0))
            self.cell.append((row >> level) * grid.width + (column >> level))
        self.slots = torch.arange(slots, device=device)[:, None].expand(slots, window).flatten()
        self.ahead = torch.arange(window, device=device)
        self.columns = [torch.arange(grid.width, device=device) for grid in self.grids]
        self.cell_room = [slots * self._most(mask) for mask in self.is_cell]
        self.row_room = [slots * self._most(mask) for mask in self.is_row]

    def _most(self, mask: Tensor) -> int:
        """How many of the marked pixels a span can hold."""
        counted = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)])
        width = min(self.window, self.pixels)
        return int((counted[width:] - counted[:-width]).max())

    def entries(
        self, first: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> tuple[list[Entries], list[Entries], Bool[Tensor, " n"] | None]:
        """The entries of the u and of the ul stream by level, and which pixels are real (None: all of them).

        Args:
            first, stop: in pixels; a slot's span is [first, stop), empty where they are equal.
        """
        pixels = (first[:, None] + self.ahead).flatten()
        inside = pixels < stop.repeat_interleave(self.window)
        pixels, slots, real = self._chosen(pixels, self.slots, inside, len(pixels))
        u, ul = [], []
        for level, grid in enumerate(self.grids):
            cells, on, there = pixels, slots, real
            if level > 0:
                cells, on, there = self._marked(pixels, slots, real, self.is_cell[level], self.cell_room[level])
                cells = self.cell[level].index_select(0, cells)
            ul.append(grid.entries(cells, on, there))
            starts, on, there = self._marked(pixels, slots, real, self.is_row[level], self.row_room[level])
            row = (self.cell[level].index_select(0, starts)[:, None] + self.columns[level]).flatten()
            there = None if there is None else there.repeat_interleave(grid.width)
            u.append(grid.entries(row, on.repeat_interleave(grid.width), there))
        return u, ul, real

    def _marked(self, pixels: Tensor, slots: Tensor, real: Tensor | None, marks: Tensor, room: int) -> Chosen:
        marked = marks.index_select(0, pixels)
        return self._chosen(pixels, slots, marked if real is None else marked & real, room)

    def _chosen(self, pixels: Tensor, slots: Tensor, mask: Tensor, room: int) -> Chosen:
        """The masked ones; in a fixed shape as many as there is room for, and which of them are real."""
        if self.compact:
            index = mask.nonzero().flatten()
            return pixels.index_select(0, index), slots.index_select(0, index), None
        index = mask.to(torch.int8).argsort(descending=True, stable=True)[:room]
        chosen = mask[index]
        return torch.where(chosen, pixels[index], 0), slots[index], chosen
