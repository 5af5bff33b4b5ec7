"""The training job: data, ARM and modules to a checkpoint and its figures."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arm_core import AutoregressiveModel, InputError, save_arm
from arm_core.checkpoint import read_bundle, write_bundle
from arm_core.data import load_dataset
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.registry import ARMS, config_type
from arm_core.training import Training, TrainingConfig, evaluate, fit
from harness.jobs.machine import device_of_this_job, peak_memory, provenance
from harness.jobs.progress import Reporter
from harness.jobs.rows import Rows
from harness.sweep.components import fill, make_config
from harness.sweep.plan import TrainJob

CHECKPOINT = "checkpoint"
Curves = list[dict[str, Any]]
Report = Callable[[dict[str, float]], None]


def train(job: TrainJob, folder: Path, report: Report) -> Rows:
    """Train from the newest saved state in `folder`, or from the start; leave a checkpoint there.

    Args:
        job: what to train.
        folder: of the job.
        report: called with the metrics at every evaluation.

    Returns:
        The rows of `trials` and `curves`.
    """
    machine, started = provenance(), time.perf_counter()
    device = device_of_this_job()
    dataset = load_dataset(job.data.name, job.root, **job.data.options)
    layout = dataset.layout
    splits = {name: layout.flatten(dataset.split(name)) for name in ("train", "valid", "test")}
    training = _build(job, layout, device)
    curves = _train(training, splits, job, folder, report)
    on_valid, kl = evaluate(training.arm, training.modules, splits["valid"])
    on_test, _ = evaluate(training.arm, training.modules, splits["test"])
    identity = {"sweep": job.sweep, "profile": job.profile, "dataset": job.dataset, "variant": job.variant}
    data = {
        "dataset_name": dataset.name,
        "dataset_variant": dataset.variant,
        "dataset_status": dataset.status,
        "dataset_sha256": dataset.sha256,
    }
    figures = {
        "train_bits_per_dim": curves[-1]["train_bits_per_dim"],
        "valid_bits_per_dim": on_valid,
        "test_bits_per_dim": on_test,
    }
    place = folder / CHECKPOINT
    sha256 = save_arm(
        training.arm,
        place,
        modules=training.modules,
        metadata={**identity, **data, **figures, "job": job.id, "seed": job.seed, "arm": job.arm.name},
    )
    parameters = sum(p.numel() for p in training.arm.parameters())
    trial = {
        "job": job.id,
        **identity,
        "seed": job.seed,
        "status": "done",
        **data,
        **asdict(layout),
        "dims": layout.dims,
        **_settings(job),
        "parameters": parameters,
        "iterations": training.step,
        **figures,
        "forecasting_kl_nats": kl,
        "checkpoint": str(Path("jobs") / job.id / CHECKPOINT),
        "checkpoint_sha256": sha256,
        "wall_s": time.perf_counter() - started,
        "peak_mem_bytes": peak_memory(device),
        **machine,
    }
    return {"trials": [trial], "curves": [{"job": job.id, **point} for point in curves]}


def failed_trial(job: TrainJob, error: str) -> Rows:
    """The row of a training that did not come to its end."""
    row = {
        "job": job.id,
        "sweep": job.sweep,
        "profile": job.profile,
        "dataset": job.dataset,
        "variant": job.variant,
        "seed": job.seed,
        "status": "failed",
        "error": error,
        **_settings(job),
        **provenance(),
    }
    return {"trials": [row]}


def _settings(job: TrainJob) -> dict[str, Any]:
    return {
        "arm": job.arm.name,
        "arm_config": json.dumps(job.arm.options, sort_keys=True),
        "forecasting_config": json.dumps(job.forecasting, sort_keys=True) if job.forecasting is not None else None,
        "training_config": json.dumps(job.training, sort_keys=True),
    }


def _build(job: TrainJob, layout: Any, device: torch.device) -> Training:
    cls = ARMS.resolve(job.arm.name)
    config = make_config(cls, job.arm.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        arm: AutoregressiveModel = cls(layout) if config_type(cls) is None else cls(layout, config)
        modules = None
        if job.forecasting is not None:
            modules = ForecastingModules(layout, fill(ForecastingConfig, job.forecasting), arm.hidden_features)
    for module in (arm, modules):
        if module is not None:
            module.to(device)
    return Training(arm, modules, fill(TrainingConfig, job.training), seed=job.seed)


def _train(training: Training, splits: dict[str, Tensor], job: TrainJob, folder: Path, report: Report) -> Curves:
    """Take all steps, from the newest good state on; returns the curves, those before the state included."""
    config = training.config
    progress = Reporter(folder, job.id, job.kind, job.title, unit="iterations")
    curves = _resume(training, folder)
    bits: list[float] = []
    started = last = time.perf_counter()
    before = curves[-1]["wall_s"] if curves else 0.0
    for metrics in fit(training, splits["train"]):
        bits.append(metrics.figures["train_bits_per_dim"])
        if metrics.step % config.evaluate_every == 0 or metrics.step == config.iterations:
            valid, kl = evaluate(training.arm, training.modules, splits["valid"])
            now = time.perf_counter()
            curves.append(
                {
                    "step": metrics.step,
                    "train_bits_per_dim": sum(bits) / len(bits),
                    "valid_bits_per_dim": valid,
                    "forecasting_kl_nats": kl,
                    "learning_rate": metrics.learning_rate,
                    "iterations_per_s": len(bits) / (now - last),
                    "wall_s": before + now - started,
                }
            )
            report(
                {
                    "step": metrics.step,
                    "train_bits_per_dim": curves[-1]["train_bits_per_dim"],
                    "valid_bits_per_dim": valid,
                }
            )
            bits, last = [], now
        if metrics.step % config.checkpoint_every == 0 and metrics.step < config.iterations:
            place = (
                folder / f"state-{metrics.step // config.checkpoint_every % 2}"
            )  # two, in turns: one is always whole
            write_bundle(place, {"training": training.state()}, {"step": metrics.step, "curves": curves})
        shown = {
            "bits/dim": bits[-1] if bits else curves[-1]["train_bits_per_dim"],
            "it/s": len(bits) / max(time.perf_counter() - last, 1e-9),
        }
        progress.update(metrics.step, config.iterations, metrics={k: v for k, v in shown.items() if v})
    return curves


def discard_states(folder: Path) -> None:
    """Remove what a finished training no longer needs to go on."""
    for place in folder.glob("state-*"):
        shutil.rmtree(place)


def _resume(training: Training, folder: Path) -> Curves:
    """Load the newest state that is whole; returns its curves, or none when there is no such state."""
    found = []
    for place in folder.glob("state-*"):
        try:
            parts, content, _ = read_bundle(place)
        except InputError as error:
            print(f"{error}; an older state is used")  # goes to the job's log
            continue
        found.append((content["step"], parts["training"], content["curves"]))
    if not found:
        return []
    _, state, curves = max(found, key=lambda item: item[0])
    training.load_state(state)
    return curves
