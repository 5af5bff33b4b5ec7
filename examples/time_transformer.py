"""Do cached windows beat the usual key-value-cached ancestral sampling of a transformer? On the wall clock, in one run.

    python examples/time_transformer.py CHECKPOINT [ROUNDS]

The rival is written by hand for this one ARM, as one would without a library: a dimension a call, nothing forecast.
`harness bench` times all samplers; this adds the one that knows the network.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from arm_core import AutoregressiveModel, load_arm, sample_many, sample_noise
from arm_core.registry import ARMS
from arm_core.samplers import cached_sequential_sample

SEED = 10
Sampler = Callable[[AutoregressiveModel, Tensor], Tensor]


def in_batches(sample: Sampler, arm: AutoregressiveModel, count: int, slots: int) -> Tensor:
    """`count` samples in batches of `slots`."""
    batches = [range(first, min(first + slots, count)) for first in range(0, count, slots)]
    return torch.cat(
        [
            sample(arm, sample_noise(arm.layout, seed=SEED, sample_ids=ids, dtype=arm.head.weight.dtype))
            for ids in batches
        ]
    )


@torch.inference_mode()
def key_value_cached(arm: torch.nn.Module, noise: Tensor) -> Tensor:
    """The rival."""
    (batch, dims, _), heads = noise.shape, arm.config.heads
    x = torch.zeros(batch, dims, dtype=torch.int64)
    kept = noise.new_zeros(arm.config.layers, 2, batch, heads, dims, arm.config.width // heads)
    for i in range(dims):
        rows = arm.embed(x, torch.full((batch, 1), i))
        for block, (keys, values) in zip(arm.blocks, kept, strict=True):
            rows = block(rows, partial(_attend, keys, values, i))
        x[:, i] = (arm.head(arm.norm(rows[:, 0])) + noise[:, i]).argmax(dim=-1)
    return x


def _attend(keys: Tensor, values: Tensor, i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    keys[:, :, i], values[:, :, i] = k[:, :, 0], v[:, :, 0]
    return F.scaled_dot_product_attention(q, keys[:, :, : i + 1], values[:, :, : i + 1])


def sequential(arm: AutoregressiveModel, noise: Tensor) -> Tensor:
    """The same by the spans of any ARM."""
    return cached_sequential_sample(arm, noise).x


def windows(arm: AutoregressiveModel, count: int, slots: int, window: int | None) -> Tensor:
    """The same samples by `sample_many`, its default forecaster, and windows of so many dims."""
    return sample_many(arm, count=count, seed=SEED, slots=slots, window=window).x


def main(checkpoint: Path, rounds: int) -> None:
    """Print seconds a sample and the ratio to the rival, for 1 and for 16 slots, medians over the rounds."""
    here = Path(__file__).parent
    arm = load_arm(checkpoint, arm=ARMS.resolve(f"{here / 'causal_transformer.py'}:CausalTransformer"))
    row = arm.layout.width * arm.layout.channels
    for slots, count in ((1, 2), (16, 64)):
        ways: dict[str, Callable[[], Tensor]] = {
            "key-value cache": partial(in_batches, key_value_cached, arm, count, slots),
            "cached sequential": partial(in_batches, sequential, arm, count, slots),
        }
        for name, window in (
            ("1/4 row", max(1, row // 4)),
            ("1/2 row", max(1, row // 2)),
            ("row", row),
            ("chosen", None),
        ):
            ways[f"window {name}"] = partial(windows, arm, count, slots, window)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        expected, equal = ways["key-value cache"](), True
        for _ in range(rounds):
            for name, sample in ways.items():
                started = time.perf_counter()
                drawn = sample()
                seconds[name].append((time.perf_counter() - started) / count)
                equal &= torch.equal(drawn, expected)
        rival = statistics.median(seconds["key-value cache"])
        print(f"{slots} slots, {count} samples of {arm.layout.dims} dims; all samples equal: {equal}")
        for name, times in seconds.items():
            median = statistics.median(times)
            print(f"  {name:<17} {median * 1e3:8.1f} ms a sample  {rival / median:5.2f}x")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
