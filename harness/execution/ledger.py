"""What the driver keeps while jobs run: which are settled, which failed, and what may start next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.jobs import ended_rows, log_of
from harness.jobs.rows import TABLE_OF, Rows
from harness.store import Store
from harness.sweep import Job, Plan, TimingJob, TrainJob, needed_by


class Failure(NamedTuple):
    """A job that failed, the first line of its error, and where to read on."""

    title: str
    error: str
    log: Path


class Ledger:
    """Says which jobs of a plan are settled, from what they left in their folders, and what is left.

    Attributes:
        done: jobs that this run finished.
        arm_calls: of the timing jobs among them.
        failures: of this run.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store, self.done, self.arm_calls = store, 0, 0
        self.failures: list[Failure] = []
        self._jobs: dict[str, Job] = {planned.job.id: planned.job for planned in plan.to_run}
        self._states = store.outcomes(planned.job.id for planned in plan.jobs if not planned.run)
        for job in self._jobs:
            store.forget(job)

    def left(self) -> list[Job]:
        """The jobs that are not settled, each after the one that it needs."""
        return [job for job in self._jobs.values() if job.id not in self._states]

    def ready(self, job: Job) -> bool:
        """Whether the job that it needs, if any, is done."""
        before = needed_by(job)
        return before is None or self._states.get(before) == "done"

    def states(self) -> dict[str, str]:
        """The jobs that are settled: id -> "done", "failed" or "stopped"."""
        return dict(self._states)

    def settle(self, job: Job) -> str | None:
        """How a job ended: "done", "failed" or "stopped"; None if it has not."""
        found = self.store.done(job.id)
        if found is None:
            return None
        self._states[job.id] = found.status
        if found.status == "done":
            self.done += 1
            if isinstance(job, TimingJob):
                _, (calls,) = self.store.read_ragged("timings", [], ["arm_calls"], jobs=[job.id])
                self.arm_calls += int(calls.values.sum())
        elif found.status == "failed":
            self._failed(job)
        return found.status

    def lose(self, job: Job, error: str) -> None:
        """Record as failed a job that cannot come to its end."""
        self._end(job, ended_rows(job, self.store.root, "failed", error))

    def lose_followers(self) -> None:
        """Record as failed the jobs whose autoencoder or training failed."""
        for job in self.left():
            if self._states.get(needed_by(job) or "") == "failed":
                self.lose(job, f"its {'training' if isinstance(job, TimingJob) else 'autoencoder'} failed")

    def stop(self, job: TrainJob, metrics: Mapping[str, Any]) -> None:
        """Record that a search gave a training up."""
        known = {name: metrics[name] for name in ("train_bits_per_dim", "valid_bits_per_dim") if name in metrics}
        self._end(job, ended_rows(job, self.store.root, "stopped", iterations=metrics.get("step"), **known))

    def _end(self, job: Job, rows: Rows) -> None:
        self.store.write_job(job.id, rows)
        self.settle(job)

    def _failed(self, job: Job) -> None:
        errors = self.store.read(TABLE_OF[job.kind], jobs=[job.id], columns=["error"])["error"].dropna()
        first = str(errors.iloc[0]).splitlines()[0] if len(errors) else "unknown error"
        self.failures.append(Failure(f"{job.kind} {job.title}", first, log_of(self.store.root, job.id)))
