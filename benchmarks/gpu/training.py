"""Question 4: a training step at the paper's sizes (Table 1), so that the days of its 200,000 iterations are known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from arm_core import Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.training import StepMetrics, Training, TrainingConfig, fit
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import Setting, attempt

REPETITIONS = 3
PRECISIONS = ("float32, TF32 convolutions", "float32", "bfloat16 autocast")
"""torch's default, plain float32, and autocast."""


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        name: short, for tables.
        layout, arm, modules: of the ARM and its forecasting modules.
        batch_size: images a step.
    """

    name: str
    layout: Layout
    arm: PixelCNNConfig
    modules: ForecastingConfig
    batch_size: int = 64


PAPER = (
    Recipe("R2 F60", Layout(1, 28, 28, 2), PixelCNNConfig(2, 60, 0.5), ForecastingConfig(20, 60)),
    Recipe("R5 F162", Layout(3, 32, 32, 256), PixelCNNConfig(5, 162, 0.5), ForecastingConfig(1, 162)),
    Recipe("R5 F160", Layout(4, 8, 8, 128), PixelCNNConfig(5, 160, 0.5), ForecastingConfig(1, 160)),
)
SMALL = (Recipe("R1 F4", Layout(1, 8, 8, 2), PixelCNNConfig(1, 4, 0.5), ForecastingConfig(3, 4), 4),)
"""For `--small`."""


def training(recipe: Recipe) -> Callable[[Setting], Iterator[Row]]:
    """An item: steps of a recipe in every precision."""

    def run(setting: Setting) -> Iterator[Row]:
        share = setting.left() / len(PRECISIONS)
        for precision in PRECISIONS:
            with precision_of(precision):
                yield from _steps(setting, recipe, precision, share)

    return run


def columns_of(recipe: Recipe, precision: str) -> Row:
    """That name a recipe in rows."""
    layout = recipe.layout
    size = f"{layout.height}x{layout.width}x{layout.channels}x{layout.categories}"
    names = {"what": "training step", "model": recipe.name, "size": size, "mode": precision}
    return {**names, "samples": recipe.batch_size}


def steps_of(recipe: Recipe, precision: str, device: torch.device) -> Iterator[StepMetrics]:
    """Steps without an end, on random images; one for each `next`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        arm = PixelCNN(recipe.layout, recipe.arm)
        modules = ForecastingModules(recipe.layout, recipe.modules, arm.hidden_features)
        data = torch.randint(recipe.layout.categories, (4 * recipe.batch_size, recipe.layout.dims), dtype=torch.uint8)
    config = TrainingConfig(iterations=10**9, batch_size=recipe.batch_size, autocast=precision == PRECISIONS[2])
    return fit(Training(arm.to(device), modules.to(device), config, seed=0), data)


@contextmanager
def precision_of(precision: str) -> Iterator[None]:
    """TF32 in convolutions as torch has it, or none."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == PRECISIONS[0]
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _steps(setting: Setting, recipe: Recipe, precision: str, most_s: float) -> Iterator[Row]:
    head = columns_of(recipe, precision)
    made: list[Iterator[StepMetrics]] = []

    def warm_up() -> Row:
        made.append(steps_of(recipe, precision, setting.device))
        found = setting.meter(lambda: _take(made[0], 3))
        return {"kind": "warm-up", "calls": 3, **found.costs()}

    first = attempt(setting, head, warm_up)
    yield first
    if first["kind"] != "warm-up":
        return
    again = setting.meter(lambda: _take(made[0], 1)).host_s
    count = max(1, min(2 if setting.small else 20, int(most_s / 2 / REPETITIONS / max(again, 1e-6))))
    for repetition in range(REPETITIONS):
        row = {**head, "kind": "timed", "repetition": repetition, "calls": count}
        yield {**row, **setting.meter(lambda: _take(made[0], count)).costs()}


def _take(steps: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(steps)
