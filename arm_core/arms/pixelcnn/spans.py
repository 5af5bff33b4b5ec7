"""PixelCNN on spans: some pixels of every slot, on top of the activations that earlier calls left."""

import copy

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.arms.pixelcnn.cells import SpanCells, build_grids
from arm_core.arms.pixelcnn.compiled import CompiledLayers
from arm_core.arms.pixelcnn.layers import Trunk, label_rows
from arm_core.arms.pixelcnn.span_layers import SpanLayers
from arm_core.contracts import Contexts, SpanOutput
from arm_core.errors import InputError
from arm_core.native import serves
from arm_core.product import is_prepared


class PixelCNNSpans:
    """The `SpanCache` of a PixelCNN (`arm_core.contracts`).

    Args:
        trunk: in its final dtype and on its device; later changes of its weights go unnoticed.
        slots: how many samples are in work; none has a label before `begin` says so.
        window: most dims of a span, rounded up to whole pixels.
        compact: see `SpanCells`.
    """

    @torch.no_grad()
    def __init__(self, trunk: Trunk, slots: int, window: int, *, compact: bool = True) -> None:
        self.layout, self.slots, self.classes = trunk.layout, slots, trunk.config.classes
        layout, weight = self.layout, trunk.head.weight
        self.pixels = layout.height * layout.width
        pixels = self._pixels(window)
        self.window, self.recordable = pixels * layout.channels, not compact
        self.grids = grids = build_grids(layout, slots, pixels, weight.device)
        self.cells = SpanCells(grids, slots, pixels, compact=compact, rounded=is_prepared(weight))
        self.channels = torch.arange(layout.channels, device=weight.device)
        memory = torch.classes.arm_core.Memory(weight) if compact and serves(weight) else None
        self.layers = SpanLayers(trunk, grids, weight.new_zeros if memory is None else memory.zeros)
        self.compiled = None if memory is None else CompiledLayers(self.layers, grids, memory)
        self._whole = sum(sum(cost) * grid.cells for cost, grid in zip(self.layers.costs, grids, strict=True))

    def _pixels(self, window: int) -> int:
        return min(-(-window // self.layout.channels), self.pixels)

    def narrowed(self, window: int) -> "PixelCNNSpans":
        """The same kept activations, for spans of at most `window` dims: fixed shapes are then as small as those."""
        other = copy.copy(self)
        pixels = min(self._pixels(window), self.window // self.layout.channels)
        other.window = pixels * self.layout.channels
        other.cells = SpanCells(self.grids, self.slots, pixels, compact=self.cells.compact, rounded=self.cells.rounded)
        return other

    def begin(self, slots: list[int], contexts: Contexts) -> None:
        """Give these slots the labels of their new samples, -1 for none."""
        device = self.channels.device
        labels = label_rows(contexts, self.classes, len(slots)).to(device)
        self.layers.begin(torch.tensor(slots, dtype=torch.int64, device=device), labels)

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`."""
        channels = self.layout.channels
        first, end = (dims.div(channels, rounding_mode="floor") for dims in (start, stop + channels - 1))
        if self.compiled is not None:
            if (widest := int((stop - start).max())) > self.window:
                raise InputError(f"a span has {widest} dims, and this cache is for {self.window}")
            ranges = self.cells.ranges(first, end)
            counts = (ranges[1] - ranges[0]).sum(dim=0).tolist()
            pixels, hidden, logits = self.compiled(x, *ranges)
        else:
            at, counts, padding = self.cells(first, end)
            hidden, logits = self.layers(x, at)
            pixels = at[0].ul.slots * self.pixels + at[0].ul.numbers
            if padding is not None:
                pixels = pixels.masked_fill(padding, self.slots * self.pixels)
        where = (pixels[:, None] * channels + self.channels).flatten()
        rows = hidden.reshape(len(where), hidden.shape[1] // channels)
        return SpanOutput(where, logits.view(-1, self.layout.categories), rows, self._work(counts))

    def _work(self, counts: list[int]) -> float:
        costs = [cost for pair in self.layers.costs for cost in pair]
        return sum(count * cost for count, cost in zip(counts, costs, strict=True)) / self._whole
