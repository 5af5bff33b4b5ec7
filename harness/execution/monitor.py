"""Shows how far jobs are, from the files that they write: live while a sweep runs, and for `harness status`.

On a terminal a bar a job; elsewhere, or where it is narrow, a line when a job starts, every ten seconds and at its end.
"""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from harness.execution.background import repeating
from harness.execution.remaining import seconds_left
from harness.jobs import checkpoint_of
from harness.jobs.progress import Progress, read_progress
from harness.store import Store, job_folder

if TYPE_CHECKING:
    from harness.sweep import Plan

_POLL_S, _LINE_S, STALE_S, MOST_SILENT_S = 0.5, 10.0, 60.0, 3600.0
_NARROW, _WIDE = 60, 100  # columns: below, lines are easier to read; from there on there is room for bars
MOST_LINES = 100


@contextmanager
def watching(plan: "Plan", root: Path, console: Console) -> Iterator[None]:
    """Show the jobs of a plan while the body runs."""
    folders = [job_folder(root, planned.job.id) for planned in plan.to_run]  # of jobs that have not ended
    view = _BarView(console) if console.is_terminal and console.width >= _NARROW else _LineView(console)
    since = time.time()

    def show_all() -> None:
        for folder in list(folders):
            progress = read_progress(folder)
            if progress is not None and progress.updated_at >= since:
                view.show(progress)
                if progress.state != "running":
                    folders.remove(folder)

    follows = console.file is sys.stdout
    console.file = console.file  # of now: a job that runs in this process sends what is printed to its log
    try:
        with view, repeating(show_all, _POLL_S):
            yield
    finally:
        if follows:
            console.file = None  # type: ignore[assignment]  # as it was


class _LineView(nullcontext[None]):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.said: dict[str, tuple[str, float]] = {}

    def show(self, progress: Progress) -> None:
        state, at = self.said.get(progress.job, ("", 0.0))
        now = time.time()
        if progress.state == state and (state != "running" or now - at < _LINE_S):
            return
        self.said[progress.job] = (progress.state, now)
        self.console.print(describe(progress), highlight=False, soft_wrap=True)


class _BarView:
    def __init__(self, console: Console) -> None:
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),  # the console's own setting does not reach these
            *([BarColumn(20)] if console.width >= _WIDE else []),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(overflow="fold")),
            console=console,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> None:
        self.bars.start()

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def show(self, progress: Progress) -> None:
        if progress.job not in self.tasks:
            self.tasks[progress.job] = self.bars.add_task(f"{progress.kind} {progress.title}", detail="")
        self.bars.update(
            self.tasks[progress.job], completed=progress.step, total=progress.total or None, detail=_detail(progress)
        )


def describe(progress: Progress) -> str:
    """One line: what, how far, with which figures, and how long still."""
    return f"{progress.kind} {progress.title}: {progress.step}/{progress.total} {_detail(progress)}".rstrip()


def _detail(progress: Progress) -> str:
    parts = [f"{name} {value:.3g}" for name, value in progress.metrics.items()]
    parts += [progress.note] if progress.note else []
    if progress.state != "running":
        parts.append(progress.state)
    elif progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def status_table(store: Store, sweep: str, record: Mapping[str, Any]) -> Table:
    """The jobs that a sweep asks for, under its names, and how each one stands; reads files only.

    Of a plan of more than `MOST_LINES` jobs only those that are not done have a line, and the title counts all.
    """
    outcomes = store.outcomes({job["id"]: None for job in record["jobs"]}, unreadable={})
    said = {job["id"]: read_progress(job_folder(store.root, job["id"])) for job in record["jobs"]}
    states = [(job, *_state(store.root, job["id"], said[job["id"]], outcomes)) for job in record["jobs"]]
    known = {job: progress for job, progress in said.items() if progress is not None}
    left = seconds_left(record["jobs"], {job["id"]: state for job, state, _ in states}, known)
    sweep += f", about {duration(left)} left" if left else ""
    counts = ", ".join(f"{many} {state}" for state, many in Counter(state for _, state, _ in states).most_common())
    long = len(states) > MOST_LINES
    table = Table(title=f"{sweep}: {len(states)} jobs, {counts}" if long else sweep, title_justify="left")
    for name in ("job", "kind", "state", "progress"):
        table.add_column(name)
    for job, state, detail in [entry for entry in states if not long or entry[1] != "done"][:MOST_LINES]:
        table.add_row(job["title"], job["kind"], state, _found(store.root, job["id"]) if state == "done" else detail)
    table.show_header = table.row_count > 0
    table.box = table.box if table.row_count else None
    return table


def _state(root: Path, job_id: str, progress: Progress | None, outcomes: Mapping[str, str]) -> tuple[str, str]:
    folder = job_folder(root, job_id)
    if progress is not None and progress.state == "running":
        silent = time.time() - progress.updated_at
        text = f"{progress.step}/{progress.total} {_detail(progress)}"
        if _is_alive(progress, silent):
            return "running", text
        if job_id not in outcomes:
            return "stopped", f"{text}; silent for {duration(silent)}, run the sweep again to go on"
    outcome = outcomes.get(job_id, "waiting")
    details = {"failed": f"see {folder / 'log.txt'}", "lost": "files of it are gone; run the sweep again"}
    details["damaged"] = f"{folder / 'done.json'} is damaged; delete {folder} and run the sweep again"
    return outcome, details.get(outcome, "")


def _found(root: Path, job_id: str) -> str:
    """How good the ARM of a training is, and where its checkpoint lies; nothing of other jobs."""
    place = checkpoint_of(root, job_id)
    try:
        saved = json.loads((place / "manifest.json").read_bytes())  # by itself: status must not wait for torch
        bits = saved["content"]["metadata"].get("valid_bits_per_dim")
    except (OSError, ValueError, KeyError):
        return ""
    return f"{bits:.3f} bits/dim, {place}" if bits is not None else str(place)


def _is_alive(progress: Progress, silent: float) -> bool:
    """Whether the process that wrote this may still run; on another host only its silence can tell.

    Here a process may be silent for as long as a validation or an ancestral batch takes, but not for hours: its number
    may then be another one's.
    """
    if progress.host != platform.node():
        return silent < STALE_S
    if silent > MOST_SILENT_S:
        return False
    try:
        os.kill(progress.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
