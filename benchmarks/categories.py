"""Many categories: what noise costs a value, and what a sampler holds and takes at 24 x 24 tokens of 16,384.

The ARM of the second part costs nothing: its logits are one row, seen from everywhere. What is measured is the sampler.
"""

import resource
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import click
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core import ArmOutput, AutoregressiveModel, KeyedNoise, Layout, sample_many, sample_noise, top_k
from arm_core.contracts import SpanOutput
from benchmarks.command import Benchmark
from harness.console import CONSOLE

TOKENS = Layout(1, 24, 24, 16_384)


class FreeArm(AutoregressiveModel):
    """The same logits everywhere, without a copy of them."""

    granule = 1

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, hidden_features=0)
        self.row = torch.nn.Parameter(torch.linspace(0, 4, layout.categories)[None], requires_grad=False)

    def forward(self, x: Int[Tensor, "batch dims"]) -> ArmOutput:
        logits = self.row.expand(len(x), *x.shape[1:], -1)
        return ArmOutput(logits, logits[..., :0])

    def span_cache(self, slots: int, window: int) -> "FreeSpans":
        return FreeSpans(self, window)


class FreeSpans:
    """Spans of it."""

    def __init__(self, arm: FreeArm, window: int) -> None:
        self.arm, self.window = arm, min(window, arm.layout.dims)

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        places = torch.arange(x.shape[1])
        where = ((places >= start[:, None]) & (places < stop[:, None])).flatten().nonzero().flatten()
        logits = self.arm.row.expand(len(where), -1)
        return SpanOutput(where, logits, logits[:, :0], len(where) / x.shape[1])


class NoiseCost(NamedTuple):
    """Seconds of one sample's noise: all at once as the first version made it, in chunks, and one row of it."""

    whole: float
    chunks: float
    row: float


def first_version(layout: Layout, seed: int, sample_id: int) -> Float[np.ndarray, "dims categories"]:
    """The noise as the first version made it: every intermediate result as large as the sample."""
    bits = np.random.Philox(key=np.array([seed, sample_id], np.uint64)).random_raw(layout.dims * layout.categories)
    uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform)).reshape(layout.dims, layout.categories)


def noise_cost(layout: Layout, repetitions: int) -> NoiseCost:
    """Medians of repetitions that take turns; the two are first seen to be equal, bit for bit."""
    keyed = KeyedNoise(layout, seed=0, sample_ids=range(repetitions))
    rows, dims = torch.zeros(1, dtype=torch.int64), torch.full((1,), layout.dims // 2)
    if not torch.equal(torch.from_numpy(first_version(layout, 0, 0)).float(), keyed.dense([0])[0]):
        raise AssertionError("the noise differs from that of the first version")
    taken: list[list[float]] = [[], [], []]

    def timed(place: int, make: Callable[[], object]) -> None:
        started = time.perf_counter()
        make()
        taken[place].append(time.perf_counter() - started)

    for sample in range(repetitions):
        timed(0, lambda: torch.from_numpy(first_version(layout, 0, sample)).float())  # noqa: B023 called at once
        timed(1, lambda: sample_noise(layout, seed=0, sample_ids=[sample]))  # noqa: B023
        timed(2, lambda: keyed.at(rows, dims))
    return NoiseCost(*map(median, taken))


class SamplingCost(NamedTuple):
    """Of a stream: bytes above what the process held before, at most; seconds a sample; calls a sample."""

    peak_bytes: int
    wall_s: float
    arm_calls: float


def sampling_cost(layout: Layout, *, slots: int, window: int | None, filtered: bool) -> SamplingCost:
    """One sample a slot, in a process whose highest memory so far this is."""
    arm = FreeArm(layout)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    processor = top_k(2000) if filtered else None
    trace = sample_many(arm, count=slots, seed=0, slots=slots, window=window, logits_processor=processor)
    wall_s = time.perf_counter() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return SamplingCost(peak, wall_s / slots, trace.arm_calls.double().mean().item())


@click.command(cls=Benchmark)
@click.option("--slots", default=48, show_default=True, type=click.IntRange(min=1), help="Samples in work at a time.")
@click.option("--window", type=click.IntRange(min=1), help="Dims of a window; chosen while sampling if left out.")
@click.option("--categories", default=16_384, show_default=True, type=click.IntRange(min=2), help="Of a token.")
@click.option("--top-k", "filtered", is_flag=True, help="Filter by top-k 2000.")
@click.option("--repetitions", default=7, show_default=True, type=click.IntRange(min=1), help="Of the noise.")
def main(slots: int, window: int | None, categories: int, filtered: bool, repetitions: int) -> None:
    """Measure noise, and a stream of 24 x 24 tokens, on an ARM that costs nothing.

    \b
    Example:
      python -m benchmarks.categories --slots 48
    """
    layout = Layout(1, 24, 24, categories)
    found = sampling_cost(layout, slots=slots, window=window, filtered=filtered)
    how = f"{slots} slots, {layout.dims} dims of {categories} categories" + (", top-k 2000" if filtered else "")
    CONSOLE.print(
        f"{how}: at most {found.peak_bytes / 2**20:.0f} MiB above the start, {found.wall_s:.3f} s a sample, "
        f"{found.arm_calls:.1f} calls",
        soft_wrap=True,
    )
    torch.set_num_threads(1)
    noise = noise_cost(layout, repetitions)
    values = layout.dims * layout.categories
    CONSOLE.print(
        f"Noise of a sample, one thread, medians of {repetitions}: "
        f"{noise.whole * 1e9 / values:.1f} ns a value at once, "
        f"{noise.chunks * 1e9 / values:.1f} in chunks: {noise.whole / noise.chunks:.1f} times faster, bit for bit. "
        f"The noise of one dimension, where a sample starts: {noise.row * 1e3:.3f} ms",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
