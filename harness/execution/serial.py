"""Jobs one after the other in this process: no Ray, the same rows."""

from collections.abc import Callable

from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.jobs import run_job
from harness.jobs.machine import available_cpus
from harness.store import Store
from harness.sweep import Plan, TimingJob


def execute(plan: Plan, store: Store, *, run: Callable[..., str] = run_job) -> Ledger:
    """Run what the plan says has to run: first what trains, then what is timed.

    Args:
        plan: from `make_plan`.
        store: in which the jobs work.
        run: the function that runs a job.
    """
    if plan.sweep.stops_early:
        raise InputError("search: asha stops trials that run side by side; leave --serial out, or use method: random")
    ledger, resources = Ledger(plan, store), plan.sweep.resources
    for job in sorted(ledger.left(), key=lambda job: isinstance(job, TimingJob)):
        ledger.lose_followers()
        if job.id in ledger.states():
            continue
        role = resources.timing if isinstance(job, TimingJob) else resources.train
        # Alone in this process a training may use what the machine has, unless the sweep file says how many threads.
        run(job, store.root, threads=role.threads or available_cpus())
        ledger.settle(job)
    return ledger
