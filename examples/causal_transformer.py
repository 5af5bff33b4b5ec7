"""An ARM of one's own: a causal transformer over the dimensions of an image, with the cache that gives it windows.

    harness check examples/causal_transformer.py:CausalTransformer
    harness sweep examples/sweep.yaml

A transformer gets its speed at sampling from a key-value cache. Here the cache evaluates a span of several dimensions
of each slot at once, so a sampler may forecast some of them, and confirm them in the same call:

    sample_many(arm, count=64, seed=10, slots=16)              # windows, chosen while sampling
    sample_many(arm, count=64, seed=10, slots=16, window=1)    # the usual one dimension a call
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arm_core import ArmOutput, AutoregressiveModel, InputError, Layout
from arm_core.contracts import SpanOutput


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a `CausalTransformer`: `layers` blocks of `width` features, with `heads` heads of attention each."""

    layers: int = 4
    width: int = 64
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads) < 1:
            raise InputError(f"layers, width and heads must be at least 1, got {self}")
        if self.width % self.heads:
            nearest = max(1, round(self.width / self.heads)) * self.heads
            raise InputError(
                f"width must be a multiple of the heads ({self.heads}), got {self.width}; nearest: {nearest}"
            )


class CausalTransformer(AutoregressiveModel):
    """Row i reads the values one dimension before it and one image row above it, and attends to the rows before it.

    Args:
        layout: any.
        config: its size.
    """

    granule = 1  # spans may begin and end at any dimension

    def __init__(self, layout: Layout, config: TransformerConfig) -> None:
        super().__init__(layout, hidden_features=config.width)
        self.config = config
        width, values = config.width, layout.categories + 1  # one value more: outside the image
        self.before, self.above = nn.Embedding(values, width), nn.Embedding(values, width)
        sizes = layout.height, layout.width, layout.channels
        self.places = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.register_buffer("coordinates", torch.from_numpy(layout.coordinates()), persistent=False)
        self.blocks = nn.ModuleList(_Block(width, config.heads) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, layout.categories)

    def forward(self, x: Tensor) -> ArmOutput:
        """Logits and hidden features of every dimension, in one pass."""
        rows = self.embed(x, torch.arange(self.layout.dims, device=x.device).expand_as(x))
        for block in self.blocks:
            rows = block(rows, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        hidden = self.norm(rows)
        return ArmOutput(self.head(hidden), hidden)

    def embed(self, x: Tensor, at: Tensor) -> Tensor:
        """(batch, n, width): what each dimension `at` (batch, n) knows before any attention: x_<at only."""
        up = self.layout.width * self.layout.channels
        padded = F.pad(x, (up, 0), value=self.layout.categories)  # x_i stands at i + up
        where = self.coordinates[at].unbind(-1)
        known = self.before(padded.gather(1, at + up - 1)) + self.above(padded.gather(1, at))
        return known + sum(place(index) for place, index in zip(self.places, where, strict=True))

    def span_cache(self, slots: int, window: int) -> "KeyValueCache":
        """See `AutoregressiveModel`."""
        return KeyValueCache(self, slots, window)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, rows: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """`attend` takes queries, keys and values (batch, heads, n, features) and gives (batch, heads, n, features)."""
        parts = self.queries_keys_values(self.norm(rows)).unflatten(-1, (3, self.heads, -1))
        seen = attend(*parts.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
        rows = rows + self.mix(seen)
        return rows + self.feed(rows)


class KeyValueCache:
    """The `SpanCache` of a transformer: the keys and values of every dimension, by slot and place.

    A span's rows are computed anew and their keys and values overwritten; a row attends to the places up to its own, so
    what lies beyond it, of earlier forecasts or of an earlier sample, is never read.

    Args:
        arm: in its final dtype and on its device.
        slots: how many samples are in work.
        window: most dims of a span.
    """

    def __init__(self, arm: CausalTransformer, slots: int, window: int) -> None:
        self.arm, self.dims, self.window = arm, arm.layout.dims, min(window, arm.layout.dims)
        width, heads, layers = arm.config.width, arm.config.heads, arm.config.layers
        shape = layers, 2, slots, self.dims + 1, heads, width // heads  # the last place takes what fills up a span
        self.kept = arm.head.weight.new_zeros(shape)
        linear = [part.weight.numel() for part in arm.blocks.modules() if isinstance(part, nn.Linear)]
        self.row_cost, self.key_cost, self.head_cost = sum(linear), 2 * layers * width, arm.head.weight.numel()

    def evaluate(self, x: Tensor, start: Tensor, stop: Tensor) -> SpanOutput:
        """See `SpanCache`."""
        busy = (start < stop).nonzero().flatten()
        x, start, stop = x[busy], start[busy, None], stop[busy, None]
        ahead, reach = torch.arange(int((stop - start).max()), device=x.device), int(stop.max())
        inside = start + ahead < stop
        at = torch.where(inside, start + ahead, self.dims)
        may_read = (torch.arange(reach, device=x.device) <= at[:, :, None])[:, None]
        rows = self.arm.embed(x, at.clamp_max(self.dims - 1))
        for block, kept in zip(self.arm.blocks, self.kept, strict=True):
            rows = block(rows, lambda q, k, v, kept=kept: self._attend(kept, busy, at, q, k, v, may_read))
        hidden = self.arm.norm(rows[inside])
        where = (busy[:, None] * self.dims + at)[inside]
        return SpanOutput(where, self.arm.head(hidden), hidden, self._work(at.numel(), reach, len(where)))

    def _attend(
        self, kept: Tensor, busy: Tensor, at: Tensor, q: Tensor, k: Tensor, v: Tensor, may_read: Tensor
    ) -> Tensor:
        kept[:, busy[:, None], at] = torch.stack([k, v]).transpose(2, 3)
        whole = kept if len(busy) == kept.shape[1] else kept[:, busy]  # a view, unless some slots are idle
        keys, values = whole[:, :, : may_read.shape[-1]].transpose(2, 3)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=may_read)

    def _work(self, rows: int, reach: int, outputs: int) -> float:
        whole = self.dims * (self.row_cost + self.dims * self.key_cost + self.head_cost)
        return (rows * (self.row_cost + reach * self.key_cost) + outputs * self.head_cost) / whole
