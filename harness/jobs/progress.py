"""How far a job is, as a small file in its folder: written by the job, read by whoever watches."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from arm_core.atomic import write_atomic

FILE = "progress.json"
_PAUSE_S = 0.5


@dataclass(frozen=True)
class Progress:
    """Times are seconds since the epoch; `state` is running, done or failed."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "allow_inf_nan": False}
    job: str
    kind: str
    title: str
    state: str
    step: int
    total: int
    unit: str
    note: str
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=True)]]
    seconds_left: float | None
    updated_at: float
    host: str
    pid: int
    started_at: float


@dataclass
class Reporter:
    """Writes a job's progress, at most twice a second.

    Attributes:
        folder: of the job.
        job, kind, title: of the job.
        unit: what a step is.
    """

    folder: Path
    job: str
    kind: str
    title: str
    unit: str
    _first: tuple[int, float] | None = field(default=None, init=False)
    _written: float = field(default=0.0, init=False)
    _started: float = field(default_factory=time.time, init=False)

    def update(self, step: int, total: int, *, note: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """The job is at `step` of `total`."""
        now = time.time()
        if self._first is None:
            self._first = (step, now)
        if now - self._written < _PAUSE_S and step < total:
            return
        self._write("running", step, total, note, dict(metrics or {}), now)

    def on_progress(self, done: int, total: int, what: str) -> None:
        """The same, as datasets tell it while they are converted."""
        self.update(done, total, note=what)

    def end(self, state: str, note: str = "") -> None:
        """The job is done or failed."""
        last = read_progress(self.folder)
        step, total = (last.step, last.total) if last is not None else (0, 0)
        metrics = last.metrics if last is not None else {}
        self._write(state, total if state == "done" else step, total, note, metrics, time.time())

    def _write(self, state: str, step: int, total: int, note: str, metrics: dict[str, float], now: float) -> None:
        first, since = self._first or (step, now)
        left = (now - since) / (step - first) * (total - step) if step > first else None
        host, pid = platform.node(), os.getpid()
        progress = Progress(
            self.job, self.kind, self.title, state, step, total, self.unit, note, metrics, left, now, host, pid,
            self._started,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk must not end the job for the sake of who watches it
            write_atomic(self.folder / FILE, json.dumps(asdict(progress)).encode(), sync=False)
        self._written = now


_READER = TypeAdapter(Progress)


def read_progress(folder: Path) -> Progress | None:
    """What the job in this folder last said of itself; None if it has said nothing that can be read.

    Every value is of its kind, and times are finite: the file has no seal, and whoever watches must not fall over it.
    """
    try:
        return _READER.validate_json((folder / FILE).read_bytes(), strict=True)
    except (OSError, ValueError):
        return None
