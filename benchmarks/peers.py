"""Tokens a call of the samplers that others published beside ours, on a toy that costs nothing to run.

What is measured is how well drafts survive, not time: `harness sweep peers` times the same samplers on trained ARMs.
"""

from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor

from arm_core import ArmOutput, AutoregressiveModel, Layout, SampleTrace, sample_many
from arm_core.contracts import SamplerState
from arm_core.fixed_point import fixed_point
from arm_core.samplers import scd_sample, sjd_sample
from benchmarks.command import Benchmark
from benchmarks.law import PassSpans
from harness.console import CONSOLE

TOKENS = Layout(1, 16, 16, 256)
WINDOW, SAMPLES = 16, 12
SCALES = (1.22, 2.25, 3.5, 4.8)
"""Of the logits: the smaller, the nearer to uniform tokens."""


class Neighbours(AutoregressiveModel):
    """Random tokens: the logits of one are a random function of the tokens left of it and above it.

    Args:
        scale: of the logits.
        features: of the embedding of a token in each of its roles.
    """

    granule = 1

    def __init__(self, layout: Layout, *, scale: float, features: int = 32, seed: int = 0) -> None:
        super().__init__(layout, 0)
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(2, layout.categories + 1, features, generator=generator)
        self.head = torch.randn(features, layout.categories, generator=generator) * scale * features**-0.5

    def forward(self, x: Tensor) -> ArmOutput:
        """See `AutoregressiveModel`."""
        none, width = self.layout.categories, self.layout.width
        image = torch.nn.functional.pad(x.view(len(x), -1, width), (1, 0, 1, 0), value=none)
        left, above = image[:, 1:, :-1].flatten(1), image[:, :-1, 1:].flatten(1)
        logits = ((self.embedding[0][left] + self.embedding[1][above]) / 2**0.5) @ self.head
        return ArmOutput(logits, logits[..., :0])

    def span_cache(self, slots: int, window: int) -> PassSpans:
        """See `AutoregressiveModel`."""
        return PassSpans(self, window)


def uniform_first(generator: torch.Generator) -> Callable[[SamplerState], Tensor]:
    """Fixed-point iteration from the uniform drafts that the others start with."""

    def uniform_first_of(state: SamplerState) -> Tensor:
        draws = torch.randint(state.layout.categories, state.x.shape, generator=generator)
        return torch.where(state.evaluated, fixed_point(state), draws)

    return uniform_first_of


def toy(scale: float, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, float]:
    """Nats a token, and tokens a call of each sampler, each sample at its own place."""
    arm, found = Neighbours(TOKENS, scale=scale), dict[str, float]()

    def add(name: str, trace: SampleTrace) -> None:
        found[name] = float(TOKENS.dims * len(trace.x) / trace.arm_calls.sum())

    generator = torch.Generator().manual_seed(seed)
    ours = sample_many(arm, count=samples, seed=seed, slots=samples, window=WINDOW, forecaster=uniform_first(generator))
    found["nats"] = -float(arm.log_prob(ours.x).mean()) / TOKENS.dims
    drafted: dict[str, Any] = {"batch": samples, "generator": generator, "window": WINDOW}
    add("sjd", sjd_sample(arm, **drafted, slots=samples))
    add("scd, gumbel", scd_sample(arm, **drafted, slots=samples))
    add("scd, maximal", scd_sample(arm, **drafted, slots=samples, coupling="maximal"))
    add("ours", ours)
    add("sjd, lock-step", sjd_sample(arm, **drafted))
    add("scd, lock-step", scd_sample(arm, **drafted))
    return found


@click.command(cls=Benchmark)
@click.option("--samples", default=SAMPLES, show_default=True, type=click.IntRange(min=1), help="Of each sampler.")
def main(samples: int) -> None:
    """Tokens a call at four entropies: 16 x 16 tokens of 256 categories, a window of 16, uniform first drafts.

    \b
    Example:
      python -m benchmarks.peers --samples 48
    """
    for number, scale in enumerate(SCALES):
        row = toy(scale, samples=samples)
        if number == 0:
            CONSOLE.print("nats a token  " + "  ".join(name for name in row if name != "nats"), soft_wrap=True)
        numbers = "  ".join(f"{value:{len(name)}.2f}" for name, value in row.items() if name != "nats")
        CONSOLE.print(f"{row['nats']:12.1f}  {numbers}", soft_wrap=True)


if __name__ == "__main__":
    main()
