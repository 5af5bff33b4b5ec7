"""What the driver keeps while jobs run: which are settled, which failed, and what may start next."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.jobs import checkpoint_of, failed_rows, has_latents, job_folder, log_of, read_rows, status_of, stopped_rows
from harness.jobs.rows import Rows, clear_rows
from harness.store import Store
from harness.sweep import AutoencoderJob, Job, Plan, TimingJob, TrainJob


class Failure(NamedTuple):
    """A job that failed, the first line of its error, and where to read on."""

    title: str
    error: str
    log: Path


@dataclass(frozen=True)
class _Waiting:
    autoencoders: list[AutoencoderJob]
    trainings: list[TrainJob]
    timings: list[TimingJob]

    @property
    def to_train(self) -> list[AutoencoderJob | TrainJob]:
        return [*self.autoencoders, *self.trainings]


class Ledger:
    """Moves rows of finished jobs into the tables and says what is left.

    Rows that a job left before its driver died count as found by this run, unless the job failed: it is run again.

    Args:
        plan: what should be done.
        store: its tables.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.done = 0
        self.arm_calls = 0
        self.failures: list[Failure] = []
        self._states = {planned.job.id: "done" for planned in plan.jobs if not planned.run}
        self._jobs: list[Job] = [planned.job for planned in plan.to_run]
        for planned in plan.to_run:
            rows = read_rows(job_folder(store.root, planned.job.id))
            if planned.reason == "not done yet" and rows is not None and self._is_whole(planned.job, rows):
                self._write(planned.job, rows)
            else:  # what failed before, or lost what it made, is run again
                clear_rows(job_folder(store.root, planned.job.id))

    def _is_whole(self, job: Job, rows: Rows) -> bool:
        """Whether rows that lie in a job's folder are those of a finished job whose files are there too."""
        if status_of(rows) == "done" and isinstance(job, TrainJob):
            return self.store.has_checkpoint(job.id, checkpoint_of(self.store.root, job.id))
        if status_of(rows) == "done" and isinstance(job, AutoencoderJob):
            return has_latents(self.store.root, job.id)
        return status_of(rows) != "failed"

    @property
    def waiting(self) -> _Waiting:
        """The jobs that are not settled; one whose autoencoder or training failed is settled at once, as failed."""
        for job in self._jobs:  # in the order of the plan: each after the one that it needs
            before = _before(job)
            if before is not None and job.id not in self._states and self._states.get(before) == "failed":
                self.lose(job, f"its {'training' if isinstance(job, TimingJob) else 'autoencoder'} failed")
        left = [job for job in self._jobs if job.id not in self._states]
        return _Waiting(
            [job for job in left if isinstance(job, AutoencoderJob)],
            [job for job in left if isinstance(job, TrainJob)],
            [job for job in left if isinstance(job, TimingJob)],
        )

    def ready(self, job: Job) -> bool:
        """Whether the job that it needs, if any, is done."""
        before = _before(job)
        return before is None or self._states.get(before) == "done"

    def states(self) -> dict[str, str]:
        """The jobs that are settled: id -> "done", "failed" or "stopped"."""
        return dict(self._states)

    def settle(self, job: Job) -> str | None:
        """Take over the rows of a job that came to its end: "done" or "failed"; None if it has not."""
        rows = read_rows(job_folder(self.store.root, job.id))
        return None if rows is None else self._write(job, rows)

    def lose(self, job: Job, error: str) -> None:
        """Record as failed a job that cannot come to its end."""
        self._write(job, failed_rows(job, error, self.store.root))

    def stop(self, job: TrainJob, metrics: Mapping[str, Any]) -> None:
        """Record that a search gave a training up."""
        self._write(job, stopped_rows(job, metrics))

    def _write(self, job: Job, rows: Rows) -> str:
        if isinstance(job, TrainJob) and status_of(rows) == "done":  # before the row that says so
            self.store.keep_checkpoint(job.id, checkpoint_of(self.store.root, job.id))
        self.store.write_job(job.id, rows)
        status = self._states[job.id] = status_of(rows)
        if status == "done":
            self.done += 1
            self.arm_calls += sum(sum(row["arm_calls"]) for row in rows.get("timings", ()))
        elif status == "failed":
            error = next((row["error"] for part in rows.values() for row in part if row.get("error")), "unknown error")
            log = log_of(self.store.root, job.id)
            self.failures.append(Failure(f"{job.kind} {job.title}", str(error).splitlines()[0], log))
        return status


def _before(job: Job) -> str | None:
    """The id of the job whose result this one needs."""
    if isinstance(job, TimingJob):
        return job.train_job
    return job.autoencoder_job if isinstance(job, TrainJob) else None
