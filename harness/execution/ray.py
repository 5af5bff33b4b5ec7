"""Jobs on Ray: Tune trials train, and each checkpoint is timed by a task that has its node to itself.

The only importer of ray. Results do not travel through Ray: a job leaves its rows in its folder of the store, which all
nodes share, and the driver takes them over from there.
"""

import os

os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",  # these are read while ray is imported
    RAY_ENABLE_AUTO_CONNECT="0",  # or the thread that Tune runs in starts a second Ray when we stop the first
    RAY_USAGE_STATS_ENABLED="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
)

import logging
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from arm_core.errors import InputError
from harness.execution.ledger import Ledger
from harness.execution.placement import Request, place
from harness.jobs import run_job
from harness.jobs.machine import available_cpus
from harness.store import Store
from harness.sweep import AutoencoderJob, Plan, TimingJob, TrainJob, job_from_json
from harness.sweep.search import SearchSpec
from harness.sweep.spec import Resources

_Training = AutoencoderJob | TrainJob
RETRIES = 2
"""How often a job whose process died is tried again; a job that raises is not, it would raise again."""
_PAUSE_S, _CONNECT_S = 0.2, 5.0


@contextmanager
def connected(address: str, *, dashboard: bool = True) -> Iterator[str | None]:
    """A Ray of our own ("local") or a running cluster; gives the dashboard's address.

    Raises:
        InputError: there is no cluster at the address.
    """
    local: dict[str, Any] = {}
    if address != "local":
        _check_listens(address)
    else:
        local = {"num_cpus": available_cpus(), "resources": {"timing": 1}, "include_dashboard": dashboard}
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise InputError(f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`") from None
    try:
        yield context.dashboard_url
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Ray itself tries for minutes, without a word."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"--address must be local or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head --port {port}`"
        ) from None


def execute(plan: Plan, store: Store, resources: Resources) -> Ledger:
    """Run what the plan says has to run, on the Ray that is connected.

    A timing job is submitted as soon as its training is done, while others still train.

    Args:
        plan: from `make_plan`.
        store: takes the rows; on a cluster a folder that all nodes share.
        resources: of the sweep.

    Raises:
        InputError: no node of the cluster can run one of the kinds of job.
    """
    placement = place(ray.nodes(), resources)
    ledger = Ledger(plan, store)
    waiting = ledger.waiting
    training = _Trainings([], store, placement.train, resources, None)
    timing: dict[Any, TimingJob] = {}
    submitted: set[str] = set()
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
            training = _Trainings(ready, store, placement.train, resources, plan.search)
        for next_job in waiting.timings:
            if ledger.ready(next_job) and next_job.id not in submitted:
                submitted.add(next_job.id)
                timing[_submit(next_job, store, placement.timing, resources)] = next_job
        for task in _finished(list(timing)):
            _settle_timing(ledger, timing.pop(task), task)
        time.sleep(_PAUSE_S)
        waiting = ledger.waiting
    return ledger


class _Trainings:
    """Trainings that need nothing more, as one Tune run in a thread of its own."""

    def __init__(
        self,
        jobs: list[_Training],
        store: Store,
        request: Request,
        resources: Resources,
        search: SearchSpec | None,
    ) -> None:
        self.error = ""
        self.stopped: dict[str, dict[str, Any]] = {}
        self._early = search is not None and search.method == "asha"
        self.ids = {job.id for job in jobs}
        self._thread: threading.Thread | None = None
        if jobs:
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


def _submit(job: TimingJob, store: Store, request: Request, resources: Resources) -> Any:
    threads = resources.timing.threads or int(request.cpus)
    remote = ray.remote(_time).options(
        name=f"timing {job.title}",
        num_cpus=request.cpus,
        num_gpus=request.gpus,
        resources={"timing": request.timing},
        label_selector=request.labels or None,
        max_retries=RETRIES,
    )
    return remote.remote(job.model_dump_json(), str(store.root.resolve()), threads)


def _finished(tasks: list[Any]) -> list[Any]:
    return ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if tasks else []


def _settle_timing(ledger: Ledger, job: TimingJob, task: Any) -> None:
    try:
        ray.get(task)
        error = "it ended without a result"
    except ray.exceptions.RayError as died:
        error = f"its process died {RETRIES + 1} times: {str(died).splitlines()[0]}"
    if ledger.settle(job) is None:
        ledger.lose(job, error)


def spread(work: Callable[..., list[Any]], arguments: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """What `work` returns for each of the arguments, item by item in any order, on at most `workers` cores or GPUs.

    A task whose process dies is tried again `RETRIES` times.
    """
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(work)
    waiting, running = list(arguments)[::-1], list[Any]()
    while waiting or running:
        running += [task.remote(*waiting.pop()) for _ in range(min(workers - len(running), len(waiting)))]
        done, running = ray.wait(running)
        yield from ray.get(done[0])
