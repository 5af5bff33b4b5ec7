"""What one job does, without Ray: it works in its own folder of the store and leaves its tables there."""

import contextlib
import os
import platform
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.jobs.lease import SupersededError, check, take
from harness.jobs.log import Log, last_lines, log_of
from harness.jobs.progress import Reporter
from harness.jobs.rows import TABLE_OF, Rows, job_columns
from harness.store import Store, job_folder

if TYPE_CHECKING:  # what only a running job needs is imported there: who watches jobs must not wait for torch
    from harness.jobs.steps import Report
    from harness.sweep.jobs import Job

CHECKPOINT = "checkpoint"

__all__ = ["checkpoint_of", "ended_rows", "job_folder", "log_of", "run_job"]


def checkpoint_of(root: Path, train_job: str) -> Path:
    """Where a training job leaves its checkpoint."""
    return job_folder(root, train_job) / CHECKPOINT


def run_job(
    job: "Job",
    root: Path,
    *,
    threads: int | None = None,
    cwd: Path | None = None,
    report: "Report" = lambda metrics: None,
) -> str:
    """Run a job to its end. A job that fails leaves a failed row and its traceback in log.txt; it does not raise.

    Args:
        job: what to do.
        root: of the store.
        threads: of torch; None leaves them as they are.
        cwd: where relative paths of plug-in files and data start, if this machine has that folder.
        report: called with the metrics of a training at every evaluation.

    Returns:
        "done" or "failed".
    """
    import torch

    from harness.jobs.latents import train_autoencoder
    from harness.jobs.machine import forget_peak_memory, keep_freed_memory
    from harness.jobs.steps import STATES, discard_states
    from harness.jobs.timing import time_samplers
    from harness.jobs.train import train
    from harness.sweep.jobs import AutoencoderJob, TrainJob

    store, folder = Store(root), job_folder(root, job.id)
    found = store.done(job.id)
    if found is not None and found.status == "done":
        return found.status  # Ray starts a job again whose process died when all was written
    folder.mkdir(parents=True, exist_ok=True)
    take(folder)
    store.forget(job.id)
    keep_freed_memory()
    forget_peak_memory()
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    reporter = Reporter(folder, job.id, job.kind, job.title, unit="")
    there = contextlib.chdir(cwd) if cwd is not None and cwd.is_dir() else contextlib.nullcontext()
    with there, contextlib.redirect_stdout(Log(folder)) as log:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: process {os.getpid()} on {platform.node()} begins", file=log)
        try:
            if isinstance(job, TrainJob):
                rows = train(job, folder, report)
            elif isinstance(job, AutoencoderJob):
                rows = train_autoencoder(job, folder, report)
            else:
                rows = time_samplers(job, folder, checkpoint_of(root, job.train_job) if job.train_job else None)
            note = ""
        except SupersededError:
            raise  # the job is another process's now, and so are its rows
        except Exception as error:  # whatever it is, it must become a row
            traceback.print_exc(file=log)
            note = f"{type(error).__name__}: {error}"
            rows = ended_rows(job, root, "failed", note)
        finally:
            torch.set_num_threads(before)
    check(folder)
    made = [place for place in sorted(folder.iterdir()) if place.is_dir() and place.name not in STATES]
    status = store.write_job(job.id, rows, made if not note else ())
    if status == "done":
        discard_states(folder)  # only now: until the tables are safe the training may have to go on from them
    reporter.end(status, note)
    return status


def ended_rows(job: "Job", root: Path, status: str, error: str | None = None, **known: Any) -> Rows:
    """The row of a job that did not come to its end: failed, with the last lines of its log, or stopped.

    Args:
        job: that ended.
        root: of the store.
        status: failed or stopped.
        error: why it failed.
        known: columns that are known all the same.
    """
    from harness.jobs.machine import provenance

    log = log_of(root, job.id)
    if status == "failed" and log.exists():
        known |= {"log": str(log.relative_to(root)), "log_tail": last_lines(log)}
    row = {**job_columns(job), "status": status, "error": error, **known, **provenance()}
    return {TABLE_OF[job.kind]: [row]}
