"""What Ray costs, and what it gains where trials run side by side.

The same trainings of one thread each, by `harness sweep` as users run it: one after the other in one process, one at a
time on Ray, and as many at a time on Ray as there are cores.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.errors import InputError
from arm_core.training import Training, TrainingConfig, fit
from benchmarks.command import ROOT, Benchmark
from harness.console import CONSOLE
from harness.jobs.machine import available_cpus
from harness.store import Store

ARM = {"resnets": 1, "filters": 24, "dropout": 0.0}
TRAINING = {"batch_size": 32, "learning_rate": 1e-3, "evaluate_every": 500, "checkpoint_every": 500}
_CALIBRATION = 30
"""Steps that tell how many a trial has to take."""


def _spec(trials: int, iterations: int, cpus: int) -> dict[str, Any]:
    return {
        "name": "overhead",
        "datasets": {"digits": {}},
        "variants": {"default": {"arm": ARM}},
        "training": {**TRAINING, "iterations": iterations, "seeds": list(range(trials))},
        "resources": {"train": {"cpus": cpus, "threads": 1}},
    }


def _sweep(folder: Path, spec: dict[str, Any], options: list[str]) -> tuple[float, list[float]]:
    """Wall seconds of the command, and of each training in it."""
    folder.mkdir()
    file, store = folder / "sweep.yaml", folder / "store"
    file.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "harness", "sweep", str(file), *options, "--store", str(store)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    wall = time.perf_counter() - started
    return wall, [round(float(took), 1) for took in Store(store).read("trials", columns=["wall_s"])["wall_s"]]


def _step_seconds() -> float:
    """Of a training step with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        digits = load_dataset("digits")
        arm = PixelCNN(digits.layout, PixelCNNConfig(**ARM))  # type: ignore[arg-type]
        settings = TrainingConfig(**{**TRAINING, "iterations": 10**9})  # type: ignore[arg-type]
        run = fit(Training(arm, None, settings, seed=0), digits.split("train"))
        for _ in range(_CALIBRATION // 3):
            next(run)
        started = time.perf_counter()
        for _ in range(_CALIBRATION):
            next(run)
        return (time.perf_counter() - started) / _CALIBRATION
    finally:
        torch.set_num_threads(threads)


@click.command(cls=Benchmark)
@click.option("--trials", default=4, show_default=True, type=click.IntRange(min=1), help="Trainings of a sweep.")
@click.option("--seconds", default=75.0, show_default=True, type=click.FloatRange(min=1), help="Of each, about.")
def main(trials: int, seconds: float) -> None:
    """Time a sweep of small trainings without Ray, on Ray one at a time, and on Ray side by side.

    \b
    Example:
      python -m benchmarks.overhead --trials 2 --seconds 20
    """
    cores = available_cpus()
    if cores < 2:
        raise InputError("nothing can run side by side on one core; run this on a machine with two or more")
    iterations = max(1, round(seconds / _step_seconds()))
    CONSOLE.print(f"{trials} trainings of {iterations} iterations with one thread each, on {cores} cores")
    walls: dict[str, float] = {}
    ways = {
        "serial": (1, ["--serial"]),
        "Ray, one at a time": (cores, ["--no-dashboard"]),
        f"Ray, {min(cores, trials)} at a time": (1, ["--no-dashboard"]),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for number, (way, (cpus, options)) in enumerate(ways.items()):
            folder = Path(scratch) / str(number)
            walls[way], trained = _sweep(folder, _spec(trials, iterations, cpus), options)
            ratio = walls[way] / walls["serial"]
            said = f"{way:<20} {walls[way]:7.1f} s  {ratio:5.2f} of serial  trainings {trained} s"
            CONSOLE.print(said, soft_wrap=True)


if __name__ == "__main__":
    main()
