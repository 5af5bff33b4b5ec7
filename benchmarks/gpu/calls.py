"""Question 2: what one call costs, a whole image beside a span of each sample, and how much of it is launching kernels.

A window can only be worth it where a call of it costs less than a pass. A call of a span is hundreds of small kernels:
what it costs at one sample is what it costs to launch them, and a captured graph shows what they cost without that.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arm_core import KeyedNoise
from arm_core.contracts import SpanCache
from arm_core.decision import Decision
from arm_core.forecasters import fixed_point_above
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.recorded import WARM_UP, CudaGraphs, Steps
from arm_core.samplers.work import WholeImages, Work
from benchmarks.gpu.models import Model, Size, model_of
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import Setting, attempt
from benchmarks.gpu.spans import ways

REPETITIONS = 3
Call = Callable[[], Any]
Prepare = Callable[[], Call]
"""Makes a call ready, and returns it."""


def calls(size: Size, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: one call of every kind, for so many samples at a time."""

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device)
        count = 2 if setting.small else 10
        with sampling_mode(model.arm):
            for head, prepare in kinds_of_call(model, slots, setting.device):
                head = {**model.columns, "slots": slots, **head}
                yield from _timed(setting, head, prepare, count)

    return run


def kinds_of_call(model: Model, slots: int, device: torch.device) -> Iterator[tuple[Row, Prepare]]:
    """What a call can be: columns, and what prepares it and returns the call."""
    size = model.size
    x = torch.randint(size.layout.categories, (slots, size.layout.dims), device=device)
    yield {"what": "whole image", "mode": "as it is"}, lambda: partial(model.arm, x)
    if device.type == "cuda":
        yield {"what": "whole image", "mode": "recorded"}, lambda: captured(lambda: model.arm(x))
    for way, maker in ways(model.arm).items():
        head = {"what": "span", "mode": way, "window": size.row}
        yield head, partial(_spans, partial(maker, slots, size.row), x, size.row, recorded=way == "recorded")
        for window in (size.layout.channels, size.row) if way == "recorded" else (size.row,):
            yield (
                {**head, "what": "step", "window": window},
                partial(_steps, model, partial(maker, slots, window), slots),
            )
    for way in ("as it is", "recorded") if device.type == "cuda" else ("as it is",):
        cache = partial(WholeImages, model.arm, compact=way != "recorded")
        yield {"what": "step of whole images", "mode": way}, partial(_steps, model, cache, slots)
    yield {"what": "noise of a span", "window": size.row}, partial(_noise, model, x)


def captured(run: Call) -> Call:
    """Something of fixed shapes as one CUDA graph: what returns replays it."""
    for _ in range(2):
        run()
    return CudaGraphs()(run)


def _spans(make: Callable[[], SpanCache], x: Tensor, window: int, *, recorded: bool) -> Call:
    """The next span of every sample, row by row through the image and then again."""
    cache, (slots, dims) = make(), x.shape
    ahead = max(window, dims // 32 // window * window)  # small windows skip most places: this is about costs
    starts = [torch.full((slots,), start, device=x.device) for start in range(0, dims, ahead)]
    turn, start = -1, starts[0].clone()

    def evaluate() -> Any:
        return cache.evaluate(x, start, (start + window).clamp_max(dims))

    run = captured(evaluate) if recorded else evaluate

    def call() -> Any:
        nonlocal turn
        turn = (turn + 1) % len(starts)
        start.copy_(starts[turn])
        return run()

    for _ in starts[:4]:
        call()
    return call


def _steps(model: Model, make: Callable[[], SpanCache], slots: int) -> Call:
    """Steps of a sampler from the first dimension on, again and again, each waited for as samplers do."""
    cache, weight = make(), next(model.arm.parameters())
    layout = model.size.layout
    noise = KeyedNoise(layout, seed=0, sample_ids=range(slots), dtype=weight.dtype, device=weight.device)
    work = Work(model.arm, slots, cache, fixed_point_above, noise, Decision())
    take, rows, turn = Steps(work, whole=isinstance(cache, WholeImages)), list(range(slots)), -1

    def call() -> Any:
        nonlocal turn
        turn += 1
        if turn % 32 == 0:
            work.begin(rows, rows)
        take()
        return work.finished()

    for _ in range(2 * WARM_UP.get(weight.device.type, 2)):
        call()
    return call


def _noise(model: Model, x: Tensor) -> Call:
    slots, window = len(x), model.size.row
    source = KeyedNoise(model.size.layout, seed=0, sample_ids=range(slots), device=x.device)
    rows = torch.arange(slots, device=x.device).repeat_interleave(window)
    dims = torch.arange(window, device=x.device).repeat(slots)
    return lambda: source.at(rows, dims)


def _timed(setting: Setting, head: Row, prepare: Prepare, count: int) -> Iterator[Row]:
    """Rows of `count` calls each, after some that do not count."""
    made: list[Call] = []

    def set_up() -> Row:
        found = setting.meter(prepare)
        made.append(found.result)
        return {"kind": "fact", "amount": found.host_s, "unit": "seconds to set up, recording and some calls included"}

    def warm_up() -> Row:
        costs = setting.meter(lambda: [made[0]() for _ in range(2)]).costs()
        return {"kind": "warm-up", "calls": 2, **costs}

    for turn in (set_up, warm_up):
        first = attempt(setting, head, turn)
        yield first
        if first["kind"] not in ("fact", "warm-up"):
            return
    fits = max(1, min(count, int(setting.left() / 8 / REPETITIONS / max(first["host_s"] / 2, 1e-6))))
    for repetition in range(REPETITIONS):
        found = setting.meter(lambda: [made[0]() for _ in range(fits)][:0])
        yield {**head, "kind": "timed", "repetition": repetition, "calls": fits, **found.costs()}
