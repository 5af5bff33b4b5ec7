"""A stream through several processes of this machine, each with its share of the slots and one thread.

A call of few slots is made of small operations, in which torch's threads wait for each other; processes do not. Noise
is keyed by the ids of samples, so they are the same in however many processes.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from itertools import pairwise
from typing import Any

import torch

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.errors import InputError

Share = tuple[range, int]
"""The rows of a process, and its slots."""

_work: Callable[[range, int], SampleTrace] | None = None  # what a forked process finds in its memory


def check_processes(arm: AutoregressiveModel) -> None:
    """Raises an InputError where processes cannot share the ARM by forking."""
    if any(weight.is_cuda for weight in arm.parameters()):
        raise InputError("processes are for CPUs, and the ARM is on a GPU; leave processes out")
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InputError("processes need a system that forks (Linux, macOS); leave processes out")


def in_processes(work: Callable[[range, int], SampleTrace], shares: list[Share]) -> SampleTrace:
    """What `work` draws of each share, in their order.

    Args:
        work: draws the samples of some rows through some slots; it is forked, and need not be pickled.
        shares: see `shares_of`.

    Raises:
        InputError: as `work` does; or a process ended before it was done.
    """
    global _work
    _work = work
    try:
        with ProcessPoolExecutor(len(shares), mp_context=multiprocessing.get_context("fork")) as pool:
            parts = list(pool.map(_drawn, *zip(*shares, strict=True)))
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {len(shares)} processes ended before its samples were done: it was killed, or memory was short; "
            "use fewer processes"
        ) from error
    finally:
        _work = None
    return SampleTrace.joined([SampleTrace(**_tensors(part)) for part in parts])


def shares_of(count: int, slots: int, processes: int) -> list[Share]:
    """Rows and slots as even as can be, for as many processes as have some of each."""
    processes = min(processes, slots, count)
    ends = [(place * count // processes, place * slots // processes) for place in range(processes + 1)]
    return [(range(row, stop), last - slot) for (row, slot), (stop, last) in pairwise(ends)]


def _drawn(rows: range, slots: int) -> dict[str, Any]:
    torch.set_num_threads(1)  # those of the parent are not here
    assert _work is not None
    trace = _work(rows, slots)
    return {each.name: getattr(trace, each.name).numpy() for each in fields(SampleTrace)}


def _tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
