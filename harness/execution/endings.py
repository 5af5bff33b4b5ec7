"""How a sweep may end before its time: stopped by its user or the machine, or out of room; and how it goes on."""

import errno
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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


def resume_line(
    file: Path,
    *,
    profile: str | None,
    only: Sequence[str],
    serial: bool,
    address: str,
    root: Path | str,
    work: Path | None = None,
) -> str:
    """The command that goes on with a sweep."""
    words = ["harness", "sweep", str(file)]
    words += ["--profile", profile] if profile is not None else []
    words += [word for item in only for word in ("--only", item)]
    words += ["--serial"] if serial else []
    words += ["--address", address] if address != "local" else []
    words += ["--work", str(work)] if work is not None else []
    return shlex.join([*words, "--store", str(root)])
