"""Jobs on Ray: Tune trials train, and each checkpoint is timed by a task that has its node to itself.

Results do not travel through Ray: a job leaves its tables in its folder of the store, which all nodes share, and the
driver looks there for its done.json.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import replace

from harness.execution.cluster import check_cluster, connected, live_nodes  # first: it sets what ray reads on import

# isort: split
from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.execution.metrics import exported
from harness.execution.patience import RETRIES, Patience
from harness.execution.placement import Placement, place
from harness.execution.timings import Timings
from harness.execution.trainings import Training, Trainings
from harness.store import Store
from harness.sweep import Job, Plan, TimingJob, TrainJob
from harness.sweep.spec import Resources

__all__ = ["connected", "execute", "live_nodes"]

_PAUSE_S, _LOOK_S = 0.2, 3.0


def execute(plan: Plan, store: Store, *, say: Callable[[str], object] = print) -> Ledger:
    """Run what the plan says has to run, on the Ray that is connected.

    A timing job starts as soon as its training is done and its node is free, while others still train.

    Args:
        plan: from `make_plan`.
        store: in which the jobs work; on a cluster a folder that all nodes share.
        say: told when something is waited for.

    Raises:
        InputError: no node of the cluster can run one of the kinds of job, or none could for a long time after nodes
            were lost; or the nodes cannot work together.
    """
    nodes = _Nodes(plan.sweep.resources, {_kind(planned.job) for planned in plan.to_run}, Patience(say))
    check_cluster(nodes.placement, store.root)
    ledger = Ledger(plan, store)
    with exported(plan, store.root, ledger):
        _run(plan, ledger, nodes, say)
    return ledger


def _run(plan: Plan, ledger: Ledger, nodes: "_Nodes", say: Callable[[str], object]) -> None:
    """Start what can start and settle what has ended, until nothing is left."""
    training = Trainings(plan.sweep, ledger.store, say)
    timing = Timings(ledger, plan.sweep.resources, say)
    while left := ledger.left():
        ended = training.ended()  # asked first: what it left behind is then there to be found
        for job in left:
            if not isinstance(job, TimingJob):
                _settle(job, ledger, training, ended)
        ledger.lose_followers()
        left = ledger.left()
        if ended:  # a first run for autoencoders and what needs none, a second for the ARMs of their latents
            training.start([j for j in left if not isinstance(j, TimingJob) and ledger.ready(j)], nodes.placement.train)
        nodes.look({_kind(job) for job in left})
        timing.advance(nodes.placement.timing)
        training.tell()
        if left:
            time.sleep(_PAUSE_S)


def _settle(job: Training, ledger: Ledger, training: Trainings, ended: bool) -> None:
    """Settle a training, if it has ended or cannot end any more."""
    if ledger.settle(job) is not None or not ended or job.id not in training.ids:
        return
    if isinstance(job, TrainJob) and job.id in training.stopped:
        ledger.stop(job, training.stopped[job.id])
    else:
        ledger.lose(job, training.error or f"its process died {RETRIES + 1} times")


def _kind(job: Job) -> str:
    return "timing" if isinstance(job, TimingJob) else "training"


class _Nodes:
    """Where jobs may go, looked up again and again: nodes are lost, and others come."""

    def __init__(self, resources: Resources, kinds: Collection[str], patience: Patience) -> None:
        self.resources, self.patience = resources, patience
        self.placement = place(live_nodes(), resources, kinds)
        self._looked = time.monotonic()

    def look(self, needed: Collection[str]) -> None:
        """See which nodes are left; raises when for too long none could run a kind of job that is needed."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        nodes, self._looked = live_nodes(), time.monotonic()
        for kind in needed:
            try:
                found = place(nodes, self.resources, {kind})
            except InputError as missing:
                self.patience.without(kind, missing)
                found = Placement(self.placement.train, ())
            else:
                self.patience.found(kind)
            if kind == "timing":
                self.placement = replace(self.placement, timing=found.timing)
            else:
                self.placement = replace(self.placement, train=found.train)
