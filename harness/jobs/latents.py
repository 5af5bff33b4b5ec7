"""The autoencoder job: trained, frozen, its dataset encoded once; and those latents as the dataset of an ARM."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arm_core import Checkpoint, InputError, Layout
from arm_core.atomic import write_atomic
from arm_core.checkpoint import build_autoencoder, read_bundle, write_bundle
from arm_core.data import Dataset, load_dataset
from arm_core.data.base import SPLITS
from arm_core.data.patches import pixel_layout, pixels_of, tokens_of
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.training import AutoencoderTraining, AutoencoderTrainingConfig, encode_all, evaluate_autoencoder
from harness.jobs import lease
from harness.jobs.machine import device_of_this_job, peak_memory, provenance
from harness.jobs.progress import Reporter
from harness.jobs.rows import Rows, data_columns, job_columns
from harness.jobs.steps import Report, load_best, take_steps
from harness.sweep.components import fill
from harness.sweep.jobs import AutoencoderJob, TrainJob

LATENTS, AUTOENCODER, ABOUT = "latents", "autoencoder", "latents.json"


def train_autoencoder(job: AutoencoderJob, folder: Path, report: Report) -> Rows:
    """Train, freeze, encode; leave the autoencoder and the latents in `folder`.

    Returns:
        The rows of `autoencoders` and `curves`.
    """
    machine, started = provenance(), time.perf_counter()
    dataset = load_data(job, folder)
    training = _build(job, dataset)
    autoencoder, valid = training.autoencoder, dataset.split("valid")

    def validate() -> dict[str, float | None]:
        return {"valid_mse": evaluate_autoencoder(autoencoder, valid)[0]}

    progress = Reporter(folder, job.id, job.kind, job.title, unit="iterations")
    curves = take_steps(
        training,
        dataset.training_images(),
        folder,
        validate=validate,
        score="valid_mse",
        progress=progress,
        report=report,
    )
    kept = curves[-1]
    if training.config.keep == "best":
        best = load_best(training, folder)["step"]
        kept = next(point for point in curves if point["step"] == best)
    autoencoder.eval()
    valid_mse, usage = evaluate_autoencoder(autoencoder, valid)
    saved = {"layout": asdict(autoencoder.layout), "config": asdict(autoencoder.config)}
    lease.check(folder)
    sha256 = write_bundle(folder / AUTOENCODER, {AUTOENCODER: autoencoder.state_dict()}, saved)
    latents = _encode(autoencoder, dataset, folder)
    row = {
        **job_columns(job),
        "status": "done",
        **data_columns(dataset),
        "dataset_split": dataset.rule,
        **asdict(dataset.layout),
        **{f"latent_{name}": value for name, value in asdict(latents.layout).items()},
        "latents_sha256": latents.sha256,
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
        "iterations": training.step,
        "kept": training.config.keep,
        "kept_step": kept["step"],
        "train_mse": kept["train_mse"],
        "valid_mse": valid_mse,
        "test_mse": evaluate_autoencoder(autoencoder, dataset.split("test"))[0],
        "codebook_used_fraction": usage.used_fraction,
        "codebook_perplexity": usage.perplexity,
        "checkpoint_sha256": sha256,
        "wall_s": time.perf_counter() - started,
        "peak_mem_bytes": peak_memory(device_of_this_job()),
        **machine,
    }
    return {"autoencoders": [row], "curves": [{"job": job.id, **data_columns(dataset), **point} for point in curves]}


def load_data(job: AutoencoderJob | TrainJob, folder: Path) -> Dataset:
    """The dataset of a job; a conversion that it needs first shows as its progress."""
    on_progress = Reporter(folder, job.id, job.kind, job.title, unit="parts").on_progress
    return load_dataset(job.data.name, job.root, progress=on_progress, **job.data.options)


def load_autoencoder(folder: Path) -> DiscreteAutoencoder:
    """The frozen autoencoder that the job of this folder left."""
    parts, saved, _ = read_bundle(folder / AUTOENCODER)
    return build_autoencoder(saved, parts[AUTOENCODER]).eval()


def load_latents(folder: Path) -> Dataset:
    """The latents that the job of this folder left, memory-mapped.

    Raises:
        InputError: they are missing, or differ from what was written.
    """
    place = folder / LATENTS
    try:
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        # "c": pages are read on demand; the tensors count as writable, but nothing ever reaches the file
        splits = {name: np.load(place / f"{name}.npy", mmap_mode="c") for name in SPLITS}
    except (OSError, ValueError) as error:
        raise InputError(f"the latents in {place} cannot be read ({error}); run the sweep again") from None
    sha256 = about.pop("sha256")
    dataset = Dataset(**about, splits=splits)
    if dataset.sha256 != sha256:
        raise InputError(f"the latents in {place} differ from what was written; delete {folder} and run again")
    return dataset


def shown_layout(checkpoint: Checkpoint) -> Layout:
    """The layout of the images that samples stand for: those that latents decode to, or the pixels of patches."""
    if checkpoint.autoencoder is not None:
        return checkpoint.autoencoder.layout
    return pixel_layout(checkpoint.arm.layout, checkpoint.metadata.get("patches", 1))


def shown(checkpoint: Checkpoint, x: Tensor) -> Tensor:
    """The images that samples stand for, uint8 or int (n, C, H, W)."""
    tokens = checkpoint.arm.layout.unflatten(x)
    if checkpoint.autoencoder is not None:
        device = next(checkpoint.arm.parameters()).device
        return torch.cat([checkpoint.autoencoder.decode(part.to(device)).cpu() for part in tokens.long().split(256)])
    if (side := checkpoint.metadata.get("patches", 1)) == 1:
        return tokens.cpu()
    return torch.from_numpy(pixels_of(tokens.cpu().numpy(), side, shown_layout(checkpoint).categories))


def sequences(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    """The sequences that stand for images (n, C, H, W) of `shown_layout`: what `shown` makes these images of."""
    layout = checkpoint.arm.layout
    if checkpoint.autoencoder is not None:
        device = next(checkpoint.arm.parameters()).device
        codes = [checkpoint.autoencoder.encode(part.to(device)).cpu() for part in images.split(256)]
        return layout.flatten(torch.cat(codes))
    if (side := checkpoint.metadata.get("patches", 1)) != 1:
        images = torch.from_numpy(tokens_of(images.numpy(), side, shown_layout(checkpoint).categories))
    return layout.flatten(images).long()


def decoded_columns(checkpoint: Checkpoint, x: Tensor) -> list[dict[str, Any]]:
    """For each sample of an ARM of tokens the columns that show it as an image; nothing for an ARM of images."""
    layout = shown_layout(checkpoint)
    if layout == checkpoint.arm.layout:
        return [{}] * len(x)
    shape = {f"decoded_{name}": value for name, value in asdict(layout).items()}
    return [{"decoded": image.contiguous().numpy().tobytes(), **shape} for image in shown(checkpoint, x)]


def _build(job: AutoencoderJob, dataset: Dataset) -> AutoencoderTraining:
    device, config = device_of_this_job(), fill(AutoencoderTrainingConfig, job.training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        autoencoder = DiscreteAutoencoder(dataset.layout, fill(AutoencoderConfig, job.autoencoder))
    return AutoencoderTraining(autoencoder.to(device), config, seed=job.seed)


def _encode(autoencoder: DiscreteAutoencoder, dataset: Dataset, folder: Path) -> Dataset:
    """Write the latents of every split, and last the file that names their sha256."""
    place = folder / LATENTS
    place.mkdir(exist_ok=True)
    for name in SPLITS:
        np.save(place / f"{name}.npy", encode_all(autoencoder, dataset.split(name)).to(torch.uint8).numpy())
    about = {
        "name": dataset.name,
        "variant": f"{dataset.variant} latents",
        "status": dataset.status,
        "rule": dataset.rule,
        "categories": autoencoder.latent_layout.categories,
    }
    splits = {name: np.load(place / f"{name}.npy", mmap_mode="c") for name in SPLITS}
    latents = Dataset(**about, splits=splits)  # type: ignore[arg-type]
    write_atomic(place / ABOUT, json.dumps({**about, "sha256": latents.sha256}).encode())
    return latents
