"""Measured seconds: on a GPU between two device events that are waited for, on a CPU by the wall clock."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
Clock = Callable[[Callable[[], T]], tuple[T, float]]
"""Runs something and returns (its result, the seconds it took)."""


def clock_for(device: torch.device) -> Clock:
    """The clock of a device (paper app. A.4: CUDA events, read after synchronising)."""
    return _cuda_clock if device.type == "cuda" else _wall_clock


def _wall_clock(run: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def _cuda_clock(run: Callable[[], T]) -> tuple[T, float]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()  # nothing of what came before may fall into the measured time
    start.record()
    result = run()
    end.record()
    torch.cuda.synchronize()
    return result, start.elapsed_time(end) / 1000
