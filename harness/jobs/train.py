"""The training job: data, ARM and modules to checkpoints and their figures."""

import copy
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arm_core import AutoregressiveModel, InputError, Layout, load_checkpoint, save_arm
from arm_core.data import Dataset
from arm_core.data.base import SPLITS
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.registry import ARMS
from arm_core.training import Training, TrainingConfig, evaluate
from harness.jobs import CHECKPOINT, lease
from harness.jobs.latents import load_autoencoder, load_data, load_latents
from harness.jobs.machine import device_of_this_job, peak_memory, provenance
from harness.jobs.progress import Reporter
from harness.jobs.rows import Rows, data_columns, job_columns
from harness.jobs.steps import Curves, Report, best_point, load_best, take_steps
from harness.sweep.components import build, fill
from harness.sweep.jobs import TrainJob

SCORE = "valid_bits_per_dim"


def train(job: TrainJob, folder: Path, report: Report) -> Rows:
    """Train from the newest saved state in `folder`, or from the start; leave two checkpoints there.

    `checkpoint` holds the weights that `keep` asks for and that will be timed; `checkpoint-last` or `checkpoint-best`
    holds the others.

    Args:
        job: what to train.
        folder: of the job.
        report: called with the metrics at every evaluation.

    Returns:
        The rows of `trials` and `curves`.
    """
    machine, started = provenance(), time.perf_counter()
    coded = folder.with_name(job.autoencoder_job) if job.autoencoder_job is not None else None
    dataset = load_latents(coded) if coded else load_data(job, folder)
    splits = {name: dataset.split(name) for name in SPLITS}
    training = _build(job, dataset.layout)
    labels = labels_of(training.arm, dataset)

    def validate() -> dict[str, float | None]:
        bits, kl = evaluate(training.arm, training.modules, splits["valid"], labels=labels["valid"])
        return {SCORE: bits, "forecasting_kl_nats": kl}

    progress = Reporter(folder, job.id, job.kind, job.title, unit="iterations")
    curves = take_steps(
        training, dataset.training_images(), folder, validate=validate, score=SCORE, progress=progress, report=report,
        labels=labels["train"],
    )  # fmt: skip
    data = data_columns(dataset)
    about = {**data, "job": job.id, "seed": job.seed, "arm": job.arm.name}
    if coded is None and (side := job.data.options.get("patches", 1)) > 1:
        about["patches"] = side  # whose pixels are to be shown
    kept = _save_both(training, curves, folder, coded, about)
    on_valid, kl = evaluate(training.arm, training.modules, splits["valid"], labels=labels["valid"])
    on_test, _ = evaluate(training.arm, training.modules, splits["test"], labels=labels["test"])
    few, of_few = splits["train"][: len(splits["valid"])], labels["train"]
    on_train, _ = evaluate(training.arm, None, few, labels=of_few if of_few is None else of_few[: len(few)])
    trial = {
        **job_columns(job),
        "status": "done",
        **data,
        "dataset_split": dataset.rule,
        **asdict(dataset.layout),
        "dims": dataset.layout.dims,
        "parameters": sum(p.numel() for p in training.arm.parameters()),
        "iterations": training.step,
        "train_bits_per_dim": curves[-1]["train_bits_per_dim"],
        "train_eval_bits_per_dim": on_train,
        "valid_bits_per_dim": on_valid,
        "test_bits_per_dim": on_test,
        "forecasting_kl_nats": kl,
        "checkpoint": str(Path("jobs") / job.id / CHECKPOINT),
        **kept,
        "wall_s": time.perf_counter() - started,
        "peak_mem_bytes": peak_memory(device_of_this_job()),
        **machine,
    }
    return {"trials": [trial], "curves": [{"job": job.id, **data, **point} for point in curves]}


def labels_of(arm: AutoregressiveModel, dataset: Dataset) -> dict[str, Tensor | None]:
    """The labels of every split for an ARM that learns them; None for one that does not.

    Raises:
        InputError: it learns them, and the data have none.
    """
    if not learns_labels(arm):
        return dict.fromkeys(SPLITS)
    labels = {name: dataset.labels(name) for name in SPLITS}
    if labels["train"] is None:
        raise InputError(f"{type(arm).__name__} learns classes, and the data of {dataset.name} have no labels")
    return labels


def learns_labels(arm: AutoregressiveModel) -> bool:
    """Whether the contexts of an ARM are class labels: numbers, one a sample. Prompts are lists."""
    return isinstance(arm.example_contexts(1), Tensor)


def networks(job: TrainJob, layout: Layout) -> tuple[AutoregressiveModel, ForecastingModules | None]:
    """The ARM that a job trains, and its modules if it has any, with weights by torch's generator."""
    arm: AutoregressiveModel = build(ARMS.resolve(job.arm.name), layout, job.arm.options)
    if job.forecasting is None:
        return arm, None
    return arm, ForecastingModules(layout, fill(ForecastingConfig, job.forecasting), arm.hidden_features)


def _build(job: TrainJob, layout: Layout) -> Training:
    settings = fill(TrainingConfig, job.training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        arm, modules = networks(job, layout)
    if job.init_from is not None:
        _initialise(arm, modules, job.init_from)
    for module in (arm, modules):
        if module is not None:
            module.to(device_of_this_job())
    return Training(arm, modules, settings, seed=job.seed)


def _initialise(arm: AutoregressiveModel, modules: ForecastingModules | None, path: str) -> None:
    """Start from the weights of a checkpoint; modules that it has not, or has otherwise, start anew."""
    given = load_checkpoint(path, arm=type(arm))
    try:
        arm.load_state_dict(given.arm.state_dict())
    except RuntimeError as error:
        raise InputError(f"init_from: the ARM in {path} is not of this size or layout ({error})") from None
    if modules is not None and given.modules is not None and given.modules.config == modules.config:
        modules.load_state_dict(given.modules.state_dict())


def _save_both(
    training: Training, curves: Curves, folder: Path, coded: Path | None, about: dict[str, Any]
) -> dict[str, Any]:
    """Save the last and the best weights; the training ends with those that are kept, which the result describes."""
    last, best = curves[-1], best_point(folder)
    autoencoder = load_autoencoder(coded) if coded is not None else None
    sha256, keep = "", training.config.keep
    lease.check(folder)
    final = {name: copy.deepcopy(network.state_dict()) for name, network in training.networks.items()}
    for which, point in sorted({"last": last, "best": best}.items(), key=lambda item: item[0] == keep):
        if which == "best":
            load_best(training, folder)
        else:
            for name, network in training.networks.items():
                network.load_state_dict(final[name])
        place = folder / (CHECKPOINT if which == keep else f"{CHECKPOINT}-{which}")
        metadata = {**about, "weights": which, "step": point["step"], SCORE: point[SCORE]}
        sha256 = save_arm(training.arm, place, modules=training.modules, autoencoder=autoencoder, metadata=metadata)
    return {
        "checkpoint_sha256": sha256,
        "kept": keep,
        "kept_step": {"last": last, "best": best}[keep]["step"],
        "best_step": best["step"],
        "best_valid_bits_per_dim": best[SCORE],
        "last_valid_bits_per_dim": last[SCORE],
    }
