"""What the commands do, apart from reading their options."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from arm_core import (
    AutoregressiveModel,
    InputError,
    Layout,
    testing,
)
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.registry import ARMS, DATASETS, FORECASTERS, Registry, config_type, suggest
from harness.execution.endings import is_full, resume_line, terminated_as_interrupted
from harness.execution.ledger import Ledger
from harness.execution.monitor import failures_text, watching
from harness.jobs import checkpoint_of
from harness.shipped import sweep_file
from harness.store import Store
from harness.sweep import Job, Plan, Sweep, TimingJob, TrainJob, load_sweep, make_plan

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
    plan = make_plan(spec, _outcomes(store))
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
            if not is_full(error):
                raise
            raise InputError(
                f"there is no room left for the store {root} ({error.strerror}). What was finished is kept; free some "
                f"space, then: {resume}"
            ) from None
    return _conclude(plan, ledger, store)


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

    CONSOLE.print("Starting Ray ..." if address == "local" else f"Connecting to Ray at {address} ...")
    with ray.connected(address, dashboard=dashboard) as url:
        if url:
            CONSOLE.print(f"Dashboard: http://{url} (it asks for the token that `ray get-auth-token` prints)")
        with watching(plan, store.root, CONSOLE):
            return ray.execute(plan, store, spec.resources, say=partial(CONSOLE.print, markup=False, soft_wrap=True))


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


def run_bench_training(size: str, *, resnets: int, filters: int, batch_size: int, accumulate: int, steps: int) -> None:
    """Print what a training step takes, and where its time goes."""
    from harness.bench_training import Step, cost_of

    parts = size.split("x")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise InputError(f"--size must be HEIGHTxWIDTHxCHANNELSxCATEGORIES, for example 28x28x1x2, got {size!r}")
    height, width, channels, categories = map(int, parts)
    step = Step(Layout(channels, height, width, categories), PixelCNNConfig(resnets, filters), batch_size, accumulate)
    costs = cost_of(step, steps=steps)
    CONSOLE.print(
        f"masked {costs.masked_s:.3f} s, plain {costs.plain_s:.3f} s a step: ratio {costs.ratio:.3f}; not convolution "
        f"{costs.other_share:.1%}; peak memory {costs.masked_bytes / 2**20:.0f} MiB masked, "
        f"{costs.plain_bytes / 2**20:.0f} MiB plain",
        soft_wrap=True,
    )


def run_checks(reference: str, kind: str | None) -> int:
    """Run the contract checks, a line each; returns the exit code."""
    failed = 0
    for name, check in _checks(reference, kind or _kind_of(reference)):
        try:
            check()
            CONSOLE.print(f"[green]holds[/green]  {name}", soft_wrap=True)
        except AssertionError as error:
            failed += 1
            CONSOLE.print(f"[red]fails[/red]  {name}: {error}", soft_wrap=True)
    CONSOLE.print("Every property holds." if not failed else f"{failed} properties fail.")
    return 1 if failed else 0


_REGISTRIES: dict[str, Registry] = {"arm": ARMS, "forecaster": FORECASTERS, "dataset": DATASETS}


def _kind_of(reference: str) -> str:
    for kind, registry in _REGISTRIES.items():
        if reference in registry.entries:
            return kind
    if ":" not in reference:
        every = [name for registry in _REGISTRIES.values() for name in registry.entries]
        raise suggest("component", reference, [*every, "module:attr", "file.py:attr"])
    found = ARMS.resolve(reference)
    if isinstance(found, type) and issubclass(found, AutoregressiveModel):
        return "arm"
    return "dataset" if hasattr(found, "split") else "forecaster"


def _checks(reference: str, kind: str) -> Iterator[testing.Check]:
    component = _REGISTRIES[kind].resolve(reference)
    config = config_type(component)
    if kind == "arm":
        small = PixelCNNConfig(resnets=1, filters=12) if component is PixelCNN else config and config()
        return testing.arm_checks(lambda layout: component(layout, small) if config else component(layout))
    if kind == "dataset":
        dataset = load_dataset(reference)
        return iter([(f"{reference}: splits fit the layout", lambda: testing.check_dataset(dataset))])
    if reference == "learned":
        raise InputError("learned is made of trained modules, not a class of its own; `harness sweep` times it exactly")
    arms = [PixelCNN(layout, PixelCNNConfig(resnets=1, filters=12)).double() for layout in testing.SMALL_LAYOUTS]
    for arm in arms:
        testing.randomise(arm)

    def build(layout: Layout) -> testing.Forecaster:
        if not isinstance(component, type):
            return component
        return component(layout, config()) if config else component(layout)

    return testing.forecaster_checks(build, arms)
