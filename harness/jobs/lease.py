"""One process at a time works in a job's folder: the last one that took it.

A node that seems dead may only be cut off, and its process go on while another has taken the job over. It must not
write then. Whoever takes a folder leaves its name there, and looks before every write whether it still stands there.
"""

import os
import platform
import uuid
from pathlib import Path

from arm_core.atomic import write_atomic

FILE = "owner"
_PROCESS = f"{platform.node()} {os.getpid()} {uuid.uuid4().hex}"


class SupersededError(RuntimeError):
    """Another process has taken the job over; this one must leave it alone."""


def take(folder: Path) -> None:
    """Make this process the one that works in the folder."""
    write_atomic(folder / FILE, _PROCESS.encode())


def check(folder: Path) -> None:
    """Nothing, while this process (or nobody) has the folder.

    Raises:
        SupersededError: another one has taken it since.
    """
    try:
        owner = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if owner != _PROCESS:
        raise SupersededError(f"{folder} was taken over by the process {' '.join(owner.split()[:2])}; this one stops")
