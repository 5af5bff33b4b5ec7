"""Question 3: samplers beside the paper's own, at equal width, in one run.

What is measured is the steady state: every contestant begins a stream of samples, which sets up and records what it
needs, and once its first samples are finished, contestants take turns, a few samples a turn. All draw the same samples
(the noise of a seed and an id), so those that the paper's sampler has drawn too are compared. What is too slow to be
repeated is run once, from its beginning; what is too slow for that is extrapolated. Rows say which.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from arm_core import SampleTrace, ancestral_sample, sample_noise, stream_samples
from arm_core.decision import Decision
from arm_core.forecasters import fixed_point
from arm_core.gumbel import DenseNoise
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.recorded import Steps
from arm_core.samplers.work import WholeImages, Work
from benchmarks.gpu.models import Model, Size, model_of
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import Setting, attempt
from benchmarks.gpu.spans import best_way, spans_by
from benchmarks.gpu.summary import PAPER

REPETITIONS = 5
SEED = 0
MOST = 64
"""Waves of samples that a stream can give."""
Finished = Iterator[tuple[list[int], SampleTrace]]
"""Ids and traces of samples, as they finish."""


@dataclass
class Contestant:
    """A sampler that takes part.

    Attributes:
        columns: that name it.
        samples: that it draws in a turn.
        begin: makes its stream.
        stream: that it draws from, once it has begun.
        memory: bytes that it allocated beyond what was there.
    """

    columns: Row
    samples: int
    begin: Callable[[], Finished]
    stream: Finished = field(default_factory=lambda: iter(()))
    memory: int | None = None


def sampling(size: Size, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: every sampler at one width."""

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device)
        head = _head(model, slots)
        runners = []
        for one in _repeated(model, slots):
            row = attempt(setting, {**head, **one.columns}, partial(_set_up, setting, one, slots))
            yield row
            if row["kind"] == "set-up":
                runners.append(one)
        yield from _rounds(setting, head, runners)
        for one in _single(model, slots):
            yield _once(setting, head, one)
        yield attempt(setting, {**head, "what": "ancestral"}, partial(_ancestral, setting, model, slots))

    return run


