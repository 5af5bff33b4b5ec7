"""Items of a run in their order, within a budget, each at its own risk.

An exception becomes a row and the run goes on. What would end after the budget is skipped, with a row that says so;
some items keep their time back from those before them. Where the GPU itself is lost (an illegal access poisons the
whole process) the run says that it needs a new process. This module knows no ARM and no sampler.
"""

import contextlib
import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.meter import Meter
from benchmarks.gpu.rows import Row

OVERRUN = 2.0
"""How many times its cost an item may take before it is broken off."""


class NotThereError(Exception):
    """Something that an item needs does not exist in this version: no fault of the run."""


class OverrunError(Exception):
    """An item took far longer than it was thought to."""


class DeviceLostError(Exception):
    """The device answers no longer in this process."""


@dataclass
class Setting:
    """Where items run.

    Attributes:
        device: of all tensors.
        small: everything as small as it can be, to try the run itself.
        meter: of the device.
        clock: seconds, from any origin.
        until: when the item that runs now should be done.
    """

    device: torch.device
    small: bool
    meter: Meter
    clock: Callable[[], float] = time.monotonic
    until: float = field(default=float("inf"))

    def left(self) -> float:
        """Seconds until the item should be done."""
        return self.until - self.clock()


@dataclass(frozen=True)
class Item:
    """A part of the run.

    Attributes:
        question: that it helps to answer.
        name: of its own.
        run: gives rows while it runs.
        cost_s: what it is thought to take at most.
        reserved: its time is kept back from the items before it.
    """

    question: str
    name: str
    run: Callable[[Setting], Iterable[Row]]
    cost_s: float
    reserved: bool = False


def run_items(
    items: Sequence[Item],
    setting: Setting,
    write: Callable[[Row], None],
    *,
    budget_s: float,
    spent_s: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Run the items in their order.

    Args:
        items: with names of their own.
        setting: where; its `until` is set for each.
        write: takes each row as soon as there is one.
        budget_s: seconds for all.
        spent_s: of them, before this call.
        say: takes a line of progress.

    Raises:
        DeviceLostError: the device is gone for this process; the rows say so, and a new process can do the rest.
    """
    began = setting.clock() - spent_s
    for place, item in enumerate(items):
        at = setting.clock() - began
        kept = 0.0 if item.reserved else sum(later.cost_s for later in items[place + 1 :] if later.reserved)
        left = budget_s - kept - at
        head: Row = {"question": item.question, "item": item.name}
        if item.cost_s > left:
            write({**head, "kind": "skipped", "at_s": at, "note": f"would take {item.cost_s:.0f} s, {left:.0f} s left"})
            say(f"{at:6.1f} s  {item.name}: skipped, {left:.0f} s left")
            continue
        say(f"{at:6.1f} s  {item.name}")
        setting.until = setting.clock() + item.cost_s
        limit_s = min(OVERRUN * item.cost_s, budget_s - at)

        def written(row: Row, head: Row = head) -> None:
            write({**head, "at_s": setting.clock() - began, **row})

        ending = _run(item, setting, written, limit_s)
        if ending is not None:
            written(ending)
            say(f"          {ending['kind']}: {(ending.get('error') or ending['note']).strip().splitlines()[-1]}")
            if ending["kind"] == "failed" and not answers(setting.device):
                raise DeviceLostError(f"{setting.device} answers no longer since {item.name}")
        _release(setting.device)


def _run(item: Item, setting: Setting, write: Callable[[Row], None], limit_s: float) -> Row | None:
    """Run one item to its end; a row about that end if it was not as it should be."""
    try:
        with _alarm(limit_s):
            for row in item.run(setting):
                write(row)
    except NotThereError as error:
        return {"kind": "not there", "note": str(error)}
    except Exception as error:  # the next item may well work, and the run must not end here
        return _failed(error)
    return None


def attempt(setting: Setting, head: Row, run: Callable[[], Row]) -> Row:
    """A row of an item that has several: `head` with what `run` returns, or with why there is none.

    Raises:
        OverrunError, DeviceLostError: nothing more can come of this item.
    """
    try:
        return {**head, **run()}
    except (OverrunError, DeviceLostError):
        raise
    except NotThereError as error:
        return {**head, "kind": "not there", "note": str(error)}
    except Exception as error:  # what comes after it in the item may well work
        row = {**head, **_failed(error)}
    if not answers(setting.device):
        raise DeviceLostError(f"{setting.device} answers no longer since {head.get('what')}: {row['error']}")
    return row


def _failed(error: Exception) -> Row:
    text = "".join(traceback.format_exception(error, limit=-4))
    traceback.clear_frames(error.__traceback__)  # they hold the tensors that ran out of memory
    return {"kind": "failed", "error": text}


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise an OverrunError in the main thread after so many seconds."""

    def ring(number: int, frame: object) -> None:
        raise OverrunError(f"broken off after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answers(device: torch.device) -> bool:
    """Whether the device still does what it is told: after an illegal access it never does again in a process."""
    if device.type != "cuda":
        return True
    try:
        torch.zeros(1, device=device).add_(1).cpu()
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
