"""The rows that a job finds out: table -> rows. Loads no torch: who watches jobs answers without it."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arm_core.data import Dataset
    from harness.sweep.jobs import Job

DATA = ("dataset_name", "dataset_variant", "dataset_status", "dataset_sha256")
"""The columns that every result row has: which data it is about, and what they may be compared with."""
TABLE_OF = {"train": "trials", "autoencoder": "autoencoders", "timing": "timings"}
"""Kind of job -> the table that says how it ended."""

Rows = dict[str, list[dict[str, Any]]]


def data_columns(dataset: "Dataset") -> dict[str, str]:
    """`DATA`, of a dataset."""
    return dict(zip(DATA, (dataset.name, dataset.variant, dataset.status, dataset.sha256), strict=True))


def job_columns(job: "Job") -> dict[str, Any]:
    """What the row of a job in its deciding table says of the job itself, however it ended."""
    if job.kind == "timing":
        return {"job": job.id, "train_job": job.train_job, "train_seed": job.train_seed}
    found = {"job": job.id, "seed": job.seed, "training_config": _json(job.training)}
    if job.kind == "autoencoder":
        return {**found, "autoencoder_config": _json(job.autoencoder)}
    return {
        **found,
        "arm": job.arm.name,
        "arm_config": _json(job.arm.options),
        "forecasting_config": _json(job.forecasting) if job.forecasting is not None else None,
        "autoencoder_job": job.autoencoder_job,
        "init_from": job.init_from,
    }


def _json(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
