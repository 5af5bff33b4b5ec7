"""Jobs one after the other in this process: no Ray, the same rows."""

from collections.abc import Callable

from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.jobs import run_job
from harness.jobs.machine import available_cpus
from harness.store import Store
from harness.sweep import Job, Plan, TimingJob
from harness.sweep.spec import Resources

Run = Callable[..., str]


def execute(plan: Plan, store: Store, resources: Resources, *, run: Run = run_job) -> Ledger:
    """Run what the plan says has to run.

    Args:
        plan: from `make_plan`.
        store: takes the rows.
        resources: for the threads of each kind of job.
        run: the function that runs a job.
    """
    if plan.search is not None and plan.search.method == "asha":
        raise InputError("search: asha stops trials that run side by side; leave --serial out, or use method: random")
    ledger = Ledger(plan, store)
    for autoencoder in ledger.waiting.autoencoders:
        _run(ledger, autoencoder, run, resources)
    for training in ledger.waiting.trainings:
        _run(ledger, training, run, resources)
    for timing in ledger.waiting.timings:
        _run(ledger, timing, run, resources)
    return ledger


def _run(ledger: Ledger, job: Job, run: Run, resources: Resources) -> None:
    role = resources.timing if isinstance(job, TimingJob) else resources.train
    # Alone in this process a training may use what the machine has, unless the sweep file says how many threads.
    run(job, ledger.store.root, threads=role.threads or available_cpus())
    ledger.settle(job)
