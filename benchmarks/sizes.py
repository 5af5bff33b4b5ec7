"""What the paper's models cost at their full sizes on this machine, and what training them would cost on V100s.

Seconds of a pass, of a window call and of a training step do not depend on the weights, which are random unless there
are trained ones; the calls that a sample needs do. Days on V100s are computed from counted operations, not measured.
Each size is measured in a process of its own.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich import box
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from arm_core import Layout, predictive_sample, sample_many
from arm_core.forecasters import fixed_point
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.native import native_kernels
from arm_core.optimisation import fit
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import keyed_noise
from arm_core.training import AutoencoderTraining, AutoencoderTrainingConfig
from benchmarks.command import Benchmark
from benchmarks.gpu import models
from benchmarks.gpu.models import Model, Size, model_of
from benchmarks.gpu.training import PAPER, PRECISIONS, SMALL, Recipe, steps_of
from harness.console import CONSOLE
from harness.jobs.machine import forget_peak_memory, keep_freed_memory, peak_memory

Row = dict[str, Any]
CPU = torch.device("cpu")
V100 = 15.7e12
"""Operations a second in float32 at most, of the V100 with SXM2 (NVIDIA's data sheet)."""
SHARE = 0.4
"""Of that peak, which a training step is taken to reach. An H200 reached 9.4 of its 67 TFLOP/s, 0.14 (R5 F162 in plain
float32, results/gpu), at which the days would be 2.9 times as many."""
LATENTS, IN_CPP = "autoencoder", ", C++"
TRAININGS = {"R2 F60": (1, 200_000), "R5 F162": (3, 200_000), "R5 F160": (3, 200_000), LATENTS: (3, 50_000)}
"""How many models of `--profile paper` (sweeps/table1.yaml, table2.yaml) have this size, and the iterations of each."""


@dataclass(frozen=True)
class Part:
    """What is measured in a process: a size (its passes, windows and samplers), or training steps of `batch` images."""

    size: Size | None
    recipe: Recipe | None
    batch: int
    slots: tuple[int, ...] = ()
    repetitions: int = 3
    native: bool = False


def measure(part: Part) -> list[Row]:
    """The rows of a part."""
    keep_freed_memory()
    if part.size is not None:
        return list(_arm(part, part.size))
    return [_training(part)]


def _arm(part: Part, size: Size) -> Iterator[Row]:
    model = model_of(size, CPU)
    parameters = sum(p.numel() for p in model.arm.parameters())
    for slots in part.slots:
        x = torch.randint(size.layout.categories, (slots, size.layout.dims))
        shared = {**model.columns, "parameters": parameters, "slots": slots}
        yield from ({**shared, **found} for found in (*_calls(model, x, part), *_samplers(model, x, part)))


def _calls(model: Model, x: torch.Tensor, part: Part) -> Iterator[Row]:
    """A pass over whole images, and a window of a row of each, each at a row of its own."""
    arm, row, counter = model.arm, model.size.row, FlopCounterMode(display=False)
    with sampling_mode(arm):
        with counter:
            arm(x[:1])
        flops = counter.get_total_flops()
        seconds, peak = _timed(partial(arm, x), part.repetitions)
        yield {"what": "pass", "seconds": seconds, "gflops": len(x) * flops / seconds / 1e9, "peak_bytes": peak}
        start = torch.arange(len(x)) * row % (x.shape[1] - row)
        for native in _ways(part):
            with native_kernels(native):
                call = partial(arm.span_cache(len(x), row).evaluate, x, start, start + row)
            work = call().work
            seconds, peak = _timed(call, part.repetitions)
            rate, what = work * flops / seconds / 1e9, f"window call{IN_CPP * native}"
            yield {"what": what, "seconds": seconds, "gflops": rate, "peak_bytes": peak, "work": work}


def _ways(part: Part) -> tuple[bool, ...]:
    return (False, True) if part.native else (False,)


def _samplers(model: Model, x: torch.Tensor, part: Part) -> Iterator[Row]:
    """The last two rows of images, the rest being given: by the paper's algorithm, and in windows of a row.

    Calls of windows count those that evaluate the rows that are given, one for each.
    """
    arm, row, slots = model.arm, model.size.row, len(x)
    prefix, noise = x[:, : x.shape[1] - 2 * row], keyed_noise(arm, seed=0, sample_ids=range(slots))
    windows = partial(sample_many, arm, count=slots, seed=0, slots=slots, window=row, prefix=prefix)
    ways = [("2 rows, paper's", False, partial(predictive_sample, arm, noise, fixed_point, prefix=prefix))]
    ways += [(f"2 rows, windows{IN_CPP * native}", native, windows) for native in _ways(part)]
    drawn: list[torch.Tensor] = []
    for name, native, run in ways:
        forget_peak_memory()
        with native_kernels(native):
            started = time.perf_counter()
            trace = run()
        seconds, peak = time.perf_counter() - started, peak_memory(CPU)
        drawn.append(trace.x)
        calls, work = trace.arm_calls.double().mean().item(), trace.arm_work.mean().item()
        found = {"what": name, "seconds": seconds, "peak_bytes": peak, "calls": calls, "work": work}
        yield {**found, "same_samples": torch.equal(drawn[0], trace.x)}


def _training(part: Part) -> Row:
    steps, name, batch = _steps(part), LATENTS if part.recipe is None else part.recipe.name, part.batch
    counter = FlopCounterMode(display=False)
    with counter:
        next(steps)
    seconds, peak = _timed(lambda: next(steps), part.repetitions)
    flops, whole = counter.get_total_flops(), 64 if part.recipe is None else part.recipe.batch_size
    found = {"model": name, "what": "training step", "slots": batch, "seconds": seconds, "peak_bytes": peak}
    count, iterations = TRAININGS.get(name, (1, 1000))
    days = iterations * flops / batch * whole / (SHARE * V100) / 86_400
    return {**found, "gflops": flops / seconds / 1e9, "models": count, "computed_v100_days_each": days}


def _steps(part: Part) -> Iterator[Any]:
    if part.recipe is not None:
        return steps_of(replace(part.recipe, batch_size=part.batch), PRECISIONS[1], CPU)
    layout = Layout(3, 32, 32, 256)
    autoencoder = DiscreteAutoencoder(layout, AutoencoderConfig(width=512, channels=4, categories=128))
    images = torch.randint(256, (4 * part.batch, 3, 32, 32), dtype=torch.uint8)
    config = AutoencoderTrainingConfig(iterations=10**9, batch_size=part.batch)
    return fit(AutoencoderTraining(autoencoder, config, seed=0), images)


def _timed(run: Callable[[], Any], repetitions: int) -> tuple[float, int]:
    """Median seconds after a run that does not count, and the most memory that the process held meanwhile."""
    forget_peak_memory()
    run()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return median(seconds), peak_memory(CPU)


def parts(*, small: bool, native: bool) -> list[Part]:
    """All of them, or tiny ones."""
    if small:
        return [
            *(Part(size, None, 0, (2,), 1, native) for size in models.SMALL),
            Part(None, SMALL[0], 2, repetitions=1),
        ]
    slots = {"R2 F60": (1, 16), "R5 F160": (1, 16), "R5 F162": (1, 4)}
    arms = [Part(size, None, 0, slots[size.name], native=native) for size in models.SIZES if size.name in slots]
    return [*arms, *(Part(None, recipe, 4) for recipe in PAPER), Part(None, None, 4)]


def show(rows: list[Row]) -> None:
    """The table, and the sum of days."""
    columns = ["model", "what", "slots", "seconds", "gflops", "peak MiB", "calls", "work", "V100 days"]
    table = Table(*columns, box=box.SIMPLE)
    for row in rows:
        values = [row.get("seconds"), row.get("gflops"), row["peak_bytes"] / 2**20, row.get("calls"), row.get("work")]
        values.append(row.get("computed_v100_days_each"))
        texts = ["" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in values]
        table.add_row(row["model"], row["what"], str(row["slots"]), *texts)
    CONSOLE.print(table)
    days = sum(row["models"] * row["computed_v100_days_each"] for row in rows if "models" in row)
    CONSOLE.print(f"All models of --profile paper, computed: {days:.1f} days of one V100 at {SHARE:.0%} of its peak")


@click.command(cls=Benchmark)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--small", is_flag=True, help="Tiny models: whether it runs at all.")
@click.option("--native", is_flag=True, help="Windows also with the kernels in C++.")
def main(out: Path | None, small: bool, native: bool) -> None:
    """Time the paper's models at their sizes: a pass, a window call, the last rows of images, a training step.

    \b
    Example:
      python -m benchmarks.sizes --native --out results/paper/sizes.json
    """
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        for found in alone.imap(measure, parts(small=small, native=native), chunksize=1):
            rows += found
    show(rows)
    if out is not None:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
