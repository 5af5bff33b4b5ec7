"""What an ARM, a forecaster, a sampler's state and a finished sample are.

Everything is flat: `x: Int (batch, dims)`, `logits, noise: Float (batch, dims, categories)`, in the order of `Layout`.
This module knows no network and no sampler.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from arm_core.decision import Decision
from arm_core.errors import InputError
from arm_core.gumbel import NoiseSource
from arm_core.layout import Layout


class ArmOutput(NamedTuple):
    """One evaluation of an ARM; row i of both tensors depends on x_<i only."""

    logits: Float[Tensor, "batch dims categories"]
    hidden: Float[Tensor, "batch dims features"]


class AutoregressiveModel(nn.Module):
    """An ARM: it maps a flat integer sequence to logits that are strictly triangular in it.

    Subclass it, call `super().__init__(layout, hidden_features)` and write `forward`. `arm_core.testing` proves
    whether the triangularity holds. An ARM that is conditioned takes one context per sample, of any kind, as a second
    argument: `forward(x, context=None)`.

    Attributes:
        layout: shape and categories of the images.
        hidden_features: features of `ArmOutput.hidden` per dimension (0 when there is nothing to offer).
    """

    def __init__(self, layout: Layout, hidden_features: int) -> None:
        super().__init__()
        self.layout = layout
        self.hidden_features = hidden_features

    def forward(self, x: Int[Tensor, "batch dims"]) -> ArmOutput:
        """Logits and hidden features of every dimension, in one pass."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x) -> ArmOutput")

    recordable: bool = False
    """Whether `forward` on a GPU can be recorded as a CUDA graph, see `arm_core.samplers.recorded`."""
    granule: int | None = None
    """Dims that spans of this ARM begin and end on (a PixelCNN: the channels of a pixel); None: it has no spans."""
    seam: int | None = None
    """Dims of a row, where a span that goes on into the next one costs much more than its dims; None: it does not."""

    native: bool = False
    """Whether its spans have kernels in C++ (`arm_core.native`)."""

    def span_cache(self, slots: int, window: int) -> "SpanCache":
        """An empty cache for `slots` samples, to evaluate spans of at most `window` dims, rounded up to granules.

        Raises:
            InputError: this ARM evaluates whole images only.
        """
        raise InputError(
            f"{type(self).__name__} has no cached windows, so window={window} is not possible; leave window out "
            "for the whole image, or define `granule` and `span_cache` (arm_core.contracts.SpanCache)"
        )

    def recorded_cache(self, slots: int, window: int) -> "SpanCache":
        """The same, for steps that are recorded where calls have fixed shapes (`arm_core.samplers.recorded`)."""
        return self.span_cache(slots, window)

    def example_contexts(self, count: int) -> "Contexts | None":
        """Contexts to check an ARM that is conditioned with (`harness check`); None: it takes none, or offers none."""
        return None

    def log_prob(self, x: Int[Tensor, "batch dims"]) -> Float[Tensor, " batch"]:
        """log P(x) in nats, summed over the dimensions."""
        return log_likelihood(self(x).logits, x).sum(dim=1)


class SpanOutput(NamedTuple):
    """What an evaluation of spans gives: a row for each dimension that it covered, in any order.

    Attributes:
        where: slot * dims + dimension of each row; rows at slots * dims and beyond only fill up a fixed shape.
        logits, hidden: as in `ArmOutput`.
        work: of the call, in full passes of one image.
    """

    where: Int[Tensor, " n"]
    logits: Float[Tensor, "n categories"]
    hidden: Float[Tensor, "n features"]
    work: float


@runtime_checkable
class SpanCache(Protocol):
    """An ARM that evaluates a span of each slot on top of what earlier calls left: each slot at its own place.

    Two more methods may be there. `begin(slots: list[int], contexts)` is told the contexts, one per slot, of samples
    that slots begin, if there are any, and may return the work of it. `narrowed(width)` gives the same cache for spans
    of at most `width` dims, for caches whose calls have fixed shapes. Where recorded calls can become stale, an
    attribute `version` changes when they do.

    The caller promises that every dimension i before `start` was evaluated since the slot's sample began, and last with
    the x_<i that `x` holds now. A slot begins a new sample by a span that starts at 0; nothing needs to be cleared.

    Attributes:
        window: most dims of a span.
    """

    window: int

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """Evaluate the dimensions [start, stop) of each slot, none where they are equal.

        Args:
            x: of which each row i of the result depends on x_<i only.
            start, stop: multiples of the ARM's granule.
        """
        ...


def log_likelihood(
    logits: Float[Tensor, "batch dims categories"], x: Int[Tensor, "batch dims"]
) -> Float[Tensor, "batch dims"]:
    """log P(x_i | x_<i) of every dimension in nats."""
    return logits.log_softmax(dim=-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)


