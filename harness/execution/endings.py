"""How a sweep may end before its time: stopped by its user or the machine, or out of room."""

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room: a full disk, a quota, a limit on the size of files."""
    return error.errno in _FULL


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While the body runs, SIGTERM (a batch system's time is up) ends it as Ctrl-C does.

    Ray takes the signal for itself when it connects: then this is needed anew.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: of code that is not Python's


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
