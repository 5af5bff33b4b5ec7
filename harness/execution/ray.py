"""Jobs on Ray: Tune trials train, and each checkpoint is timed by a task that has its node to itself.

Results do not travel through Ray: a job leaves its rows in its folder of the store, which all nodes share, and the
driver takes them over from there.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import replace

from harness.execution.cluster import check_cluster, connected, live_nodes  # first: it sets what ray reads on import

# isort: split
from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.execution.metrics import exported
from harness.execution.patience import Patience
from harness.execution.placement import KINDS, Placement, place
from harness.execution.timings import Timings
from harness.execution.trainings import RETRIES, Trainings
from harness.store import Store
from harness.sweep import Plan, TimingJob, TrainJob
from harness.sweep.spec import Resources

__all__ = ["connected", "execute", "live_nodes"]

_PAUSE_S, _LOOK_S = 0.2, 3.0


def execute(
    plan: Plan, store: Store, resources: Resources, *, ahead: bool = False, say: Callable[[str], object] = print
) -> Ledger:
    """Run what the plan says has to run, on the Ray that is connected.

    A timing job starts as soon as its training is done and its node is free, while others still train.

    Args:
        plan: from `make_plan`.
        store: takes the rows; on a cluster a folder that all nodes share.
        resources: of the sweep.
        ahead: whether the process of the next training may be started while others run: on a Ray of our own.
        say: told when something is waited for.

    Raises:
        InputError: no node of the cluster can run one of the kinds of job, or none could for a long time after nodes
            were lost; or the nodes cannot work together.
    """
    kinds = {"timing" if isinstance(planned.job, TimingJob) else "training" for planned in plan.to_run}
    nodes = _Nodes(resources, kinds, Patience(say))
    check_cluster(nodes.placement, store.root)
    ledger = Ledger(plan, store)
    with exported(plan, store.root, ledger):
        _run(plan, ledger, nodes, nodes.at_once if ahead else None, say)
    return ledger


def _run(plan: Plan, ledger: Ledger, nodes: "_Nodes", at_once: int | None, say: Callable[[str], object]) -> None:
    """Start what can start and take over what has ended, until nothing is left."""
    store, resources, waiting = ledger.store, nodes.resources, ledger.waiting
    training = Trainings([], store, None, resources, None, None, say)
    timing = Timings(ledger, resources, say)
    while waiting.autoencoders or waiting.trainings or waiting.timings:
        ended = training.ended()  # asked first: what it left behind is then there to be found
        for job in waiting.to_train:
            if ledger.settle(job) is not None or not ended or job.id not in training.ids:
                continue
            if isinstance(job, TrainJob) and job.id in training.stopped:
                ledger.stop(job, training.stopped[job.id])
            else:
                ledger.lose(job, training.error or f"its process died {RETRIES + 1} times")
        waiting = ledger.waiting
        if ended:  # a first run for autoencoders and what needs none, a second for the ARMs of their latents
            ready = [job for job in waiting.to_train if ledger.ready(job)]
            training = Trainings(ready, store, nodes.placement.train, resources, plan.search, at_once, say)
        nodes.look([kind for kind, left in zip(KINDS, (waiting.to_train, waiting.timings), strict=True) if left])
        timing.advance(nodes.placement.timing)
        training.tell()
        time.sleep(_PAUSE_S)
        waiting = ledger.waiting


class _Nodes:
    """Where jobs may go, looked up again and again: nodes are lost, and others come."""

    def __init__(self, resources: Resources, kinds: Collection[str], patience: Patience) -> None:
        self.resources, self.patience = resources, patience
        self.placement = place(live_nodes(), resources, kinds)
        self._looked = time.monotonic()

    @property
    def at_once(self) -> int | None:
        """How many trainings the CPUs of all nodes can run at a time; None where none may start."""
        train = self.placement.train
        return int(sum(node["Resources"].get("CPU", 0) for node in live_nodes()) // train.cpus) if train else None

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
