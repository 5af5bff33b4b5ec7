"""Question 3: samplers beside the paper's own, at equal width, in one run.

All draw the same samples (the noise of a seed and an id), so their first ones are also compared. Everything is warmed
up on the last rows of the images, in calls of the same shapes, and then interleaved, repetition by repetition.
What takes too long to be repeated is run once; what takes too long for that is extrapolated, and said to be.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arm_core import SampleTrace, ancestral_sample, predictive_sample, sample_many, sample_noise
from arm_core.contracts import SpanCache
from arm_core.forecasters import fixed_point
from arm_core.samplers import cached_sequential_sample
from arm_core.samplers.mode import sampling_mode
from benchmarks.gpu.meter import Measured
from benchmarks.gpu.models import Model, Size, model_of
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import Setting, attempt
from benchmarks.gpu.spans import best_way, spans_by, ways
from benchmarks.gpu.summary import PAPER

REPETITIONS = 5


@dataclass(frozen=True)
class Contestant:
    """A sampler that takes part.

    Attributes:
        columns: that name it.
        samples: that a run gives.
        draw: (seed, leading dims that are known beforehand) -> a run.
    """

    columns: Row
    samples: int
    draw: Callable[[int, int], SampleTrace]


def sampling(size: Size, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: every sampler at one width."""

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device)
        head = {**model.columns, "slots": slots}
        runners = list(_contestants(model, slots))
        fit = []
        for one in runners:
            row = _run(setting, head, one, 0, known=size.layout.dims - 2 * size.row, kind="warm-up")[0]
            yield row
            if row["kind"] == "warm-up":
                fit.append(one)
        yield from _slow(setting, head, model, slots)
        yield from _rounds(setting, head, fit)

    return run