@dataclass
class SamplerState:
    """What a sampler knows between two calls, and all that a forecaster may read. The step changes it in place.

    The buffers span the whole image; each evaluated span is written into them, so that one forecaster serves whole
    images and windows alike. What is large is kept only for a forecaster that reads it: `hidden`, `logits`, `margins`
    and `modes` are kept from the first time that they are asked for.

    Attributes:
        layout: shape and categories of the images.
        noise: of the sample in each slot: `noise.at(slots, dims)`.
        decision: how rows of logits and noise become categories: `decision(logits, noise).values`.
        x: the sequence; right in [0, known), without meaning beyond.
        known: the frontier of every slot: how many leading dimensions are final.
        start, stop: the span of the next evaluation is [start, stop).
        fed: the sequence that the last evaluation was given.
        outputs: the category that the last evaluation of each dimension decided on; 0 where not `evaluated`.
        evaluated: which dimensions some evaluation has covered.
        hidden_features: of the ARM.
        readings: what is kept beyond that, by name; one slot and one dimension more than there are.
    """

    layout: Layout
    noise: NoiseSource
    decision: Decision
    x: Int[Tensor, "slots dims"]
    known: Int[Tensor, " slots"]
    start: Int[Tensor, " slots"]
    stop: Int[Tensor, " slots"]
    fed: Int[Tensor, "slots dims"]
    outputs: Int[Tensor, "slots dims"]
    evaluated: Bool[Tensor, "slots dims"]
    hidden_features: int = 0
    readings: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_known(self) -> Bool[Tensor, "slots dims"]:
        """Which dimensions are final."""
        positions = torch.arange(self.layout.dims, device=self.x.device)
        return positions < self.known[:, None]

    @property
    def hidden(self) -> Float[Tensor, "slots dims features"]:
        """The hidden features that the last evaluation of each dimension gave; 0 where not `evaluated`."""
        return self._reading("hidden", (self.hidden_features,), self.noise.dtype)

    @property
    def logits(self) -> Float[Tensor, "slots dims categories"]:
        """The ARM's logits, likewise. Large where there are many categories; `margins` and `modes` are not."""
        return self._reading("logits", (self.layout.categories,), self.noise.dtype)

    @property
    def margins(self) -> Float[Tensor, "slots dims"]:
        """By how much the best of logits + noise led the second, likewise (in units of the logits)."""
        return self._reading("margins", (), self.noise.dtype)

    @property
    def modes(self) -> Int[Tensor, "slots dims"]:
        """The most likely category whatever the noise, likewise."""
        return self._reading("modes", (), torch.int64)

    def _reading(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        slots, dims = self.x.shape
        if name not in self.readings:
            if bool(self.evaluated.any()):
                raise InputError(
                    f"this state keeps no {name}: read state.{name} in the first call already, so that it is kept"
                )
            self.readings[name] = torch.zeros(slots + 1, dims + 1, *shape, dtype=dtype, device=self.x.device)
        return self.readings[name][:slots, :dims]


Contexts = Tensor | Sequence[Any]
"""One context per sample: a tensor whose first axis counts the samples, or a list."""


def select_contexts(contexts: Contexts, rows: Sequence[int]) -> Contexts:
    """The contexts of some samples."""
    return contexts[list(rows)] if isinstance(contexts, Tensor) else [contexts[row] for row in rows]


def recordable(forecaster: Callable[[SamplerState], Tensor]) -> Callable[[SamplerState], Tensor]:
    """Mark a forecaster that can be recorded, on a GPU or a CPU: no value of a tensor goes through Python in it."""
    forecaster.recordable = True  # type: ignore[attr-defined]
    return forecaster


Forecaster = Callable[[SamplerState], Tensor]
"""A guess at the rest of the sequence: state -> Int (slots, dims), of which only [known, stop) is read.

It must not change the state's tensors. A wrong forecaster can cost calls but never changes a sample; values outside
0 .. categories - 1 are clamped.
"""


@dataclass(frozen=True)
class SampleTrace:
    """Finished samples and how they came to be.

    Attributes:
        x: the samples, flat.
        arm_calls: calls in which each sample took part until it was final.
        arm_work: full-pass equivalents each sample cost: every evaluated dimension / dims, waiting items included and
            shared among the samples that were still unfinished.
        converged_at: 1-based call in which the frontier passed each dimension; never decreases along the dimensions.
        settled_at: first call from which the output of each dimension stayed final (the convergence maps).
        mistakes: the forecast that was fed differed from the final value when the frontier passed.
        window: dims that a call evaluated of the sample at most, when it finished.
        overruled: where a proof decided otherwise than the sample that it was given, by how much its best of logits +
            noise led the second there; 0 elsewhere. Rounding explains a lead as small as the errors of logits; a
            larger one is a fault of whatever drew the sample.
    """

    x: Int[Tensor, "batch dims"]
    arm_calls: Int[Tensor, " batch"]
    arm_work: Float[Tensor, " batch"]
    converged_at: Int[Tensor, "batch dims"]
    settled_at: Int[Tensor, "batch dims"]
    mistakes: Bool[Tensor, "batch dims"]
    window: Int[Tensor, " batch"]
    overruled: Float[Tensor, "batch dims"]

    @property
    def repairs(self) -> Int[Tensor, " batch"]:
        """How often a proof found a sample wrong, which then went on from there; 0 where nothing was proved."""
        return (self.overruled > 0).sum(dim=1)

    def split(self) -> "list[SampleTrace]":
        """The traces of the samples, each a batch of one."""
        parts = [getattr(self, each.name).split(1) for each in fields(SampleTrace)]
        return [SampleTrace(*part) for part in zip(*parts, strict=True)] if len(self.x) else []

    @staticmethod
    def joined(traces: "Sequence[SampleTrace]") -> "SampleTrace":
        """One batch of some, at least one."""
        names = [each.name for each in fields(SampleTrace)]
        return SampleTrace(**{name: torch.cat([getattr(trace, name) for trace in traces]) for name in names})
