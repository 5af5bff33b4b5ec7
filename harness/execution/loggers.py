"""Curves of trainings where people already look: MLflow, Weights & Biases, TensorBoard, by Ray Tune's own loggers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from ray.tune.utils import flatten_dict

from harness.sweep import LoggingSpec, job_from_json

_UPLOAD_S = 60
"""How long the end of the trainings waits for what Weights & Biases has not taken yet."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""A server that is gone is given up after seconds, where MLflow itself would try for minutes."""
_LONGEST = 250
"""Characters of a setting: servers refuse long ones."""


def loggers(spec: LoggingSpec, sweep: str, root: Path, say: Callable[[str], object]) -> list[LoggerCallback]:
    """A callback of Tune for each place that is asked for; none of them can stop a sweep.

    Args:
        spec: of the sweep file.
        sweep: its name: the experiment in MLflow, the group in Weights & Biases.
        root: of the store; what Weights & Biases keeps lies in its `wandb/`.
        say: told, once, that a place is given up.
    """
    made: dict[str, Callable[[], LoggerCallback]] = {}
    if spec.mlflow is not None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        made["MLflow"] = lambda: MLflowLoggerCallback(tracking_uri=spec.mlflow, experiment_name=sweep)
    if spec.wandb is not None:
        own: dict[str, Any] = {"dir": str(root.resolve())}  # Tune copies its own folder before the last lines are there
        own |= {"mode": os.environ["WANDB_MODE"]} if "WANDB_MODE" in os.environ else {}
        made["Weights & Biases"] = lambda: WandbLoggerCallback(
            project=spec.wandb, group=sweep, upload_timeout=_UPLOAD_S, **own
        )
    if spec.tensorboard:
        made["TensorBoard"] = TBXLoggerCallback
    return [Harmless(name, make, say) for name, make in made.items()]


class Harmless(LoggerCallback):
    """A logger that is given up at its first error, and told what a training is: its settings, and steps as steps."""

    def __init__(self, name: str, make: Callable[[], LoggerCallback], say: Callable[[str], object]) -> None:
        self._name, self._say = name, say
        self._inner: LoggerCallback | None = None
        self._trials: dict[str, _Training] = {}
        self._do(lambda: setattr(self, "_inner", make()))

    def __reduce__(self) -> tuple[type[LoggerCallback], tuple[()]]:
        return LoggerCallback, ()  # Tune keeps its settings on disk, though nobody goes on from them

    def setup(self, *args: Any, **info: Any) -> None:
        self._call("setup", *args, **info)

    def log_trial_start(self, trial: Any) -> None:
        self._call("log_trial_start", self._training(trial))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        steps = result | {"training_iteration": result.get("step", iteration)}
        self._call("log_trial_result", iteration, self._training(trial), steps)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._call("log_trial_end", self._training(trial), failed)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._call("on_experiment_end", trials, **info)

    def _training(self, trial: Any) -> "_Training":
        if trial.trial_id not in self._trials:
            self._trials[trial.trial_id] = _Training(trial)
        return self._trials[trial.trial_id]

    def _call(self, method: str, *args: Any, **info: Any) -> None:
        if self._inner is not None:
            self._do(lambda: getattr(self._inner, method)(*args, **info))

    def _do(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # whatever a server, a network or another package may do
            self._inner = None
            reason = (str(error).splitlines() or [""])[0][:200]
            self._say(f"Logging to {self._name} has ended ({type(error).__name__}: {reason}); the sweep goes on")


class _Training:
    """A trial as loggers see it: its config is the settings of the job, not how Ray was asked to run it."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        settings = flatten_dict(job_from_json(trial.config["job"]).model_dump(mode="json"), delimiter=".")
        self.config = {name: str(value)[:_LONGEST] for name, value in settings.items() if value is not None}
        self.evaluated_params = self.config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def __str__(self) -> str:
        return str(self._trial)
