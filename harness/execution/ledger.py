"""What the driver keeps while jobs run: which are settled, which failed, and what may start next."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.jobs import failed_rows, job_folder, read_rows, status_of
from harness.jobs.rows import Rows, clear_rows
from harness.store import Store
from harness.sweep import Job, Plan, TimingJob, TrainJob


class Failure(NamedTuple):
    """A job that failed, the first line of its error, and where to read on."""

    title: str
    error: str
    log: Path


@dataclass(frozen=True)
class _Waiting:
    trainings: list[TrainJob]
    timings: list[TimingJob]


class Ledger:
    """Moves rows of finished jobs into the tables and says what is left.

    Rows that a job left before its driver died count as found by this run.

    Args:
        plan: what should be done.
        store: its tables.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.done = 0
        self.failures: list[Failure] = []
        self._states = {planned.job.id: "done" for planned in plan.jobs if not planned.run}
        self._jobs: list[Job] = [planned.job for planned in plan.to_run]
        for planned in plan.to_run:
            if planned.reason == "not done yet" and self.settle(planned.job) is not None:
                continue
            clear_rows(job_folder(store.root, planned.job.id))

    @property
    def waiting(self) -> _Waiting:
        """The jobs that are not settled; a timing whose training failed is settled at once, as failed."""
        for job in self._jobs:
            if isinstance(job, TimingJob) and job.id not in self._states and self._state(job.train_job) == "failed":
                self.lose(job, "its training failed")
        left = [job for job in self._jobs if job.id not in self._states]
        return _Waiting(
            [job for job in left if isinstance(job, TrainJob)], [job for job in left if isinstance(job, TimingJob)]
        )

    def ready(self, job: TimingJob) -> bool:
        """Whether its training is done."""
        return self._state(job.train_job) == "done"

    def settle(self, job: Job) -> str | None:
        """Take over the rows of a job that came to its end: "done" or "failed"; None if it has not."""
        rows = read_rows(job_folder(self.store.root, job.id))
        return None if rows is None else self._write(job, rows)

    def lose(self, job: Job, error: str) -> None:
        """Record as failed a job that cannot come to its end."""
        self._write(job, failed_rows(job, error))

    def _state(self, job_id: str) -> str | None:
        return self._states.get(job_id)

    def _write(self, job: Job, rows: Rows) -> str:
        self.store.write_job(job.id, rows)
        status = self._states[job.id] = status_of(rows)
        if status == "done":
            self.done += 1
        else:
            error = next((row["error"] for part in rows.values() for row in part if row.get("error")), "unknown error")
            log = job_folder(self.store.root, job.id) / "log.txt"
            self.failures.append(Failure(f"{job.kind} {job.title}", str(error).splitlines()[0], log))
        return status
