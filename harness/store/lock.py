"""One driver at a time: a lock on the folder of the store, and in it who holds it."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from arm_core.errors import InputError

FILE = ".lock"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a store as its only driver; the system lets go of it when the process ends, however it does.

    Raises:
        InputError: another process holds it, and which one.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise InputError(
                f"another sweep is writing to the store {root} ({holder}); wait, or give another --store"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        file.flush()
        yield
