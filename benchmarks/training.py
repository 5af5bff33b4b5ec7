"""The training step beside the same network with plain convolutions: what masks and everything else cost.

Both networks have the same layers and shapes; the plain one has no masks (and is no ARM). Steps of the two are
interleaved and the medians compared, on this device, in one run. Where the time goes is read from torch's profiler,
and the memory from a process for each network, which trains that one alone.
"""

import multiprocessing
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import click
import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from arm_core import InputError, Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.training import StepMetrics, Training, TrainingConfig, fit
from benchmarks.command import Benchmark
from harness.console import CONSOLE
from harness.jobs.clock import clock_for
from harness.jobs.machine import device_of_this_job, peak_memory

CONVOLUTION = ("convolution", "conv2d", "conv_transpose")


@dataclass(frozen=True)
class Step:
    """The step that is measured.

    Attributes:
        layout, config: of the PixelCNN.
        batch_size: images a step.
        accumulate: parts in which the batch goes through the network.
    """

    layout: Layout
    config: PixelCNNConfig
    batch_size: int
    accumulate: int = 1

    def run(self, *, masked: bool) -> Iterator[StepMetrics]:
        """Steps without an end, on random images."""
        torch.manual_seed(0)
        data = torch.randint(self.layout.categories, (4 * self.batch_size, self.layout.dims), dtype=torch.uint8)
        arm = PixelCNN(self.layout, self.config).to(device_of_this_job())
        if not masked:
            unmask(arm)
        settings = TrainingConfig(iterations=10**9, batch_size=self.batch_size, accumulate=self.accumulate)
        return fit(Training(arm, None, settings, seed=0), data)


@dataclass(frozen=True)
class StepCosts:
    """What a training step takes.

    Attributes:
        masked_s, plain_s: median seconds of a step with the masked and with the plain network.
        ratio: median of the two, step beside step.
        other_share: median share of a masked step's operator time that is not spent in convolutions; looking up the
            columns of one-hot images counts as such.
        masked_bytes, plain_bytes: most that a process holds which takes two steps with that network alone.
    """

    masked_s: float
    plain_s: float
    ratio: float
    other_share: float
    masked_bytes: int
    plain_bytes: int


def cost_of(step: Step, *, steps: int) -> StepCosts:
    """Measure `steps` training steps of each network, after one of each that does not count."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        masked_bytes, plain_bytes = alone.starmap(_peak, [(step, True), (step, False)], chunksize=1)
    device = device_of_this_job()
    runs = [step.run(masked=masked) for masked in (True, False)]
    clock = clock_for(device)
    seconds: list[list[float]] = [[], []]
    for turn in range(steps + 1):
        for run, found in zip(runs, seconds, strict=True):
            took = clock(lambda run=run: next(run))[1]  # type: ignore[misc]
            if turn > 0:
                found.append(took)
    masked_s, plain_s = map(statistics.median, seconds)
    ratio = statistics.median(first / second for first, second in zip(*seconds, strict=True))
    share = statistics.median(_other_share(runs[0], device) for _ in range(steps))
    return StepCosts(masked_s, plain_s, ratio, share, masked_bytes, plain_bytes)


def unmask(module: nn.Module) -> None:
    """Take every mask out of a network: the same layers as plain convolutions."""
    for part in module.modules():
        if getattr(part, "mask", None) is not None:
            part.mask = None  # type: ignore[assignment]


def _peak(step: Step, masked: bool) -> int:
    run = step.run(masked=masked)
    next(run), next(run)
    return peak_memory(device_of_this_job())


def _other_share(run: Iterator[StepMetrics], device: torch.device) -> float:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes a line whenever it starts and stops
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=kinds) as record:
        next(run)
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    spent = {True: 0.0, False: 0.0}
    for event in record.events():
        spent[_in_convolution(event)] += getattr(event, field)
    return spent[False] / max(sum(spent.values()), 1)


def _in_convolution(event: FunctionEvent | None) -> bool:
    """Whether an operator is a convolution or was called by one, to lay out its weights for example."""
    while event is not None:
        if any(kind in event.name for kind in CONVOLUTION):
            return True
        event = event.cpu_parent
    return False


@click.command(cls=Benchmark)
@click.option("--size", default="32x32x3x256", show_default=True, help="HEIGHTxWIDTHxCHANNELSxCATEGORIES.")
@click.option("--resnets", default=5, show_default=True, type=click.IntRange(min=1), help="Per block and stream.")
@click.option("--filters", default=162, show_default=True, type=click.IntRange(min=1), help="Features of a layer.")
@click.option("--batch-size", default=4, show_default=True, type=click.IntRange(min=1), help="Images a step.")
@click.option("--accumulate", default=1, show_default=True, type=click.IntRange(min=1), help="Parts of a batch.")
@click.option("--steps", default=5, show_default=True, type=click.IntRange(min=1), help="Timed steps of each network.")
def main(size: str, resnets: int, filters: int, batch_size: int, accumulate: int, steps: int) -> None:
    """Time PixelCNN's training step beside the same network with plain, unmasked convolutions.

    \b
    Example:
      python -m benchmarks.training --size 28x28x1x2 --resnets 2 --filters 60 --batch-size 16
    """
    parts = size.split("x")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise InputError(f"--size must be HEIGHTxWIDTHxCHANNELSxCATEGORIES, for example 28x28x1x2, got {size!r}")
    height, width, channels, categories = map(int, parts)
    step = Step(Layout(channels, height, width, categories), PixelCNNConfig(resnets, filters), batch_size, accumulate)
    costs = cost_of(step, steps=steps)
    CONSOLE.print(
        f"masked {costs.masked_s:.3f} s, plain {costs.plain_s:.3f} s a step: ratio {costs.ratio:.3f}; not convolution "
        f"{costs.other_share:.1%}; peak memory {costs.masked_bytes / 2**20:.0f} MiB masked, "
        f"{costs.plain_bytes / 2**20:.0f} MiB plain",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
