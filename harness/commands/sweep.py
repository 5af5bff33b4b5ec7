"""`harness sweep`: from a file to a full store, or to the line that goes on with it."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from arm_core.errors import InputError
from harness.execution.endings import is_full, resume_line, terminated_as_interrupted
from harness.execution.ledger import Ledger
from harness.execution.monitor import failures_text, watching
from harness.jobs import checkpoint_of, has_latents
from harness.store import Store
from harness.sweep import Job, Plan, Sweep, TimingJob, TrainJob, load_sweep, make_plan
from harness.sweep.shipped import sweep_file

CONSOLE = Console(highlight=False)


def run_sweep(
    file: Path,
    *,
    profile: str | None,
    only: Sequence[str],
    dry_run: bool,
    serial: bool,
    address: str,
    dashboard: bool,
    root: Path | str,
    work: Path | None = None,
) -> int:
    """Do what `harness sweep` says; returns the exit code."""
    store = Store(root, work=work)
    spec = load_sweep(sweep_file(file), profile=profile, only=only)
    plan = _plan(spec, store)
    _print_plan(plan, settings=dry_run)
    if dry_run or not plan.to_run:
        return 0
    resume = resume_line(file, profile=profile, only=only, serial=serial, address=address, root=root, work=work)
    with store.locked(), terminated_as_interrupted():
        try:
            store.write_sweep(plan.record())
            _bring_checkpoints(plan, store)
            ledger = _execute(spec, plan, store, serial=serial, address=address, dashboard=dashboard)
        except KeyboardInterrupt:
            CONSOLE.print(f"\nStopped. What was finished is kept. To go on: {resume}", markup=False, soft_wrap=True)
            return 130
        except OSError as error:
            if not is_full(error) and error.filename is None:  # nothing that its user can mend
                raise
            what = f"there is no room left for the store {root}" if is_full(error) else f"{error.filename} failed"
            mend = "free some space" if is_full(error) else "see to it"
            raise InputError(f"{what} ({error.strerror}). What was finished is kept; {mend}, then: {resume}") from None
    return _conclude(plan, ledger, store)


def _plan(spec: Sweep, store: Store) -> Plan:
    """The plan; an autoencoder that a training needs runs again if its latents are gone."""
    outcomes = _outcomes(store)
    plan = make_plan(spec, outcomes)
    needed = {p.job.autoencoder_job for p in plan.to_run if isinstance(p.job, TrainJob)} - {None}
    gone = {job for job in needed if outcomes.get(str(job)) == "done" and not has_latents(store.root, str(job))}
    return make_plan(spec, {job: state for job, state in outcomes.items() if job not in gone}) if gone else plan


def _outcomes(store: Store) -> dict[str, str]:
    """The store's outcomes, but for trainings whose checkpoint is gone."""
    trained = set(store.read("trials", columns=["job"])["job"])
    outcomes = store.outcomes()
    return {
        job: state
        for job, state in outcomes.items()
        if job not in trained or state != "done" or store.has_checkpoint(job, checkpoint_of(store.root, job))
    }


def _bring_checkpoints(plan: Plan, store: Store) -> None:
    """Put the checkpoints that are going to be timed, and were trained elsewhere, where the jobs look for them."""
    runs = {planned.job.id for planned in plan.to_run}
    for planned in plan.to_run:
        if isinstance(planned.job, TimingJob) and planned.job.train_job not in runs:
            store.bring_checkpoint(planned.job.train_job, checkpoint_of(store.root, planned.job.train_job))


def _print_plan(plan: Plan, *, settings: bool) -> None:
    name = plan.sweep if plan.profile is None else f"{plan.sweep} ({plan.profile})"
    CONSOLE.print(f"{name}: {len(plan.to_run)} of {len(plan.jobs)} jobs to run")
    for planned in plan.jobs:
        mark = "run " if planned.run else "skip"
        CONSOLE.print(f"  {mark}  {planned.job.kind:<6}  {planned.job.title}  [dim]({planned.reason})[/dim]")
        if settings:
            _print_settings(planned.job)
    if not plan.to_run:
        CONSOLE.print("Nothing to do: every job is done. See the results with: harness report --out results/")


def _print_settings(job: Job) -> None:
    """Every setting that the job will use, those that the file leaves out included."""
    hidden = {"id", "title", "sweep", "profile", "dataset", "variant", "kind", "train_job", "autoencoder_job"}
    for name, value in job.model_dump(exclude=hidden).items():
        if value is not None:
            CONSOLE.print(f"        {name}: {json.dumps(value)}", soft_wrap=True, markup=False, style="dim")


def _execute(spec: Sweep, plan: Plan, store: Store, *, serial: bool, address: str, dashboard: bool) -> Ledger:
    if serial:
        from harness.execution import serial as backend

        with watching(plan, store.root, CONSOLE):
            return backend.execute(plan, store, spec.resources)
    from harness.execution import ray
    from harness.execution.start import dashboard_line

    CONSOLE.print("Starting Ray ..." if address == "local" else f"Connecting to Ray at {address} ...")
    # Without GPUs only: none has shown yet that a process may get them after its imports.
    trains = any(not isinstance(planned.job, TimingJob) for planned in plan.to_run)
    ahead = address == "local" and trains and not spec.resources.train.gpus
    with ray.connected(address, dashboard=dashboard, ahead=ahead) as url, terminated_as_interrupted():
        if url:
            CONSOLE.print(dashboard_line(url), soft_wrap=True)
        say = partial(CONSOLE.print, markup=False, soft_wrap=True)
        with watching(plan, store.root, CONSOLE):
            return ray.execute(plan, store, spec.resources, ahead=ahead, say=say)


def _conclude(plan: Plan, ledger: Ledger, store: Store) -> int:
    for planned in plan.jobs:
        place = checkpoint_of(store.root, planned.job.id)
        if isinstance(planned.job, TrainJob) and place.exists():
            CONSOLE.print(f"{planned.job.title}: checkpoint {place}", soft_wrap=True)
    CONSOLE.print(f"{ledger.done} jobs done, {len(ledger.failures)} failed.")
    if ledger.failures:
        CONSOLE.print(failures_text(ledger.failures), soft_wrap=True, markup=False)
        CONSOLE.print("Run the same command again to retry the failed jobs.")
        return 1
    return 0
