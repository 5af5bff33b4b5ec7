"""Samples in work: each in a slot, at its own place in its own image, and what each has cost so far.

Everything here is changed in place, since a call touches a small part of it, by `arm_core.samplers.step`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import (
    AutoregressiveModel,
    Contexts,
    Forecaster,
    SamplerState,
    SampleTrace,
    SpanCache,
    SpanOutput,
    select_contexts,
)
from arm_core.decision import Decision
from arm_core.gumbel import DenseNoise, KeyedNoise, NoiseSource
from arm_core.layout import Layout

DENSE_BYTES = 2**25
"""Noise of all slots up to this size is drawn once a sample and kept; more is evaluated where it is asked for."""
DECIDED_AT_ONCE = {"cpu": 2**20, "cuda": 2**23}
"""Logits that are decided at a time, by device: what a decision needs beside them stays small, launches few."""


class WholeImages:
    """A `SpanCache` of any ARM: whole images, evaluated anew at every call.

    Args:
        arm: any ARM.
        compact: leave out slots whose span is empty; otherwise every call has the same shape.
    """

    def __init__(self, arm: AutoregressiveModel, *, compact: bool = True) -> None:
        self.arm, self.window, self.compact = arm, arm.layout.dims, compact
        self.recordable = arm.recordable and not compact
        self.contexts: dict[int, Contexts] = {}

    def begin(self, slots: list[int], contexts: Contexts) -> None:
        """See `SpanCache`."""
        self.recordable = False  # contexts may be anything
        self.contexts |= {slot: select_contexts(contexts, [row]) for row, slot in enumerate(slots)}

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`; a span that is not empty is the whole image."""
        busy = (start < stop).nonzero().flatten() if self.compact else torch.arange(len(x), device=x.device)
        logits, hidden = self.arm(x[busy] if self.compact else x, **self._conditions(busy))
        index = busy[:, None] * self.window + torch.arange(self.window, device=x.device)
        return SpanOutput(index.flatten(), logits.flatten(0, 1), hidden.flatten(0, 1), float(len(busy)))

    def _conditions(self, busy: Tensor) -> dict[str, Contexts]:
        if not self.contexts or len(busy) == 0:
            return {}
        chosen = [self.contexts[slot] for slot in busy.tolist()]
        tensors = [one for one in chosen if isinstance(one, Tensor)]
        return {"context": torch.cat(tensors) if tensors else [one for part in chosen for one in part]}


class SlotNoise:
    """The noise of the sample that each slot holds, as a `NoiseSource` whose rows are slots. Changed by `begin`.

    Args:
        source: of the samples that will come.
        slots: how many; one more takes what only fills up a shape.
        layout: of the samples.
    """

    def __init__(self, source: NoiseSource, slots: int, layout: Layout) -> None:
        self.source, self.slots, self.dtype, self.device = source, slots, source.dtype, source.device
        self._rows = torch.zeros(slots + 1, dtype=torch.int64, device=source.device)
        self._dense: DenseNoise | None = None
        size = (slots + 1) * layout.dims * layout.categories * source.dtype.itemsize
        if isinstance(source, KeyedNoise) and size <= DENSE_BYTES:
            shape = (slots + 1, layout.dims, layout.categories)
            self._dense = DenseNoise(torch.zeros(shape, dtype=source.dtype, device=source.device))
        self.recordable = self._dense is not None or getattr(source, "recordable", False)

    def __len__(self) -> int:
        return self.slots

    def begin(self, slots: list[int], rows: list[int]) -> None:
        """Slots hold the samples of these rows of the source from now on."""
        at = torch.tensor(slots, dtype=torch.int64, device=self.device)
        if self._dense is not None and isinstance(self.source, KeyedNoise):
            self._dense.noise[at] = self.source.dense(rows)
        else:
            self._rows[at] = torch.tensor(rows, dtype=torch.int64, device=self.device)

    def at(self, rows: Int[Tensor, " n"], dims: Int[Tensor, " n"]) -> Float[Tensor, "n categories"]:
        """See `NoiseSource`."""
        if self._dense is not None:
            return self._dense.at(rows, dims)
        return self.source.at(self._rows.index_select(0, rows), dims)


