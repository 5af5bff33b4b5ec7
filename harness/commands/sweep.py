"""`harness sweep`: from a file to a full store, or to the line that goes on with it."""

import shlex
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.text import Text

from arm_core.errors import InputError
from harness.console import CONSOLE, SHOWN
from harness.execution.endings import is_full, terminated_as_interrupted
from harness.execution.ledger import Ledger
from harness.execution.monitor import watching
from harness.jobs import checkpoint_of
from harness.store import Store
from harness.sweep import LoggingSpec, Plan, TrainJob, draw_jobs, load_sweep, settle
from harness.sweep.shipped import sweep_file

FEWEST_SEEDS = 5
"""With fewer repetitions an interval is rough, or none."""
NAMED = 8
"""Datasets and variants that a remark names."""


@dataclass(frozen=True)
class SweepCommand:
    """What `harness sweep` was asked to do: its options, as the command line has them."""

    file: Path
    store: Path = Path("runs")
    profile: str | None = None
    only: tuple[str, ...] = ()
    dry_run: bool = False
    verbose: bool = False
    serial: bool = False
    address: str = "local"
    dashboard: bool = True

    def line(self) -> str:
        """The command that goes on with the sweep."""
        words = ["harness", "sweep", str(self.file)]
        words += ["--profile", self.profile] if self.profile is not None else []
        words += [word for item in self.only for word in ("--only", item)]
        words += ["--serial"] if self.serial else []
        words += ["--address", self.address] if self.address != "local" else []
        return shlex.join([*words, "--store", str(self.store)])


def run_sweep(command: SweepCommand) -> int:
    """Do what `harness sweep` says; returns the exit code."""
    store, spec = Store(command.store), load_sweep(sweep_file(command.file), profile=command.profile)
    drawn = draw_jobs(spec)
    if spec.timing is not None and len(spec.timing.seeds) < FEWEST_SEEDS:
        CONSOLE.print(
            f"{len(spec.timing.seeds)} repetitions: intervals want {FEWEST_SEEDS} or more (timing.seeds).",
            soft_wrap=True,
        )
    if spec.search is not None and spec.search.method != "grid" and spec.search.settings < spec.search.count:
        few = f"{spec.search.settings} different settings; {spec.search.count} trials were asked for (search.count)"
        CONSOLE.print(f"The space of the search has {few}: each is tried once.", soft_wrap=True)
    for text, names in drawn.notes.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        CONSOLE.print(f"{', '.join(names[:NAMED])}{more}: {text}.", soft_wrap=True)
    if command.dry_run:
        from harness.commands import dry_run

        plan = settle(drawn, store.outcomes(drawn.jobs), only=command.only)
        return dry_run.show(plan, store, verbose=command.verbose)
    with store.locked(), terminated_as_interrupted():
        plan = settle(drawn, store.outcomes(drawn.jobs), only=command.only)
        _print_plan(plan)
        try:
            store.write_sweep(plan.record())  # also when nothing runs: names may have changed
            return _conclude(plan, _execute(plan, store, command), store) if plan.to_run else 0
        except KeyboardInterrupt:
            CONSOLE.print(f"\nStopped. What was finished is kept. To go on: {command.line()}", soft_wrap=True)
            return 130
        except OSError as error:
            if not is_full(error) and error.filename is None:  # nothing that its user can mend
                raise
            full = is_full(error)
            what = f"there is no room left for the store {store.root}" if full else f"{error.filename} failed"
            mend = f"{'free some space' if full else 'see to it'}, then: {command.line()}"
            raise InputError(f"{what} ({error.strerror}). What was finished is kept; {mend}") from None


def _print_plan(plan: Plan) -> None:
    CONSOLE.print(f"{plan.sweep.title}: {len(plan.to_run)} of {len(plan.jobs)} jobs to run", soft_wrap=True)
    if len(plan.jobs) > SHOWN:
        for (run, reason), many in Counter((planned.run, planned.reason) for planned in plan.jobs).items():
            CONSOLE.print(f"  {'run ' if run else 'skip'}  {many} jobs ({reason})")
    for planned in plan.jobs if len(plan.jobs) <= SHOWN else ():
        mark = "run " if planned.run else "skip"
        said = f"  {mark}  {planned.job.kind:<6}  {planned.job.title}  "
        CONSOLE.print(Text.assemble(said, (f"({planned.reason})", "dim")), soft_wrap=True)
    if not plan.to_run:
        CONSOLE.print("Nothing to do: every job is done. See the results with: harness report")


def _execute(plan: Plan, store: Store, command: SweepCommand) -> Ledger:
    if command.serial:
        from harness.execution import serial as backend

        if plan.sweep.logging != LoggingSpec():
            CONSOLE.print("Nothing is logged under --serial: `logging:` goes through Ray Tune.")
        with watching(plan, store.root, CONSOLE):
            return backend.execute(plan, store)
    from harness.execution.environment import prepare

    prepare(command.address)
    from harness.execution import ray
    from harness.execution.start import dashboard_line

    local = command.address == "local"
    CONSOLE.print("Starting Ray ..." if local else f"Connecting to Ray at {command.address} ...", soft_wrap=True)
    with ray.connected(command.address, dashboard=command.dashboard) as url, terminated_as_interrupted():
        if url:
            CONSOLE.print(dashboard_line(url), soft_wrap=True)
        with watching(plan, store.root, CONSOLE):
            return ray.execute(plan, store, say=partial(CONSOLE.print, soft_wrap=True))


def _conclude(plan: Plan, ledger: Ledger, store: Store) -> int:
    for planned in plan.jobs:
        place = checkpoint_of(store.root, planned.job.id)
        if isinstance(planned.job, TrainJob) and place.exists():
            CONSOLE.print(f"{planned.job.title}: checkpoint {place}", soft_wrap=True)
    CONSOLE.print(f"{ledger.done} jobs done, {len(ledger.failures)} failed.")
    for failure in ledger.failures:
        CONSOLE.print(f"{failure.title}: {failure.error} (log: {failure.log})", soft_wrap=True)
    if ledger.failures:
        CONSOLE.print("Run the same command again to retry the failed jobs.")
        return 1
    return 0
