"""A stream through several processes of this machine, each with its share of the slots and one thread.

A call of few slots is made of small operations, in which torch's threads wait for each other; processes do not. Noise
is keyed by the ids of samples, so they are the same in however many processes.
"""

import ctypes
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from itertools import chain, pairwise
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.errors import InputError

Share = tuple[range, int]
"""The rows of a process, and its slots."""
Work = Callable[[range, int], SampleTrace]


def check_processes(arm: AutoregressiveModel) -> None:
    """Raises an InputError where processes cannot share the ARM by forking."""
    devices = {tensor.device.type for tensor in chain(arm.parameters(), arm.buffers())} - {"cpu"}
    if devices:
        raise InputError(f"processes are for CPUs, and the ARM is on {devices.pop()}; leave processes out")
    if sys.platform != "linux":  # elsewhere forks of programs with threads are not safe
        raise InputError(f"processes are forked, which is for Linux only, not for {sys.platform}; leave processes out")


def shares_of(count: int, slots: int, processes: int) -> list[Share]:
    """Rows and slots as even as can be, for as many processes as have some of each."""
    processes = min(processes, slots, count)
    ends = [(place * count // processes, place * slots // processes) for place in range(processes + 1)]
    return [(range(row, stop), last - slot) for (row, slot), (stop, last) in pairwise(ends)]


def in_processes(work: Work, shares: list[Share]) -> SampleTrace:
    """What `work` draws of each share, in their order.

    Args:
        work: draws the samples of some rows through some slots; it is forked, and need not be pickled.
        shares: see `shares_of`.

    Raises:
        InputError: as `work` does; or a process ended before it was done.
        RuntimeError: work raised something else, which the message tells. The others are ended then.
    """
    forking = multiprocessing.get_context("fork")
    started, parts = [], dict[int, SampleTrace]()
    try:
        for share in shares:
            here, there = forking.Pipe(duplex=False)
            process = forking.Process(target=_child, args=(work, share, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process ends what is read here
            started.append((process, here))
        while left := [here for number, (_, here) in enumerate(started) if number not in parts]:
            ready = wait(left)
            for number, (_, here) in enumerate(started):
                if here in ready:
                    parts[number] = _received(here, len(shares))
    finally:
        for process, here in started:
            if len(parts) < len(shares):
                process.terminate()
            process.join()
            here.close()
    return SampleTrace.joined([parts[number] for number in range(len(shares))])


def _received(connection: Connection, processes: int) -> SampleTrace:
    try:
        found = connection.recv()
    except EOFError:
        raise InputError(
            f"one of {processes} processes ended before its samples were done: it was killed, or memory was short; "
            "use fewer processes"
        ) from None
    if isinstance(found, dict):
        return SampleTrace(**{name: torch.from_numpy(array) for name, array in found.items()})
    is_input, said = found
    raise InputError(said) if is_input else RuntimeError(f"one of {processes} processes failed:\n{said}")


def _child(work: Work, share: Share, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nor do they outlive it
    torch.set_num_threads(1)  # those of the parent are not here
    found: Any
    try:
        trace = work(*share)
        found = {each.name: getattr(trace, each.name).numpy() for each in fields(SampleTrace)}
    except InputError as error:
        found = True, str(error)
    except Exception:
        found = False, traceback.format_exc()
    connection.send(found)
