"""Jobs on Ray: Tune trials train, and each checkpoint is timed by a task that has its node to itself.

With `harness.execution.cluster` the only importer of ray. Results do not travel through Ray: a job leaves its rows in
its folder of the store, which all nodes share, and the driver takes them over from there.
"""

import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.execution.cluster import (
    check_cluster,
    connected,
    live_nodes,
)  # first: it sets what ray reads when it is imported

# isort: split
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.execution.metrics import exported
from harness.execution.patience import Patience
from harness.execution.placement import KINDS, Placement, Request, place
from harness.jobs import job_folder, run_job
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import AutoencoderJob, Plan, TimingJob, TrainJob, job_from_json
from harness.sweep.search import SearchSpec
from harness.sweep.spec import Resources

__all__ = ["connected", "execute"]

_Training = AutoencoderJob | TrainJob
RETRIES = 2
"""How often a job whose process died is tried again; a job that raises is not, it would raise again."""
_PAUSE_S, _LOOK_S = 0.2, 3.0


def execute(plan: Plan, store: Store, resources: Resources, *, say: Callable[[str], object] = print) -> Ledger:
    """Run what the plan says has to run, on the Ray that is connected.

    A timing job starts as soon as its training is done and its node is free, while others still train.

    Args:
        plan: from `make_plan`.
        store: takes the rows; on a cluster a folder that all nodes share.
        resources: of the sweep.
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
        _run(plan, ledger, nodes, say)
    return ledger


def _run(plan: Plan, ledger: Ledger, nodes: "_Nodes", say: Callable[[str], object]) -> None:
    """Start what can start and take over what has ended, until nothing is left."""
    store, resources, waiting = ledger.store, nodes.resources, ledger.waiting
    training = _Trainings([], store, nodes.placement.train, resources, None)
    timing = _Timings(ledger, resources, say)
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
            training = _Trainings(ready, store, nodes.placement.train, resources, plan.search)
        nodes.look([kind for kind, left in zip(KINDS, (waiting.to_train, waiting.timings), strict=True) if left])
        timing.advance(nodes.placement.timing)
        time.sleep(_PAUSE_S)
        waiting = ledger.waiting


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


class _Trainings:
    """Trainings that need nothing more, as one Tune run in a thread of its own."""

    def __init__(
        self,
        jobs: list[_Training],
        store: Store,
        request: Request | None,
        resources: Resources,
        search: SearchSpec | None,
    ) -> None:
        self.error = ""
        self.stopped: dict[str, dict[str, Any]] = {}
        self._early = search is not None and search.method == "asha"
        self.ids = {job.id for job in jobs}
        self._thread: threading.Thread | None = None
        if jobs and request is not None:
            fit = _tuner(jobs, store, request, resources, search).fit
            self._thread = threading.Thread(target=self._fit, args=(fit,), daemon=True)
            self._thread.start()

    def ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _fit(self, fit: Callable[[], Any]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = fit()
        except Exception as error:  # it must reach the rows of the trainings that did not end
            self.error = f"Ray Tune stopped: {type(error).__name__}: {error}"
            return
        for result in results if self._early else ():  # one that ended by itself has left its rows; the others were cut
            if result.error is None and result.config is not None:
                self.stopped[job_from_json(result.config["job"]).id] = dict(result.metrics or {})


def _tuner(
    jobs: list[_Training], store: Store, request: Request, resources: Resources, search: SearchSpec | None
) -> tune.Tuner:
    titles = {job.model_dump_json(): job.title.replace(" ", "-") for job in jobs}
    bundle = {"CPU": request.cpus, **({"GPU": request.gpus} if request.gpus else {})}
    selector: dict[str, Any] = {"bundle_label_selector": [request.labels]} if request.labels else {}
    return tune.Tuner(
        tune.with_resources(_train, tune.PlacementGroupFactory([bundle], **selector)),
        param_space={
            "job": tune.grid_search(list(titles)),
            "root": str(store.root.resolve()),
            "threads": resources.train.threads or int(request.cpus),
        },
        tune_config=tune.TuneConfig(
            scheduler=_scheduler(jobs, search),
            trial_name_creator=lambda trial: titles[trial.config["job"]],
            trial_dirname_creator=lambda trial: titles[trial.config["job"]],
        ),
        run_config=tune.RunConfig(
            name=f"{jobs[0].sweep}-{int(time.time())}",
            storage_path=str((store.root / "ray").resolve()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _scheduler(jobs: list[_Training], search: SearchSpec | None) -> Any:
    """ASHA on validation bits/dim for a search that asks for it; otherwise every trial runs to its end."""
    if search is None or search.method != "asha":
        return None
    longest = max(job.training["iterations"] for job in jobs)
    return ASHAScheduler(
        time_attr="step",
        metric="valid_bits_per_dim",
        mode="min",
        max_t=longest,
        grace_period=min(search.grace, longest),
        reduction_factor=search.factor,
    )


def _train(config: dict[str, Any]) -> None:
    job = job_from_json(config["job"])
    assert not isinstance(job, TimingJob)
    last = job.training["iterations"]

    def report(metrics: dict[str, Any]) -> None:
        """Tell Tune of every step but the last: a search would cut a training that is about to write its rows."""
        if metrics["step"] < last:
            tune.report(metrics)

    run_job(job, Path(config["root"]), threads=config["threads"], report=report)


_train.__name__ = "train"  # what the dashboard shows


def _time(job: str, root: str, threads: int) -> None:
    run_job(TimingJob.model_validate_json(job), Path(root), threads=threads)


@dataclass
class _Sent:
    """A timing job that was sent to a node."""

    job: TimingJob
    node: str | None
    at: float = field(default_factory=time.time)


class _Timings:
    """Timing jobs, one at a time on each timing node, each of which it takes whole."""

    def __init__(self, ledger: Ledger, resources: Resources, say: Callable[[str], object]) -> None:
        self.ledger, self.resources, self.say = ledger, resources, say
        self._sent: dict[Any, _Sent] = {}
        self._deaths: Counter[str] = Counter()
        self._told: set[str] = set()

    def advance(self, nodes: Sequence[Request]) -> None:
        """Take over what has ended, and send the next jobs to the nodes that are free."""
        for task in _finished(list(self._sent)):
            self._settle(self._sent.pop(task).job, task)
        busy = {sent.node for sent in self._sent.values()}
        taken = {sent.job.id for sent in self._sent.values()}
        ready = [job for job in self.ledger.waiting.timings if self.ledger.ready(job) and job.id not in taken]
        free = [request for request in nodes if request.node not in busy]
        for request, job in zip(free, ready, strict=False):
            self._sent[self._send(job, request)] = _Sent(job, request.node)
        for sent in self._sent.values():
            self._tell(sent)

    def _send(self, job: TimingJob, request: Request) -> Any:
        remote = ray.remote(_time).options(
            name=f"timing {job.title}",
            num_cpus=request.cpus,
            num_gpus=request.gpus,
            resources={"timing": 1},
            label_selector=request.labels or None,
            scheduling_strategy=NodeAffinitySchedulingStrategy(request.node, soft=False),
            max_retries=0,  # by us, on whichever node is then there
        )
        root = str(self.ledger.store.root.resolve())
        return remote.remote(job.model_dump_json(), root, self.resources.timing.threads or int(request.cpus))

    def _settle(self, job: TimingJob, task: Any) -> None:
        try:
            ray.get(task)
            error = "it ended without a result"
        except ray.exceptions.RayTaskError as raised:
            error = f"{type(raised.cause).__name__}: {raised.cause}"
        except ray.exceptions.TaskUnschedulableError:
            return  # its node was lost before it started: it is still waiting
        except ray.exceptions.RayError as died:
            self._deaths[job.id] += 1
            if self._deaths[job.id] <= RETRIES and self.ledger.settle(job) is None:
                return
            error = f"its process died {RETRIES + 1} times: {str(died).splitlines()[0]}"
        if self.ledger.settle(job) is None:
            self.ledger.lose(job, error)

    def _tell(self, sent: _Sent) -> None:
        """Say so, once a job, when its node does not get free."""
        if time.time() - sent.at < Patience.NOTICE_S or sent.job.id in self._told:
            return
        progress = read_progress(job_folder(self.ledger.store.root, sent.job.id))
        self._told.add(sent.job.id)
        if progress is None or progress.updated_at < sent.at:
            self.say(f"timing {sent.job.title} waits until its node is free: it takes all of its CPUs and GPUs")


def _finished(tasks: list[Any]) -> list[Any]:
    return ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if tasks else []
