"""Samples in work, each at its own place in its own image, and the step that takes all of them on.

The step of `arm_core.samplers.step`, for spans: the forecaster fills [known, stop) of every slot, one call evaluates
[start, stop), and the prefix that it confirms is kept. Buffers change in place, since a call touches a small part of
them. Randomness enters as noise; which sample a slot holds is not known here.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SamplerState, SampleTrace, SpanCache, SpanOutput
from arm_core.samplers.step import forecasts


class WholeImages:
    """A `SpanCache` of any ARM: whole images, evaluated anew at every call, of the slots that are in work."""

    def __init__(self, arm: AutoregressiveModel) -> None:
        self.arm, self.window = arm, arm.layout.dims

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """Evaluate every slot whose span is not empty, from its first dimension on."""
        busy = (start < stop).nonzero().flatten()
        logits, hidden = self.arm(x[busy])
        index = busy[:, None] * self.window + torch.arange(self.window, device=x.device)
        return SpanOutput(index.flatten(), logits.flatten(0, 1), hidden.flatten(0, 1), float(len(busy)))


class Slots:
    """A fixed number of slots; `begin` puts a sample into one, `step` makes one call for all of them.

    Every buffer has one slot more, and those of the trace one dimension more, than there are: what only fills up a
    shape is written there.

    Args:
        arm: any ARM.
        slots: how many.
        cache: evaluates spans of the ARM.
        forecaster: guesses the dimensions past the frontiers.
    """

    def __init__(self, arm: AutoregressiveModel, slots: int, cache: SpanCache, forecaster: Forecaster) -> None:
        self.cache, self.forecaster = cache, forecaster
        self.granule = arm.granule if cache.window < arm.layout.dims and arm.granule else arm.layout.dims
        layout = arm.layout
        dims, categories = layout.dims, layout.categories
        weight = next((p for p in arm.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float64))
        integers = torch.zeros(slots + 1, dims + 1, dtype=torch.int64, device=weight.device)
        self._x, self._converged_at, self._settled_at, self._mistakes = (integers.clone() for _ in range(4))
        self._noise = weight.new_zeros(slots + 1, dims, categories)
        self._outputs = integers[:, :dims].clone()
        self._evaluated = torch.zeros_like(self._outputs, dtype=torch.bool)
        self._hidden = weight.new_zeros(slots + 1, dims, arm.hidden_features)
        self._logits = torch.zeros_like(self._noise)
        full = torch.full((slots,), dims, device=weight.device)
        self._reached = full.clone()  # how far a slot has been evaluated; behind the frontier only in a known prefix
        self._calls, self._window = torch.zeros_like(full), torch.zeros_like(full)
        self._work = torch.zeros_like(full, dtype=torch.float64)
        self._ahead = torch.arange(cache.window, device=weight.device)
        self.state = SamplerState(
            layout=layout,
            noise=self._noise[:slots],
            x=self._x[:slots, :dims],
            known=full,
            start=full,
            stop=full,
            fed=torch.zeros_like(self._outputs[:slots]),
            outputs=self._outputs[:slots],
            evaluated=self._evaluated[:slots],
            hidden=self._hidden[:slots],
            logits=self._logits[:slots],
        )

    def begin(
        self,
        slots: list[int],
        noise: Float[Tensor, "new dims categories"],
        prefix: Int[Tensor, "new known"] | None = None,
    ) -> None:
        """Put new samples into slots: their noise, and the leading dimensions that are known beforehand."""
        at = torch.tensor(slots, dtype=torch.int64, device=self._noise.device)
        known = 0 if prefix is None else prefix.shape[1]
        self._noise[at] = noise
        for buffer in (self._x, self._converged_at, self._settled_at, self._mistakes, self._outputs, self._evaluated):
            buffer[at] = 0
        self._hidden[at] = self._logits[at] = 0
        for counter in (self._reached, self._calls, self._work, self._window):
            counter[at] = 0
        if prefix is not None:
            self._x[at, :known] = prefix.to(self._x)
        frontier = self.state.known.clone()
        frontier[at] = known
        self.state = replace(self.state, known=frontier)

    def step(self, window: int | None = None) -> None:
        """One call: forecast, evaluate a span of each slot that is in work, keep the prefix that is confirmed.

        Args:
            window: dims of the spans, rounded up to granules; None or more than the cache takes: all that it takes.
        """
        state, dims = self.state, self.state.layout.dims
        wide = self.cache.window if window is None else -(-window // self.granule) * self.granule
        known, ahead = state.known, self._ahead[:wide]
        alive = known < dims
        start = torch.minimum(known, self._reached).div(self.granule, rounding_mode="floor") * self.granule
        start = torch.where(alive, start, dims)
        stop = (start + len(ahead)).clamp_max(dims)
        state = replace(state, start=start, stop=stop)
        places = (start[:, None] + ahead).clamp_max(dims)  # at `dims`: the column that is not kept
        inside = places.clamp_max(dims - 1)
        x = self._x[:-1]
        is_known, before = places < known[:, None], x.gather(1, places)
        fed = torch.where(is_known, before, forecasts(self.forecaster, state).gather(1, inside))
        x.scatter_(1, places, fed)
        state.fed.scatter_(1, inside, fed)
        evaluated, outputs = state.evaluated.gather(1, inside), state.outputs.gather(1, inside)
        work = self._evaluate(state)
        # An output before the frontier is final. Taking it from x keeps it so where rounding would flip a near tie.
        said = torch.where(is_known, before, state.outputs.gather(1, inside))
        state.outputs.scatter_(1, inside, said)
        x.scatter_(1, places, said)
        frontier = start + (fed == said).cumprod(dim=1).sum(dim=1) + 1
        frontier = torch.maximum(known, torch.minimum(stop, frontier))
        self._reached = stop
        self.state = replace(state, known=frontier)
        passed = (places >= known[:, None]) & (places < frontier[:, None])
        self._account(places, passed, fed != said, ~evaluated | (outputs != said))
        self._work += torch.where(alive, work / alive.sum(), 0.0)
        self._window = torch.where(alive, len(ahead), self._window)

    def _evaluate(self, state: SamplerState) -> float:
        """One call of the ARM, written into the buffers; returns its work."""
        output = self.cache.evaluate(state.x, state.start, state.stop)
        index = output.where
        scores = output.logits + self._noise.flatten(0, 1)[index]
        self._outputs.view(-1).index_copy_(0, index, scores.argmax(dim=-1))
        self._evaluated.view(-1).index_fill_(0, index, True)
        self._hidden.flatten(0, 1).index_copy_(0, index, output.hidden)
        self._logits.flatten(0, 1).index_copy_(0, index, output.logits)
        return output.work

    def _account(self, places: Tensor, passed: Tensor, wrong: Tensor, moved: Tensor) -> None:
        self._calls += self.state.start < self.state.stop
        calls = self._calls[:, None].expand_as(places)
        for buffer, mask, value in (
            (self._converged_at[:-1], passed, calls),
            (self._settled_at[:-1], moved, calls),
            (self._mistakes[:-1], passed, wrong.long()),
        ):
            buffer.scatter_(1, places, torch.where(mask, value, buffer.gather(1, places)))

    def finished(self) -> list[bool]:
        """Which slots hold a finished sample, or none."""
        done: list[bool] = (self.state.known >= self.state.layout.dims).tolist()
        return done

    def trace(self, slots: list[int] | slice) -> SampleTrace:
        """The trace of the samples in these slots; right once they are finished."""
        dims = self.state.layout.dims
        return SampleTrace(
            x=self.state.x[slots].clone(),
            arm_calls=self._calls[slots].clone(),
            arm_work=self._work[slots].clone(),
            converged_at=self._converged_at[:-1, :dims][slots].clone(),
            settled_at=self._settled_at[:-1, :dims][slots].clone(),
            mistakes=self._mistakes[:-1, :dims][slots].bool(),
            window=self._window[slots].clone(),
        )
