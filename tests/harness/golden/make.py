"""Makes what the golden tests compare with: a small store of made-up rows, and the tables of its report.

python -m tests.harness.golden.make store     only when the rows should change
python -m tests.harness.golden.make tables    when the tables should look otherwise; read the difference
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from harness.store import Store
from tests.harness.rows import ANCESTRAL, FIXED_POINT, mistake_row, name_job, timing_row, trial_row, write_named

HERE = Path(__file__).parent
STORE, TABLES = HERE / "store.zip", HERE / "tables"
SAMPLERS = [  # as rows hold them, and the share of the ancestral calls
    (ANCESTRAL, 1.0),
    ('{"forecaster": "zeros"}', 0.6),
    (FIXED_POINT, 0.3),
    ('{"forecaster": "learned", "horizon": 2}', 0.2),
]
FRESH = ('{"forecaster": "fixed_point", "resampled": true}', 0.9)
KEPT = ("*.md", "*.tex", "speedup.csv", "models.csv")


def fill(store: Store) -> None:
    """Explicit models on sample and on official data, latents, an ablation, and a timing that failed."""
    train(store, "t1", "first", "digits", "sample")
    time(store, "a1", "t1", "first", "digits", seeds=3)
    train(store, "t2", "first", "svhn", "official", channels=3)
    time(store, "a2", "t2", "first", "svhn", seeds=6, channels=3)
    encode(store, "e3", "second", "photos")
    train(store, "t3", "second", "photos", "sample", channels=2, autoencoder_job="e3")
    time(store, "a3", "t3", "second", "photos", seeds=3, channels=2, latents=True)
    for number, variant in enumerate(("hidden", "pixel")):
        train(store, f"t4{number}", "third", "digits", "sample", variant=variant)
        time(store, f"a4{number}", f"t4{number}", "third", "digits", variant=variant, seeds=1, fresh=True)
    failed = [timing_row(job="a5", status="failed", error="RuntimeError: out of memory")]
    write_named(store, "a5", {"timings": failed}, sweep="first", dataset="cifar10")
    waiting = {"timings": [timing_row(job="a6", train_seed=1)]}
    name_job(store, "a6", waiting, sweep="first", dataset="digits", variant="default")


def train(store, job, sweep, dataset, status, *, variant="default", channels=1, **changes):
    shared = {"channels": channels, "dataset_status": status}
    bits = 1.2 + channels / 10
    rows = trial_row(
        job=job, **shared, dataset_name=dataset, dims=10 * channels, checkpoint_sha256=f"{job:0>64}",
        train_bits_per_dim=bits, train_eval_bits_per_dim=bits - 0.01, valid_bits_per_dim=bits + 0.1,
        test_bits_per_dim=bits + 0.125, kept="last", **changes,
    )  # fmt: skip
    curves = [
        {"job": job, "step": step, "train_bits_per_dim": bits + 5 / step, "valid_bits_per_dim": bits + 7 / step}
        | {"learning_rate": 1e-3, "iterations_per_s": 1.0, "wall_s": float(step)}
        for step in (5, 10, 15)
    ]
    write_named(store, job, {"trials": [rows], "curves": curves}, sweep=sweep, dataset=dataset, variant=variant)


def encode(store, job, sweep, dataset):
    machine = {name: value for name, value in trial_row().items() if name in timing_row() and name != "job"}
    row = {
        **machine, "job": job, "seed": 0, "dataset_name": dataset,
        "dataset_variant": "crop 8", "dataset_status": "sample", "channels": 3, "height": 8, "width": 8,
        "categories": 256, "latent_channels": 2, "latent_height": 2, "latent_width": 5, "latent_categories": 17,
        "autoencoder_config": "{}", "training_config": "{}", "test_mse": 0.0123, "codebook_perplexity": 9.5,
    }  # fmt: skip
    row.pop("dims")
    curves = [
        {"job": job, "step": step, "train_mse": 1 / step, "valid_mse": 1.5 / step, "learning_rate": 1e-3}
        | {"iterations_per_s": 1.0, "wall_s": float(step)}
        for step in (5, 10, 15)
    ]
    write_named(store, job, {"autoencoders": [row], "curves": curves}, sweep=sweep, dataset=dataset, variant=None)


def time(store, job, train_job, sweep, dataset, *, seeds, variant="default", channels=1, latents=False, fresh=False):
    generator = np.random.default_rng(int.from_bytes(job.encode()))
    shape = {"channels": channels, "height": 2, "width": 5, "categories": 17}
    dims, timings, mistakes, samples = 10 * channels, [], [], []
    for name, share in [*SAMPLERS, FRESH] if fresh else SAMPLERS:
        named = {"sampler": name}
        for seed, batch in [(seed, batch) for seed in range(seeds) for batch in (1, 4)]:
            spread = 0 if share == 1 else 2
            calls = np.clip(generator.integers(share * dims - spread, share * dims + spread + 1, size=batch), 1, dims)
            timings.append(
                timing_row(
                    job=job, train_job=train_job, dims=dims, seed=seed,
                    checkpoint_sha256=f"{train_job:0>64}", batch_size=batch, samples=batch,
                    run_order=len(timings), **named,
                    arm_calls=calls.tolist(), arm_work=[float(calls.max())] * batch, mistakes=(calls - 1).tolist(),
                    wall_s=round(float(calls.max() * (1 + batch / 2) * generator.uniform(0.009, 0.011)), 5),
                    dims_per_call=np.bincount([n for c in calls for n in [1] * (c - 1) + [dims - c + 1]]).tolist(),
                    peak_mem_bytes=2**26 + 2**20 * batch, exact_fraction=None if "resampled" in name else 1.0, smallest_gap=None,
                )
            )  # fmt: skip
        for k in range(4):
            image = generator.integers(17, size=dims).astype(np.uint8).tobytes()
            wrong = (generator.random(dims) < share / 2).astype(np.uint8).tobytes()
            row = {"job": job, **named, "seed": 10, "sample_id": k, **shape, "image": image, "mistakes": wrong}
            row |= {"settled_at": generator.integers(1, 5, size=dims).tolist(), "exact": True}
            if latents:
                decoded = generator.integers(256, size=3 * 64).astype(np.uint8).tobytes()
                row |= {"decoded": decoded, "decoded_channels": 3, "decoded_height": 8, "decoded_width": 8}
                row |= {"decoded_categories": 256}
            samples.append(row)
        for row, column, channel in np.ndindex(2, 5, channels):
            place = {"row": row, "column": column, "channel": channel}
            settled = float(1 + row * 5 + column) * share
            mistakes.append(
                mistake_row(job=job, **named, **place, mistakes=(row + column) % 4, mean_settled_at=settled)
            )
    rows = {"timings": timings, "mistakes": mistakes, "samples": samples}
    write_named(store, job, rows, sweep=sweep, dataset=dataset, variant=variant)


def unpack(root: Path) -> Store:
    """The committed store, in a folder where it may be written to."""
    with zipfile.ZipFile(STORE) as archive:
        archive.extractall(root)
    return Store(root)


def _pack() -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(STORE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        fill(Store(scratch))
        for path in sorted(Path(scratch).rglob("*")):
            if path.is_file():
                when = zipfile.ZipInfo(str(path.relative_to(scratch)), date_time=(2026, 1, 1, 0, 0, 0))
                archive.writestr(when, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _tables() -> None:
    from harness.report import write_report

    TABLES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_report(unpack(Path(scratch) / "store"), Path(scratch) / "out", figures=0)
        for old in TABLES.iterdir():
            old.unlink()
        for pattern in KEPT:
            for path in (Path(scratch) / "out").glob(pattern):
                (TABLES / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    {"store": _pack, "tables": _tables}[sys.argv[1]]()
