"""What a sweep of very many jobs costs by itself: planning it, its status, and running it where the jobs do no work.

Nodes are emulated: each is a Ray node of one CPU on this machine, six of eight train and two time. A training takes one
step of a tiny ARM on a few tiny images, and its timing draws one sample: what is measured is what comes around them.
"""

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.command import Benchmark
from benchmarks.report import Cost, cost
from harness.console import CONSOLE
from harness.store import Store, job_folder
from harness.sweep import load_sweep, make_plan

TIMING_SHARE = 4
"""One node in so many times, the others train."""
PARTS = 5


def write_sweep(folder: Path, jobs: int) -> Path:
    """A sweep of so many jobs, half of them trainings and half their timings."""
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 2, (8, 1, 4, 4), np.uint8) for name in ("train", "valid", "test")}
    np.savez(folder / "tiny.npz", **images)  # type: ignore[arg-type]
    spec: dict[str, Any] = {
        "name": "scale",
        "datasets": {"tiny": {"name": f"npz:{folder / 'tiny.npz'}"}},
        "variants": {"default": {"arm": {"resnets": 1, "filters": 2}}},
        "training": {"seeds": list(range(jobs // 2)), "iterations": 1, "batch_size": 2},
        "timing": {"samplers": ["ancestral"], "batch_sizes": [1], "seeds": [0], "figure_count": 1},
    }
    file = folder / "scale.yaml"
    file.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    return file


def measure_plan(folder: Path, jobs: int) -> list[Cost]:
    """Plan so many jobs with `--dry-run`, and show the status of them all while they wait."""
    file, store = write_sweep(folder, jobs), folder / "planned"
    planned = cost("plan", ["sweep", str(file), "--dry-run", "--store", str(store)])
    Store(store).write_sweep(make_plan(load_sweep(file), {}).record())
    return [planned, cost("status", ["status", "--store", str(store)])]


def measure_run(folder: Path, jobs: int, nodes: int) -> tuple[Cost, list[float]]:
    """Run so many jobs on emulated nodes; returns what the driver took, and the seconds a job in each fifth of them."""
    file, store = write_sweep(folder, jobs), Store(folder / "run")
    with emulated(nodes) as address:
        driver = cost("sweep", ["sweep", str(file), "--address", address, "--store", str(store.root)])
        CONSOLE.print(cost("again", ["sweep", str(file), "--address", address, "--store", str(store.root)]).line())
    outcomes = store.outcomes()
    if set(outcomes.values()) - {"done"} or len(outcomes) != len(make_plan(load_sweep(file), {}).jobs):
        raise RuntimeError(f"not every job is done: {outcomes}")
    ended = sorted((job_folder(store.root, job) / "done.json").stat().st_mtime for job in outcomes)
    edges = np.linspace(0, len(ended) - 1, PARTS + 1).astype(int)
    return driver, [(ended[stop] - ended[start]) / (stop - start) for start, stop in itertools.pairwise(edges)]


@contextmanager
def emulated(nodes: int) -> Iterator[str]:
    """A cluster of a head and so many nodes of one CPU on this machine; gives its address."""
    os.environ.update(RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1", RAY_raylet_start_wait_time_s="120")
    from ray._private.services import node_ip_address_from_perspective
    from ray.cluster_utils import Cluster

    place = node_ip_address_from_perspective()  # where a driver of its own looks for them
    head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": place}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for index in range(nodes):
            role: dict[str, Any] = {"labels": {"role": "train"}}
            if index % TIMING_SHARE == TIMING_SHARE - 1:
                role = {"labels": {"role": "timing"}, "resources": {"timing": 1}}
            cluster.add_node(num_cpus=1, node_ip_address=place, **role)
        yield cluster.address
    finally:
        cluster.shutdown()


@click.command(cls=Benchmark)
@click.option("--planned", default=10_000, show_default=True, type=click.IntRange(min=2), help="Jobs that are planned.")
@click.option("--jobs", default=1000, show_default=True, type=click.IntRange(min=20), help="Jobs that run.")
@click.option("--nodes", default=8, show_default=True, type=click.IntRange(min=TIMING_SHARE), help="That they run on.")
def main(planned: int, jobs: int, nodes: int) -> None:
    """Plan very many jobs, and run many that do no work on an emulated cluster.

    \b
    Example:
      python -m benchmarks.scale --planned 1000 --jobs 40 --nodes 4
    """
    with tempfile.TemporaryDirectory() as scratch:
        CONSOLE.print(f"{planned} jobs, planned (with the models built) and shown")
        for each in measure_plan(Path(scratch), planned):
            CONSOLE.print(each.line())
        CONSOLE.print(f"{jobs} jobs on {nodes} nodes")
        driver, parts = measure_run(Path(scratch), jobs, nodes)
        CONSOLE.print(driver.line())
        CONSOLE.print(f"seconds a job, a fifth of the jobs each: {', '.join(f'{part:.2f}' for part in parts)}")


if __name__ == "__main__":
    main()