class Work:
    """A fixed number of slots; `begin` puts samples into them, `step` (a function) takes them on by one call.

    Every buffer has one slot and one dimension more than there are: what only fills up a shape is written there.

    Args:
        arm: any ARM.
        slots: how many.
        cache: evaluates spans of the ARM.
        forecaster: guesses the dimensions past the frontiers.
        noise: of the samples that will come, see `begin`.
        decision: how rows are decided.
    """

    def __init__(
        self,
        arm: AutoregressiveModel,
        slots: int,
        cache: SpanCache,
        forecaster: Forecaster,
        noise: NoiseSource,
        decision: Decision,
    ) -> None:
        layout = arm.layout
        self.noise, self.decision = SlotNoise(noise, slots, layout), decision
        self.slots, self.dims, self.forecaster = slots, layout.dims, forecaster
        self.granule = arm.granule if cache.window < self.dims and arm.granule else self.dims
        self.cache, self._caches = cache, {cache.window: cache}
        whole = torch.zeros(slots + 1, self.dims + 1, dtype=torch.int64, device=noise.device)
        flags = torch.zeros_like(whole, dtype=torch.bool)
        self.x, self.fed, self.converged_at, self.settled_at = (whole.clone()[:slots] for _ in range(4))
        self.mistakes = flags.clone()[:slots]
        self._decided = whole.flatten(), flags.flatten(), torch.zeros_like(whole, dtype=torch.int8).flatten()
        self.outputs, self.evaluated, self.faults = (buffer.view_as(whole)[:slots] for buffer in self._decided)
        self.calls, self.window = (torch.zeros(slots, dtype=torch.int64, device=noise.device) for _ in range(2))
        self.work = torch.zeros(slots, dtype=torch.float64, device=noise.device)
        self.ahead = torch.arange(cache.window, device=noise.device)
        self.full = torch.full_like(self.calls, self.dims)
        self.reached = self.full.clone()  # how far a slot has been evaluated; behind the frontier in a prefix only
        x, fed, outputs, evaluated = (
            buffer[:, : self.dims] for buffer in (self.x, self.fed, self.outputs, self.evaluated)
        )
        self.state = SamplerState(
            layout=layout,
            noise=self.noise,
            decision=decision,
            x=x,
            known=self.full.clone(),
            start=self.full.clone(),
            stop=self.full.clone(),
            fed=fed,
            outputs=outputs,
            evaluated=evaluated,
            hidden_features=arm.hidden_features,
        )

    def begin(
        self,
        slots: list[int],
        rows: list[int],
        prefix: Int[Tensor, "new known"] | None = None,
        contexts: Contexts | None = None,
    ) -> None:
        """Put new samples into slots.

        Args:
            slots: that hold none, or a finished one.
            rows: of the noise, one a slot.
            prefix: the leading dimensions that are known beforehand.
            contexts: one a slot.
        """
        at = torch.tensor(slots, dtype=torch.int64, device=self.x.device)
        self.noise.begin(slots, rows)
        buffers = [self.x, self.fed, self.outputs, self.evaluated, self.converged_at, self.settled_at, self.mistakes]
        for buffer in [*buffers, self.faults, self.reached, self.calls, self.work, self.window]:
            buffer.index_fill_(0, at, 0)
        for reading in self.state.readings.values():
            reading.index_fill_(0, at, 0)
        known = 0 if prefix is None else prefix.shape[1]
        if prefix is not None:
            self.x[at, :known] = prefix.to(self.x)
        self.state.known.index_fill_(0, at, known)
        if contexts is not None:
            cost = self.cache.begin(slots, contexts)  # type: ignore[attr-defined]
            self.work[at] += (cost or 0.0) / len(slots)

    @property
    def version(self) -> tuple[int, int]:
        """Changes when what was recorded of calls no longer holds."""
        return getattr(self.cache, "version", 0), len(self.state.readings)

    def spans(self, width: int | None = None) -> tuple[Int[Tensor, " slots"], int]:
        """(start, width) of spans that begin at the frontiers; slots that hold nothing to do have an empty one.

        Args:
            width: dims, rounded up to granules; None or more than the cache takes: all that it takes.
        """
        start = self.progress().div(self.granule, rounding_mode="floor") * self.granule
        return torch.where(self.state.known < self.dims, start, self.dims), self.wide(width)

    def wide(self, width: int | None) -> int:
        """The width in dims that spans of a width that was asked for have, see `spans`."""
        return len(self.ahead) if width is None else min(-(-width // self.granule) * self.granule, len(self.ahead))

    @property
    def recordable(self) -> bool:
        """Whether all but the forecaster can be recorded, see `arm_core.samplers.recorded`; once samples have begun."""
        parts = (self.cache, self.noise, self.decision)
        return all(getattr(part, "recordable", False) for part in parts)

    def place(self, start: Int[Tensor, " slots"], width: int, seam: int | None = None) -> Int[Tensor, "slots width"]:
        """Set the spans of the next evaluation; returns their dims, and `dims`, which is not kept, past their ends.

        A span ends at its width or the end of the image; with a seam at the last multiple of it that it reaches.
        """
        stop = self.ends(start, width, seam)
        self.state.start.copy_(start)
        self.state.stop.copy_(stop)
        self.reached.copy_(stop)
        places = start[:, None] + self.ahead[:width]
        return torch.where(places < stop[:, None], places, self.dims)

    def ends(self, start: Int[Tensor, " n"], width: int, seam: int | None = None) -> Int[Tensor, " n"]:
        """Where spans end, see `place`."""
        stop = (start + width).clamp_max(self.dims)
        if seam is None:
            return stop
        last = stop.div(seam, rounding_mode="floor") * seam
        return torch.where(last > start, last, stop)

    def feed(self, places: Int[Tensor, "slots width"], fed: Int[Tensor, "slots width"]) -> Int[Tensor, "slots width"]:
        """Let the next evaluation see these values; returns what was put out there before, -1 where nothing was."""
        before = torch.where(self.evaluated.gather(1, places), self.outputs.gather(1, places), -1)
        self.x.scatter_(1, places, fed)
        self.fed.scatter_(1, places, fed)
        return before

    def keep(self, places: Int[Tensor, "slots width"], said: Int[Tensor, "slots width"]) -> None:
        """Make these the outputs, and the sequence, as far as it is known."""
        self.x.scatter_(1, places, said)
        self.outputs.scatter_(1, places, said)

    def evaluate(self, width: int) -> float:
        """One call of the ARM on the spans of the state, decided and written into the buffers; returns its work."""
        state, cache = self.state, self._cache(width)
        found = cache.evaluate(state.x, state.start, state.stop)
        rows = max(1, DECIDED_AT_ONCE.get(self.x.device.type, 2**20) // state.layout.categories)
        for first in range(0, len(found.where), rows):
            where, logits, hidden = (part[first : first + rows] for part in found[:3])
            self._decide(SpanOutput(where, logits, hidden, found.work))
        return found.work

    def _decide(self, found: SpanOutput) -> None:
        slot = found.where.div(self.dims, rounding_mode="floor")
        noise = self.noise.at(slot, found.where - slot * self.dims)
        decided = self.decision(found.logits, noise)
        at = found.where + slot  # a dimension more a slot
        outputs, evaluated, faults = self._decided
        outputs.index_copy_(0, at, decided.values)
        evaluated.index_fill_(0, at, True)
        faults.index_copy_(0, at, decided.faults)
        for name, reading in self.state.readings.items():
            if name == "margins":
                best = decided.scores.topk(2, dim=-1).values
                values = best[:, 0] - best[:, 1]
            else:
                values = found.logits.argmax(dim=-1) if name == "modes" else getattr(found, name)
            reading.flatten(0, 1).index_copy_(0, at, values.to(reading.dtype))

    def _cache(self, width: int) -> SpanCache:
        """The cache for spans of this width."""
        if width not in self._caches:
            narrowed = getattr(self.cache, "narrowed", None)
            self._caches[width] = self.cache if narrowed is None else narrowed(width)
        return self._caches[width]

    def end_at(self, ends: Sequence[int]) -> None:
        """Finish the samples that hold one of these categories among their final dimensions: it fills what follows."""
        state, places = self.state, torch.arange(self.dims, device=self.x.device)
        is_end = torch.isin(state.x, state.x.new_tensor(ends)) & state.is_known
        first = torch.where(is_end, places, self.dims).amin(dim=1, keepdim=True)
        after, calls = places > first, self.calls[:, None]
        filling = state.x.gather(1, first.clamp_max(self.dims - 1))
        for buffer, value in ((self.x, filling), (self.converged_at, calls), (self.settled_at, calls)):
            inner = buffer[: self.slots, : self.dims]
            inner.copy_(torch.where(after, value, inner))
        for buffer in (self.mistakes, self.faults):
            buffer[: self.slots, : self.dims].masked_fill_(after, 0)
        state.known.masked_fill_(first[:, 0] < self.dims, self.dims)

    def progress(self) -> Int[Tensor, " slots"]:
        """Dims of each slot that are final; of a prefix those that have been evaluated."""
        return torch.minimum(self.state.known, self.reached)

    def all_behind(self, known: int) -> bool:
        """Whether the widest spans of all that are unfinished end within the first `known` dims."""
        ends = torch.where(self.state.known < self.dims, self.progress() + len(self.ahead), 0)
        return 0 < int(ends.max()) <= known

    def finished(self) -> list[bool]:
        """Which slots hold a finished sample, or none."""
        done: list[bool] = (self.state.known >= self.dims).tolist()
        return done

    def traces(self, slots: list[int]) -> list[SampleTrace]:
        """The traces of the samples in these slots, each a batch of one; right once they are finished."""
        return self.trace(torch.tensor(slots, device=self.x.device)).split() if slots else []

    def trace(self, slots: Int[Tensor, " chosen"] | slice = slice(None)) -> SampleTrace:
        """The trace of the samples in these slots; right once they are finished.

        Raises:
            InputError: nothing was left to choose from at some dimension of them.
        """
        x, converged_at, settled_at, mistakes, faults = (
            buffer[slots, : self.dims].clone()
            for buffer in (self.x, self.converged_at, self.settled_at, self.mistakes, self.faults)
        )
        if bool(faults.any()):
            decided = torch.where(converged_at > 0, faults, 0)  # a prefix is nobody's decision
            for sample, dim in decided.nonzero()[:1].tolist():
                raise self.decision.error(int(decided[sample, dim]), dim)
        return SampleTrace(
            x=x,
            arm_calls=self.calls[slots].clone(),
            arm_work=self.work[slots].clone(),
            converged_at=converged_at,
            settled_at=settled_at,
            mistakes=mistakes,
            window=self.window[slots].clone(),
            overruled=torch.zeros_like(x).double(),
        )
