"""Classifier-free guidance around any ARM that is conditioned, as an ARM itself."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import ArmOutput, AutoregressiveModel, Contexts, SpanCache, SpanOutput
from arm_core.errors import InputError


class Guided(AutoregressiveModel):
    """Logits of the null context + scale * (logits of the sample's own context - those of the null context).

    Ho & Salimans, "Classifier-Free Diffusion Guidance" (2022), for logits. A sample takes two rows of one call, so that
    a full pass of this ARM is two of the ARM that it guides. Without a context it is that ARM without one.

    Args:
        arm: takes a context.
        scale: 0 follows the null context, 1 the context, more than 1 exaggerates what it changes.
        null_context: a single context that says nothing, as the ARM was trained with: -1 for a PixelCNN.

    Raises:
        InputError: the scale is not finite.
    """

    def __init__(self, arm: AutoregressiveModel, *, scale: float | int, null_context: object) -> None:
        super().__init__(arm.layout, arm.hidden_features)
        if not abs(scale) < float("inf"):
            raise InputError(f"the scale of guidance must be finite, got {scale}")
        self.arm, self.scale, self.null_context = arm, scale, null_context
        self.granule, self.seam, self.recordable, self.native = arm.granule, arm.seam, arm.recordable, arm.native

    def forward(self, x: Int[Tensor, "batch dims"], context: Contexts | None = None) -> ArmOutput:
        if context is None:
            return self.arm(x)
        logits, hidden = self.arm(torch.cat([x, x]), context=self.with_null(context))
        own, null = logits.chunk(2)
        return ArmOutput(self.guided(own, null), hidden[: len(x)])

    def guided(self, own: Float[Tensor, "*rows"], null: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """The guided logits; what either context rules out stays ruled out."""
        guided = null + self.scale * (own - null)
        return torch.where(torch.isneginf(own) | torch.isneginf(null), -torch.inf, guided)

    def with_null(self, context: Contexts) -> Contexts:
        """The contexts, then as many null contexts."""
        if isinstance(context, Tensor):
            null = torch.as_tensor(self.null_context, dtype=context.dtype, device=context.device)
            return torch.cat([context, null.expand_as(context)])
        return [*context, *([self.null_context] * len(context))]

    def example_contexts(self, count: int) -> Contexts | None:
        return self.arm.example_contexts(count)

    def span_cache(self, slots: int, window: int) -> "GuidedSpans":
        return GuidedSpans(self, slots, self.arm.span_cache(2 * slots, window))

    def recorded_cache(self, slots: int, window: int) -> "GuidedSpans":
        return GuidedSpans(self, slots, self.arm.recorded_cache(2 * slots, window))


class GuidedSpans:
    """The `SpanCache` of a guided ARM: slot s of it is the slots s and `slots` + s of the ARM's own cache."""

    def __init__(self, arm: Guided, slots: int, cache: SpanCache) -> None:
        self.arm, self.slots, self.cache, self.window = arm, slots, cache, cache.window
        self.recordable = getattr(cache, "recordable", False)

    @property
    def version(self) -> int:
        """See `SpanCache`."""
        return getattr(self.cache, "version", 0)

    def begin(self, slots: list[int], contexts: Contexts) -> float:
        """See `SpanCache`."""
        both = [*slots, *(slot + self.slots for slot in slots)]
        return (self.cache.begin(both, self.arm.with_null(contexts)) or 0.0) / 2  # type: ignore[attr-defined]

    def narrowed(self, width: int) -> "GuidedSpans":
        """See `SpanCache`."""
        narrowed = getattr(self.cache, "narrowed", None)
        return self if narrowed is None else GuidedSpans(self.arm, self.slots, narrowed(width))

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`."""
        found = self.cache.evaluate(torch.cat([x, x]), torch.cat([start, start]), torch.cat([stop, stop]))
        own_rows = self.slots * x.shape[1]
        row_at = found.where.new_zeros(2 * own_rows + x.shape[1])
        row_at[found.where] = torch.arange(len(found.where), device=x.device)
        own = found.where.argsort()[: len(found.where) // 2]  # rows of the own contexts come first; a fixed shape
        where = found.where[own]
        null = row_at[(where + own_rows).clamp_max(len(row_at) - 1)]
        logits = self.arm.guided(found.logits[own], found.logits[null])
        where = torch.where(where < own_rows, where, own_rows)  # what only fills a shape
        return SpanOutput(where, logits, found.hidden[own], found.work / 2)
