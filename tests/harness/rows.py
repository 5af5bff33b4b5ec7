"""Rows made by hand, valid unless a test says otherwise."""

from datetime import UTC, datetime

ANCESTRAL, FIXED_POINT = '{"sampler": "ancestral"}', '{"forecaster": "fixed_point"}'
MACHINE = {
    "started_at": datetime(2026, 1, 2, tzinfo=UTC),
    "host": "h",
    "device": "CPU",
    "cpu": "c",
    "cores": 2,
    "threads": 2,
    "load_1m": 0.0,
    "python": "3.11",
    "torch": "2.9",
    "cuda": None,
    "package": "0.1",
    "commit": "0" * 40,
    "dirty": False,
}


def timing_row(**changes):
    row = {
        "job": "a",
        "train_job": "t",
        "train_seed": 0,
        "status": "done",
        "error": None,
        "dims": 10,
        "sampler": ANCESTRAL,
        "batch_size": 2,
        "samples": 2,
        "seed": 0,
        "dtype": "float32",
        "checkpoint_sha256": "f" * 64,
        "run_order": 0,
        "is_warmup": False,
        "wall_s": 1.0,
        "arm_calls": [4, 7],
        "arm_work": [5.5, 8.5],
        "mistakes": [3, 6],
        "exact_fraction": 1.0,
        "smallest_gap": None,
        "busy": False,
        "dims_per_call": [0, 5, 3, 3],
        "mistaken_per_call": [0, 4, 2, 1],
        "peak_mem_bytes": 2**26,
        "energy_j": None,
        **MACHINE,
    }
    return {**row, **changes}


def trial_row(**changes):
    row = {
        "job": "t",
        "seed": 0,
        "status": "done",
        "error": None,
        "dataset_name": "digits",
        "dataset_variant": "17 levels",
        "dataset_status": "sample",
        "dataset_sha256": "0" * 64,
        "channels": 1,
        "height": 2,
        "width": 5,
        "categories": 17,
        "dims": 10,
        "arm": "pixelcnn",
        "arm_config": "{}",
        "training_config": "{}",
        "parameters": 123456,
        "iterations": 10,
        "train_bits_per_dim": 1.0,
        "valid_bits_per_dim": 1.1,
        "test_bits_per_dim": 1.2,
        "wall_s": 3.0,
        **MACHINE,
    }
    return {**row, **changes}


def mistake_row(**changes):
    row = {
        "job": "a",
        "sampler": FIXED_POINT,
        "row": 0,
        "column": 0,
        "channel": 0,
        "samples": 4,
        "mistakes": 1,
        "mean_settled_at": 2.5,
    }
    return {**row, **changes}


def write_named(store, job, rows, *, sweep="q", profile=None, dataset="digits", variant="default"):
    """Write a job and put it into the record of a sweep, under these names."""
    store.write_job(job, rows)
    name_job(store, job, rows, sweep=sweep, profile=profile, dataset=dataset, variant=variant)


def name_job(store, job, rows, *, sweep="q", profile=None, **names):
    """Put a job into the record of a sweep, beside those that are there."""
    table = next(table for table in ("trials", "autoencoders", "timings") if rows.get(table))
    kind = {"trials": "train", "autoencoders": "autoencoder", "timings": "timing"}[table]
    seed = rows[table][0]["train_seed" if table == "timings" else "seed"]
    stem = sweep if profile is None else f"{sweep}@{profile}"
    jobs = store.sweeps().get(stem, {"jobs": []})["jobs"]
    title = f"{names['dataset']} seed {seed}"
    new = {"id": job, "kind": kind, "title": title, "seed": seed, **names}
    store.write_sweep({"sweep": sweep, "profile": profile, "jobs": [*jobs, new]})