def ancestral(size: Size, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: ancestral sampling in full."""

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device)
        noise = sample_noise(size.layout, seed=SEED, sample_ids=range(slots), device=setting.device)
        found = setting.meter(lambda: ancestral_sample(model.arm, noise))
        counts = {"samples": slots, "calls": size.layout.dims, "work": size.layout.dims}
        yield {**_head(model, slots), "what": "ancestral", "kind": "once", **counts, **found.costs()}

    return run


def _head(model: Model, slots: int) -> Row:
    head: Row = {**model.columns, "slots": slots}
    if model.size.rows is not None:
        head["note"] = f"the last {model.size.rows} of {model.size.layout.height} rows; those before are given"
    return head


def _repeated(model: Model, slots: int) -> Iterator[Contestant]:
    """Those that take turns; the paper's own first."""
    size, best, granule = model.size, best_way(model.arm), model.size.layout.channels
    yield Contestant({"what": PAPER, "mode": best}, slots, partial(_batches, model, slots, compact=best == "compact"))
    samples = 2 * slots if slots <= 64 and size.rows is None else slots
    begin = partial(_windows, model, slots, best)
    for window in (-(-size.row // 2 // granule) * granule, size.row, 2 * size.row):
        columns = {"what": "windows", "mode": best, "window": window}
        yield Contestant(columns, samples, partial(begin, window, MOST * slots))
    yield Contestant({"what": "windows, chosen", "mode": best}, samples, partial(begin, None, MOST * slots))


def _single(model: Model, slots: int) -> Iterator[Contestant]:
    """Those that are run once: one granule a call, and what the first ones are without recording."""
    size, best, granule = model.size, best_way(model.arm), model.size.layout.channels
    if size.rows is None:
        columns = {"what": "one granule a call", "mode": best, "window": granule}
        yield Contestant(columns, slots, partial(_windows, model, slots, best, granule, slots))
    if best != "compact":
        columns = {"what": "windows, not recorded", "mode": "compact", "window": size.row}
        yield Contestant(columns, 2 * slots, partial(_windows, model, slots, "compact", size.row, 2 * slots))
        columns = {"what": f"{PAPER}, not recorded", "mode": "compact"}
        yield Contestant(columns, slots, partial(_batches, model, slots, compact=True))


def _set_up(setting: Setting, one: Contestant, slots: int) -> Row:
    """Begin a stream and draw its first samples."""
    before = setting.meter.allocated()
    one.stream = one.begin()
    found = setting.meter(lambda: _drawn(one.stream, slots))
    if found.peak_mem_bytes is not None and before is not None:
        one.memory = found.peak_mem_bytes - before
    counts = {"samples": slots, "calls": found.result[1].arm_calls.double().mean().item()}
    return {"kind": "set-up", **counts, **found.costs(), "peak_mem_bytes": one.memory}


def _rounds(setting: Setting, head: Row, runners: list[Contestant]) -> Iterator[Row]:
    """All of them in turn, as often as there is time for, once at least."""
    took, drawn = 0.0, dict[int, Tensor]()
    for repetition in range(REPETITIONS):
        began = setting.clock()
        if repetition > 0 and took > setting.left():
            return
        for one in list(runners):
            row = attempt(setting, {**head, **one.columns}, partial(_turn, setting, one, drawn))
            yield {**row, "repetition": repetition}
            if row["kind"] != "timed":
                runners.remove(one)
        took = setting.clock() - began


def _turn(setting: Setting, one: Contestant, drawn: dict[int, Tensor]) -> Row:
    """One turn; `drawn` holds the paper's samples by id."""
    found = setting.meter(lambda: _drawn(one.stream, one.samples))
    ids, trace = found.result
    row = {"kind": "timed", "samples": len(ids), **_counts(trace), **found.costs(), "peak_mem_bytes": one.memory}
    samples = dict(zip(ids, trace.x.cpu(), strict=True))
    if one.columns["what"] == PAPER:
        drawn |= samples
    elif both := samples.keys() & drawn.keys():
        row["share"] = sum(torch.equal(samples[number], drawn[number]) for number in both) / len(both)
    return row


def _once(setting: Setting, head: Row, one: Contestant) -> Row:
    def run() -> Row:
        if setting.left() < 0:
            return {"kind": "skipped", "note": "no time was left"}
        before = setting.meter.allocated()
        found = setting.meter(lambda: _drawn(one.begin(), one.samples))
        memory = None if found.peak_mem_bytes is None or before is None else found.peak_mem_bytes - before
        counts = {"samples": one.samples, **_counts(found.result[1])}
        return {"kind": "once", **counts, **found.costs(), "peak_mem_bytes": memory}

    return attempt(setting, {**head, **one.columns}, run)


def _ancestral(setting: Setting, model: Model, slots: int) -> Row:
    """A few passes of ancestral sampling, as many times as there are more of them."""
    dims, few = model.size.layout.dims, 2 if setting.small else 12
    weight = next(model.arm.parameters())
    noise = sample_noise(model.size.layout, seed=SEED, sample_ids=range(slots), dtype=weight.dtype)
    noise = noise.to(weight.device)

    def last(count: int) -> SampleTrace:
        return ancestral_sample(model.arm, noise, prefix=_given(model, dims - count).expand(slots, -1))

    last(2)
    costs = setting.meter(lambda: last(few)).costs()
    left = dims - model.size.given
    more = {name: None if value is None else value * left / few for name, value in costs.items()}
    more["peak_mem_bytes"] = costs["peak_mem_bytes"]
    return {"kind": "extrapolated", "samples": slots, "calls": left, "work": left, **more}


def _batches(model: Model, slots: int, *, compact: bool) -> Finished:
    """The paper's algorithm, batch after batch: whole images, and a batch waits for its slowest."""
    arm, layout, parts = model.arm, model.size.layout, list(model.arm.modules())
    weight, rows = next(arm.parameters()), list(range(slots))
    noise = weight.new_empty(slots, layout.dims, layout.categories)
    prefix = _given(model, model.size.given).expand(slots, -1)
    with sampling_mode(arm, parts):
        cache = WholeImages(arm, compact=compact)
        work = Work(arm, slots, cache, fixed_point, DenseNoise(noise), Decision())
        take = Steps(work, whole=True)
    for first in itertools.count(0, slots):
        ids = list(range(first, first + slots))
        with sampling_mode(arm, parts):
            noise.copy_(sample_noise(layout, seed=SEED, sample_ids=ids, dtype=noise.dtype))
            work.begin(rows, rows, prefix if model.size.given else None)
            while not all(work.finished()):
                take()
            trace = work.trace()
        yield ids, trace


def _windows(model: Model, slots: int, way: str, window: int | None, count: int) -> Finished:
    """Windows with refilling; the stream ends after `count` samples."""
    prefix = _given(model, model.size.given) if model.size.given else None
    with spans_by(model.arm, way):
        stream = stream_samples(model.arm, count=count, seed=SEED, slots=slots, window=window, prefix=prefix)
        first = next(stream)  # the cache is made here
    for sample in itertools.chain([first], stream):
        yield [sample.sample_id], sample.trace


def _drawn(stream: Finished, count: int) -> tuple[list[int], SampleTrace]:
    """The next `count` samples of a stream."""
    ids: list[int] = []
    traces = []
    while len(ids) < count:
        found, trace = next(stream)
        ids += found
        traces.append(trace)
    if len(traces) == 1:
        return ids, traces[0]
    names = SampleTrace.__dataclass_fields__
    return ids, SampleTrace(**{name: torch.cat([getattr(trace, name) for trace in traces]) for name in names})


def _counts(trace: SampleTrace) -> Row:
    return {"calls": trace.arm_calls.double().mean().item(), "work": trace.arm_work.double().mean().item()}


def _given(model: Model, known: int) -> Tensor:
    """Random leading dims."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(model.size.layout.categories, (known,), generator=generator)
    return values.to(next(model.arm.parameters()).device)
