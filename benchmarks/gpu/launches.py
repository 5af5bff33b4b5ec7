"""The profiler's part of questions 2 and 4: kernels a call, how long the device is busy, what is no convolution.

It comes last: a process that was once profiled launches kernels more slowly.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from arm_core.samplers.mode import sampling_mode
from benchmarks.gpu.calls import kinds_of_call
from benchmarks.gpu.models import Size, model_of
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import Setting, attempt
from benchmarks.gpu.training import PRECISIONS, Recipe, columns_of, precision_of, steps_of

CONVOLUTION = ("convolution", "conv2d", "conv_transpose")


def launches(size: Size, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: kernels and busy seconds of one call of every kind. On a CPU: operators, and seconds in them."""

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device)
        with sampling_mode(model.arm):
            for head, prepare in kinds_of_call(model, slots, setting.device):
                head = {**model.columns, "slots": slots, **head}
                yield attempt(setting, head, partial(_counted, setting.device, prepare))

    return run


def outside_convolutions(recipe: Recipe) -> Callable[[Setting], Iterator[Row]]:
    """An item: the share of a training step's time on the device that no convolution takes."""

    def run(setting: Setting) -> Iterator[Row]:
        for precision in PRECISIONS:
            head = columns_of(recipe, precision)
            with precision_of(precision):
                yield attempt(setting, head, partial(_outside, setting.device, recipe, precision))

    return run


def recorded(device: torch.device, run: Callable[[], Any]) -> list[FunctionEvent]:
    """The profiler's events of one run, which has been warmed up."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes a line whenever it starts and stops
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=kinds) as record:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return list(record.events() or [])


def _counted(device: torch.device, prepare: Callable[[], Callable[[], Any]]) -> Row:
    call = prepare()
    call()
    events = recorded(device, call)
    if device.type == "cuda":
        kernels = [event for event in events if event.device_type == DeviceType.CUDA]
        busy = sum(event.time_range.elapsed_us() for event in kernels)
        return {"kind": "fact", "amount": len(kernels), "unit": "kernels", "seconds": busy / 1e6}
    outer = [event for event in events if event.cpu_parent is None]
    busy = sum(event.cpu_time_total for event in outer)
    return {"kind": "fact", "amount": len(events), "unit": "operators", "seconds": busy / 1e6}


def _outside(device: torch.device, recipe: Recipe, precision: str) -> Row:
    steps = steps_of(recipe, precision, device)
    next(steps), next(steps)
    spent = {True: 0.0, False: 0.0}
    for event in recorded(device, lambda: next(steps)):
        if event.device_type == DeviceType.CPU:  # kernels stand in the list a second time, as events of the device
            time = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            spent[_in_convolution(event)] += time
    share = spent[False] / max(sum(spent.values()), 1e-9)
    return {"kind": "fact", "share": share, "note": "of the step's time on the device, outside convolutions"}


def _in_convolution(event: FunctionEvent | None) -> bool:
    """Whether an operator is a convolution or was called by one, to lay out its weights for example."""
    while event is not None:
        if any(kind in event.name.lower() for kind in CONVOLUTION):
            return True
        event = event.cpu_parent
    return False
