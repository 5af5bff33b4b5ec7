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

from harness.execution.ahead import Ahead
from harness.execution.patience import Patience
from harness.execution.placement import Request
from harness.jobs import job_folder, run_job
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import AutoencoderJob, TimingJob, TrainJob, job_from_json
from harness.sweep.search import SearchSpec
from harness.sweep.spec import Resources

Training = AutoencoderJob | TrainJob
RETRIES = 2
"""How often a training whose process died is tried again; one that raises is not, it would raise again."""


class Trainings:
    """Trainings that need nothing more, as one Tune run in a thread of its own."""

    def __init__(
        self,
        jobs: list[Training],
        store: Store,
        request: Request | None,
        resources: Resources,
        search: SearchSpec | None,
        at_once: int | None,
        say: Callable[[str], object],
    ) -> None:
        self.error = ""
        self.stopped: dict[str, dict[str, Any]] = {}
        self._early = search is not None and search.method == "asha"
        self.ids = {job.id for job in jobs}
        self._thread: threading.Thread | None = None
        self._since, self._say, self._told = time.time(), say, False
        self._folders = [job_folder(store.root, job.id) for job in jobs]
        if jobs and request is not None:
            fit = _tuner(jobs, store, request, resources, search, at_once, say).fit
            self._thread = threading.Thread(target=self._fit, args=(fit,), daemon=True)
            self._thread.start()

    def ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def tell(self) -> None:
        """Say so, once, when none of the trainings gets a node."""
        if self._told or self.ended() or time.time() - self._since < Patience.NOTICE_S:
            return
        self._told = True
        said = [read_progress(folder) for folder in self._folders]
        if not any(progress is not None and progress.updated_at > self._since for progress in said):
            self._say("No training has started yet: they wait until CPUs, or GPUs, of a training node are free")

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


class _Watch(TrialProgressCallback):
    """Sees trials start, and says that one is tried again: Tune would print the traceback of its code that noticed.

    It stands in for Tune's own reporter, which prints the end of a short trial at any verbosity.
    """

    def __init__(self, ahead: Ahead, say: Callable[[str], object]) -> None:
        super().__init__()
        self._ahead, self._say = ahead, say

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()  # Tune keeps its settings on disk, though nobody goes on from them

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ahead.started(left=sum(not other.is_finished() for other in trials))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"train {trial}: its process or node was lost; it goes on from its newest state")

    def _print(self, msg: str) -> None: ...


def _tuner(
    jobs: list[Training],
    store: Store,
    request: Request,
    resources: Resources,
    search: SearchSpec | None,
    at_once: int | None,
    say: Callable[[str], object],
) -> tune.Tuner:
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
            "root": str(store.root.resolve()),
            "cwd": str(Path.cwd()),
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
            callbacks=[_Watch(Ahead(at_once), say)],
            verbose=0,
        ),
    )


def _scheduler(jobs: list[Training], search: SearchSpec | None) -> Any:
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

    run_job(job, Path(config["root"]), threads=config["threads"], cwd=Path(config["cwd"]), report=report)


class train(wrap_function(_train)):  # type: ignore[misc]  # noqa: N801
    """What the dashboard shows: this name as the class of every trial, and each one by its title."""

    def __repr__(self) -> str:
        return job_from_json(self.config["job"]).title

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([config["bundle"]], **config["selector"])
