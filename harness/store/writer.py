"""One writer at a time: a lock on a folder, and on object storage, which has none, a note that is kept fresh.

The note names who writes. A writer that dies leaves it there; it counts for `STALE_S` after it was last renewed.
"""

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arm_core.errors import InputError
from harness.store.files import Files

NOTE = "writer.json"
STALE_S, _RENEW_S, _SETTLE_S = 90.0, 20.0, 0.5


@contextmanager
def lock(folder: Path, place: str) -> Iterator[None]:
    """Hold a folder as its only writer.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(place, "") from None
        yield


@contextmanager
def note(files: Files, place: str) -> Iterator[Callable[[], None]]:
    """Hold files without locks as their only writer; gives what raises once another one has taken them.

    Raises:
        InputError: another process holds them.
    """
    token, stop = uuid.uuid4().hex, threading.Event()

    def is_ours() -> bool:
        held = _read(files)
        return held is not None and held["token"] == token

    held = _read(files)
    if held is not None and time.time() - held["at"] < STALE_S:
        raise _held(place, f" (process {held['pid']} on {held['host']})")
    _write(files, token)
    time.sleep(_SETTLE_S)  # whoever wrote at the same moment: the last one holds it
    if not is_ours():
        raise _held(place, "")

    def check() -> None:
        held = _read(files)
        if held is not None and held["token"] != token:  # this process slept for longer than its note counts
            raise InputError(
                f"the process {held['pid']} on {held['host']} has taken over the store {place}; nothing more is "
                "written, and what was finished is kept. Wait until it ends, then run the sweep again"
            )

    def renew() -> None:
        while not stop.wait(_RENEW_S):
            with contextlib.suppress(OSError):  # a storage that does not answer now may do so next time
                if is_ours():
                    _write(files, token)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        if is_ours():
            files.remove(NOTE)


def _write(files: Files, token: str) -> None:
    said = {"token": token, "host": platform.node(), "pid": os.getpid(), "at": time.time()}
    files.write(NOTE, json.dumps(said).encode())


def _read(files: Files) -> dict[str, Any] | None:
    try:
        said = json.loads(files.read(NOTE))
        return said if {"token", "host", "pid", "at"} <= said.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _held(place: str, by: str) -> InputError:
    return InputError(f"another sweep is writing to the store {place}{by}; wait, or give another --store")
