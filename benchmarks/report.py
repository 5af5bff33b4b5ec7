"""How long status and report take on a store of many jobs, and how much memory.

The store is filled with made-up rows of the shape that a sweep of many seeds leaves. The two commands run in processes
of their own, as users run them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from arm_core.errors import InputError
from benchmarks.command import ROOT, Benchmark
from harness.console import CONSOLE
from harness.store import Store, job_folder

SAMPLERS = [
    ('{"sampler": "ancestral"}', 1.0),
    ('{"forecaster": "zeros"}', 0.5),
    ('{"forecaster": "predict_last"}', 0.4),
    ('{"forecaster": "fixed_point"}', 0.25),
    ('{"forecaster": "learned", "horizon": 4}', 0.2),
]  # as rows hold them, and the share of the ancestral calls
BATCHES = (1, 8, 32)
TRAIN_SEEDS = 5
LAYOUT = {"channels": 1, "height": 8, "width": 8, "categories": 17}
DIMS = 64


class Cost(NamedTuple):
    """What a command took."""

    command: str
    wall_s: float
    cpu_s: float
    peak_mem_bytes: int

    def line(self) -> str:
        """For the terminal."""
        peak = self.peak_mem_bytes / 2**20
        return f"{self.command:<7} {self.wall_s:6.2f} s  {self.cpu_s:6.2f} s of CPU  {peak:6.0f} MiB"


def fill_store(store: Store, *, jobs: int, rows: int, progress: Callable[[int, int], None]) -> None:
    """Write about `rows` timing rows in `jobs` jobs, half of them trainings.

    Args:
        store: to fill; an empty one.
        jobs: at least 2.
        rows: of the table `timings`.
        progress: called with (jobs written, jobs in all).
    """
    trainings = jobs // 2
    seeds = max(1, rows // (trainings * len(SAMPLERS) * len(BATCHES)))
    plan = []
    for index in range(trainings):
        train, timing, seed = f"train{index:05d}", f"timing{index:05d}", index % TRAIN_SEEDS
        generator = np.random.default_rng(index)
        store.write_job(train, _training(train, seed))
        store.write_job(timing, _timing(timing, train, seed, seeds, generator))
        for job, kind in ((train, "train"), (timing, "timing")):
            plan.append({"id": job, "kind": kind, "title": job, **_place(index), "seed": seed})
            _finish(store, job)
        progress(2 * index + 2, 2 * trainings)
    store.write_sweep({"sweep": "bulk", "profile": None, "jobs": plan})


def measure(root: Path, out: Path) -> list[Cost]:
    """Run `harness status` and `harness report` on a store, and see what they take."""
    return [
        cost("status", ["status", "--store", str(root)]),
        cost("report", ["report", "--store", str(root), "--out", str(out)]),
    ]


def cost(name: str, arguments: list[str]) -> Cost:
    """What one of the harness's commands takes, in a process of its own."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "harness", *arguments], stdout=subprocess.DEVNULL, cwd=ROOT)
    _, state, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(state)
    if child.returncode:
        raise RuntimeError(f"harness {name} ended with exit code {child.returncode}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(name, time.perf_counter() - started, used.ru_utime + used.ru_stime, peak)


def _place(index: int) -> dict[str, str]:
    """Ten variants a dataset, `TRAIN_SEEDS` trainings each."""
    setting = index // TRAIN_SEEDS
    return {"dataset": f"dataset{setting // 10:02d}", "variant": f"variant{setting % 10}"}


def _machine() -> dict[str, Any]:
    return {
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "host": "bench",
        "device": "CPU",
        "cpu": "made up",
        "cores": 2,
        "threads": 2,
        "load_1m": 0.0,
        "python": "3.11",
        "torch": "2.13",
        "package": "0.1",
        "commit": "0" * 40,
        "dirty": False,
    }


def _training(job: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    trial = {
        "job": job,
        "seed": seed,
        "status": "done",
        "dataset_name": "bulk",
        "dataset_variant": "made up",
        "dataset_status": "sample",
        "dataset_sha256": "0" * 64,
        **LAYOUT,
        "dims": DIMS,
        "arm": "pixelcnn",
        "arm_config": "{}",
        "training_config": "{}",
        "parameters": 10**6,
        "iterations": 1000,
        **dict.fromkeys(("train_bits_per_dim", "valid_bits_per_dim", "test_bits_per_dim"), 1.0 + seed / 100),
        "checkpoint_sha256": f"{job:0>64}",
        "wall_s": 60.0,
        **_machine(),
    }
    curves = [
        {
            "job": job,
            "step": step,
            "train_bits_per_dim": 1 + 100 / step,
            "valid_bits_per_dim": 1 + 110 / step,
            "learning_rate": 1e-3,
            "iterations_per_s": 10.0,
            "wall_s": step / 10,
        }
        for step in range(100, 1001, 100)
    ]
    return {"trials": [trial], "curves": curves}


def _timing(
    job: str, train: str, train_seed: int, seeds: int, generator: np.random.Generator
) -> dict[str, list[dict[str, Any]]]:
    shared = {"job": job, "train_job": train, "train_seed": train_seed, "status": "done", "dims": DIMS}
    shared |= {"dtype": "float32", "checkpoint_sha256": f"{train:0>64}", "is_warmup": False, **_machine()}
    timings: list[dict[str, Any]] = []
    samples, mistakes = [], []
    for name, share in SAMPLERS:
        named = {"sampler": name}
        for batch in BATCHES:
            calls = np.full((seeds, batch), DIMS)
            if share < 1:
                calls = np.clip(generator.normal(share * DIMS, 3, size=(seeds, batch)), 1, DIMS).astype(int)
            for seed, row in enumerate(calls):
                timings.append(
                    {
                        **shared,
                        **named,
                        "batch_size": batch,
                        "samples": batch,
                        "seed": seed,
                        "run_order": len(timings),
                        "wall_s": float(row.max() * (0.001 + 0.0005 * batch) * generator.lognormal(0, 0.05)),
                        "arm_calls": row.tolist(),
                        "arm_work": np.full(batch, float(row.max())).tolist(),
                        "mistakes": (row - 1).tolist(),
                        "exact_fraction": 1.0,
                        "busy": False,
                    }
                )
        for k in range(16):
            images = generator.integers(0, 17, size=DIMS).astype(np.uint8).tobytes()
            wrong = (generator.random(DIMS) < share / 2).astype(np.uint8).tobytes()
            settled = generator.integers(1, 10, size=DIMS).tolist()
            samples.append(
                {"job": job, **named, "seed": 10, "sample_id": k, **LAYOUT, "image": images, "mistakes": wrong}
                | {"settled_at": settled, "exact": True}
            )
        for row, column in np.ndindex(LAYOUT["height"], LAYOUT["width"]):
            place = {"row": row, "column": column, "channel": 0, "samples": 16}
            mistakes.append({"job": job, **named, **place, "mistakes": 1, "mean_settled_at": 1.0 + row})
    return {"timings": timings, "samples": samples, "mistakes": mistakes}


def _finish(store: Store, job: str) -> None:
    """Leave the progress file that a finished job leaves, which `harness status` reads."""
    about = {"job": job, "kind": "", "title": job, "state": "done", "step": 1, "total": 1, "unit": "", "note": ""}
    about |= {"metrics": {}, "seconds_left": None, "updated_at": 0.0, "host": "bench", "pid": 1}
    (job_folder(store.root, job) / "progress.json").write_text(json.dumps(about), encoding="utf-8")


@click.command(cls=Benchmark)
@click.option("--jobs", default=1000, show_default=True, type=click.IntRange(min=2), help="Half of them trainings.")
@click.option("--rows", default=1_000_000, show_default=True, type=click.IntRange(min=1), help="Timing rows, about.")
@click.option("--store", "root", type=click.Path(path_type=Path), help="Fill this folder, or take it if it is filled.")
def main(jobs: int, rows: int, root: Path | None) -> None:
    """Time `status` and `report` on a store of made-up rows, and say how much memory they take.

    \b
    Example:
      python -m benchmarks.report --jobs 100 --rows 100000
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = root.absolute() if root is not None else Path(scratch) / "store"
        store = Store(place)
        if not store.jobs():
            with CONSOLE.status("Filling a store ...") as line:
                fill_store(
                    store,
                    jobs=jobs,
                    rows=rows,
                    progress=lambda at, all_: line.update(f"Filling a store: {at} of {all_} jobs"),
                )
        elif not all(name.startswith(("train", "timing")) for name in store.jobs()):
            raise InputError(f"{place} holds results of sweeps; give a folder of its own to this benchmark")
        count = len(store.read("timings", columns=["seed"]))
        CONSOLE.print(f"{len(store.jobs())} jobs, {count} timing rows")
        for each in measure(place, Path(scratch) / "out"):
            CONSOLE.print(each.line())


if __name__ == "__main__":
    main()
