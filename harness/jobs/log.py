"""The log in the folder of a job. A log that cannot be written must never end the job that writes it."""

import contextlib
import io
from pathlib import Path

from harness.store import job_folder

FILE = "log.txt"
_MOST_BYTES, _LINES = 16_384, 12


def log_of(root: Path, job_id: str) -> Path:
    """Where a job keeps what it said, all its runs one after the other."""
    return job_folder(root, job_id) / FILE


class Log(io.TextIOBase):
    """Appends to the log of a job at once, so that nothing is lost with its process; a full disk is passed over."""

    encoding = "utf-8"

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(text)
        return len(text)


def last_lines(log: Path) -> str | None:
    """The last lines of a log; None if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - _MOST_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    return "\n".join(text.splitlines()[-_LINES:])
