"""Trainings on Ray Tune: a trial each, tried again from its newest state when its process or node dies."""

import logging
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.trainable.function_trainable import wrap_function

from harness.execution.loggers import loggers
from harness.execution.patience import RETRIES, Patience
from harness.execution.placement import Request
from harness.jobs import job_folder, run_job
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import AutoencoderJob, Sweep, TimingJob, TrainJob, job_from_json

Training = AutoencoderJob | TrainJob


class Trainings:
    """Trainings that need nothing more, as one Tune run at a time, in a thread of its own.

    Attributes:
        ids: of the trainings of the run.
        error: why the run ended, if it did not end by itself.
        stopped: trainings that the search gave up: id -> their last figures.
    """

    def __init__(self, sweep: Sweep, store: Store, say: Callable[[str], object]) -> None:
        self._sweep, self._store, self._say = sweep, store, say
        self.error, self.ids, self.stopped = "", set[str](), dict[str, dict[str, Any]]()
        self._thread: threading.Thread | None = None
        self._since, self._told = 0.0, False

    def start(self, jobs: list[Training], request: Request | None) -> None:
        """Start a run, if there is something to train and a kind of node for it."""
        if not jobs or request is None:
            return
        self.error, self.ids, self.stopped = "", {job.id for job in jobs}, {}
        self._since, self._told = time.time(), False
        self._thread = threading.Thread(target=self._fit, args=(self._tuner(jobs, request),), daemon=True)
        self._thread.start()

    def ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def tell(self) -> None:
        """Say so, once, when none of the trainings gets a node."""
        if self._told or self.ended() or time.time() - self._since < Patience.NOTICE_S:
            return
        self._told = True
        said = [read_progress(job_folder(self._store.root, job)) for job in self.ids]
        if not any(progress is not None and progress.updated_at > self._since for progress in said):
            self._say("No training has started yet: they wait until CPUs, or GPUs, of a training node are free")

    def _tuner(self, jobs: list[Training], request: Request) -> tune.Tuner:
        root = self._store.root
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        titles = {job.model_dump_json(): job.title.replace(" ", "-") for job in jobs}
        bundle = {"CPU": request.cpus, **({"GPU": request.gpus} if request.gpus else {})}
        selector: dict[str, Any] = {"bundle_label_selector": [request.labels]} if request.labels else {}
        return tune.Tuner(
            train,
            param_space={
                "job": tune.grid_search(list(titles)),
                "bundle": bundle,
                "selector": selector,
                "root": str(root.resolve()),
                "cwd": str(Path.cwd()),
                "threads": self._sweep.resources.train.threads or int(request.cpus),
            },
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(jobs, self._sweep),
                reuse_actors=True,  # the next training finds a process that has imported torch
                trial_name_creator=lambda trial: titles[trial.config["job"]],
                trial_dirname_creator=lambda trial: titles[trial.config["job"]],
            ),
            run_config=tune.RunConfig(
                name=f"{self._sweep.name}-{int(time.time())}",
                storage_path=str((root / "ray").resolve()),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_Watch(self._say), *loggers(self._sweep.logging, self._sweep.name, root, self._say)],
                verbose=0,
            ),
        )

    def _fit(self, tuner: tune.Tuner) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results: Any = tuner.fit()
        except Exception as error:  # it must reach the tables of the trainings that did not end
            self.error = f"Ray Tune stopped: {type(error).__name__}: {error}"
            return
        cut = self._sweep.stops_early  # one that ended by itself has left its tables, and is settled by them
        for result in results if cut else ():
            if result.error is None and result.config is not None:
                self.stopped[job_from_json(result.config["job"]).id] = dict(result.metrics or {})


class _Watch(TrialProgressCallback):
    """Says that a trial is tried again: Tune would print the traceback of its code that noticed.

    It stands in for Tune's own reporter, which prints the end of a short trial at any verbosity.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self._say = say

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()  # Tune keeps its settings on disk, though nobody goes on from them

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"train {trial}: its process or node was lost; it goes on from its newest state")

    def _print(self, msg: str) -> None: ...


def _scheduler(jobs: list[Training], sweep: Sweep) -> Any:
    """ASHA on validation bits/dim for a search that asks for it; otherwise every trial runs to its end."""
    search = sweep.search
    if search is None or not sweep.stops_early:
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
        """Tell Tune of every step but the last: a search would cut a training that is about to write its tables."""
        if metrics["step"] < last:
            tune.report(metrics)

    run_job(job, Path(config["root"]), threads=config["threads"], cwd=Path(config["cwd"]), report=report)


class train(wrap_function(_train)):  # type: ignore[misc]  # noqa: N801
    """What the dashboard shows: this name as the class of every trial, and each one by its title."""

    def __repr__(self) -> str:
        return job_from_json(self.config["job"]).title

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([config["bundle"]], **config["selector"])