def _contestants(model: Model, slots: int) -> Iterator[Contestant]:
    """Those that are repeated; the paper's own first."""
    size, best = model.size, best_way(model.arm)
    count = max(4, (4 if slots <= 64 else 2) * slots)
    refilled = partial(_many, model, slots, count)
    whole, granule = size.layout.dims, size.layout.channels
    yield Contestant({"what": PAPER}, slots, partial(_whole_batch, model, slots))
    yield Contestant({"what": "fixed point, refilled", "window": whole}, count, partial(refilled, whole, best))
    for window in (-(-size.row // 2 // granule) * granule, size.row, 2 * size.row):
        yield Contestant({"what": "windows", "mode": best, "window": window}, count, partial(refilled, window, best))
    yield Contestant({"what": "windows, chosen", "mode": best}, count, partial(refilled, None, best))
    for way in ways(model.arm):
        if way != best:
            columns = {"what": "windows", "mode": way, "window": size.row}
            yield Contestant(columns, count, partial(refilled, size.row, way))


def _rounds(setting: Setting, head: Row, runners: list[Contestant]) -> Iterator[Row]:
    """All of them in turn, as often as there is time for, once at least."""
    took = 0.0
    for repetition in range(REPETITIONS):
        began = setting.clock()
        if repetition > 0 and took > setting.left():
            return
        reference: Tensor | None = None
        for one in runners:
            if setting.left() < 0:
                yield {**head, **one.columns, "kind": "skipped", "repetition": repetition, "note": "no time was left"}
                continue
            row, x = _run(setting, head, one, repetition, known=0, kind="timed")
            if reference is None:
                reference = x
            elif x is not None:
                row["share"] = (x[: len(reference)] == reference).all(dim=1).double().mean().item()
            yield {**row, "repetition": repetition}
        took = setting.clock() - began


def _run(
    setting: Setting, head: Row, one: Contestant, seed: int, *, known: int, kind: str
) -> tuple[Row, Tensor | None]:
    """A row about one run of a contestant, and its samples if it gave any."""
    kept: list[Tensor] = []

    def measured() -> Row:
        found = setting.meter(lambda: one.draw(seed, known))
        trace = found.result
        kept.append(trace.x)
        calls, work = trace.arm_calls.double().mean().item(), trace.arm_work.double().mean().item()
        return {"kind": kind, "samples": one.samples, "calls": calls, "work": work, **found.costs()}

    row = attempt(setting, {**head, **one.columns}, measured)
    return row, kept[0] if kept else None


def _slow(setting: Setting, head: Row, model: Model, slots: int) -> Iterator[Row]:
    """One dimension a call, as whole images and on top of a cache: once if it is quick enough, or extrapolated."""
    best, dims = best_way(model.arm), model.size.layout.dims
    few = 2 if setting.small else 16
    ancestral = partial(_ancestral, model, slots)
    setting.meter(lambda: ancestral(0, dims - 2))
    passes = setting.meter(lambda: ancestral(0, dims - few))
    one = Contestant({"what": "ancestral"}, slots, ancestral)
    yield _once_or_extrapolated(setting, head, one, dims, passes, few, work=dims)
    columns = {"what": "cached sequential", "mode": best, "window": model.size.layout.channels}
    cache = ways(model.arm)[best](slots, model.size.layout.channels)
    with sampling_mode(model.arm):
        _first_dims(model, cache, slots, 2)
        part = setting.meter(lambda: _first_dims(model, cache, slots, few))
    one = Contestant(columns, slots, partial(_sequential, model, slots, best))
    yield _once_or_extrapolated(setting, head, one, dims, part, few, work=model.size.layout.channels)


def _once_or_extrapolated(
    setting: Setting, head: Row, one: Contestant, dims: int, part: Measured[Any], few: int, *, work: int
) -> Row:
    if part.host_s / few * dims < setting.left() / 3:
        return _run(setting, head, one, 0, known=0, kind="once")[0]
    costs = {name: value * dims / few for name, value in part.costs().items() if value is not None}
    costs["peak_mem_bytes"] = part.peak_mem_bytes
    note = f"from {few} of {dims} calls"
    counts = {"samples": one.samples, "calls": dims, "work": work, "note": note}
    return {**head, **one.columns, "kind": "extrapolated", **costs, **counts}


def _first_dims(model: Model, cache: SpanCache, slots: int, few: int) -> None:
    """Calls of cached sequential sampling for the first dims."""
    granule, device = model.size.layout.channels, next(model.arm.parameters()).device
    x = torch.zeros(slots, model.size.layout.dims, dtype=torch.int64, device=device)
    for dim in range(few):
        start = torch.full((slots,), dim - dim % granule, device=device)
        cache.evaluate(x, start, start + granule).logits.argmax(dim=-1)


def _whole_batch(model: Model, slots: int, seed: int, known: int) -> SampleTrace:
    """The paper's algorithm: whole images, and the batch waits for its slowest."""
    return predictive_sample(model.arm, _noise(model, slots, seed), fixed_point, prefix=_prefix(model, slots, known))


def _ancestral(model: Model, slots: int, seed: int, known: int) -> SampleTrace:
    return ancestral_sample(model.arm, _noise(model, slots, seed), prefix=_prefix(model, slots, known))


def _sequential(model: Model, slots: int, way: str, seed: int, known: int) -> SampleTrace:
    with spans_by(model.arm, way):
        return cached_sequential_sample(model.arm, _noise(model, slots, seed))


def _many(model: Model, slots: int, count: int, window: int | None, way: str, seed: int, known: int) -> SampleTrace:
    count = count if known == 0 else slots
    with spans_by(model.arm, way):
        prefix = _prefix(model, count, known)
        return sample_many(model.arm, count=count, seed=seed, slots=slots, window=window, prefix=prefix)


def _noise(model: Model, slots: int, seed: int) -> Tensor:
    weight = next(model.arm.parameters())
    return sample_noise(model.size.layout, seed=seed, sample_ids=range(slots), dtype=weight.dtype, device=weight.device)


def _prefix(model: Model, count: int, known: int) -> Tensor | None:
    if known == 0:
        return None
    device = next(model.arm.parameters()).device
    values = torch.randint(model.size.layout.categories, (count, known), generator=torch.Generator().manual_seed(0))
    return values.to(device)
