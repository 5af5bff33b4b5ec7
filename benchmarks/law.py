"""Whether samplers have the law of the ARM: chi-square over all sequences of ARMs that can be enumerated.

What the test can see depends on the first drafts. Uniform ones send a sample through so many laws that errors average
out; certain ones (`first`) lead to each value from one law only, and there the errors add up, with any ARM.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from arm_core import ArmOutput, AutoregressiveModel, Layout, SampleTrace, resampled_sample, sample_many
from arm_core.contracts import SpanOutput
from arm_core.decision import Decision, top_k
from arm_core.forecasters import fixed_point, row_above
from arm_core.samplers import pac_sample, scd_sample, sjd_sample
from arm_core.samplers.peers.drafts import DraftedWork, drafted_sample
from benchmarks.command import Benchmark
from harness.console import CONSOLE

FALSE_FAILURE = 1e-6
"""The probability with which a right sampler fails one test."""
FEWEST_EXPECTED = 5
"""Sequences that are expected less often are counted together, the rarest first."""


class Tables(AutoregressiveModel):
    """logits_i = sum over j < i of table[i, j, x_j], random; it evaluates spans, by whole passes."""

    def __init__(self, layout: Layout, *, granule: int = 1, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__(layout, 0)
        self.granule = granule
        dims, categories = layout.dims, layout.categories
        table = torch.randn(dims, dims, categories, categories, generator=torch.Generator().manual_seed(seed)) * scale
        self.table: Tensor
        self.register_buffer("table", (table * torch.ones(dims, dims).tril(-1)[:, :, None, None]).double())

    def forward(self, x: Tensor) -> ArmOutput:
        """See `AutoregressiveModel`."""
        hot = torch.nn.functional.one_hot(x, self.layout.categories).to(self.table)
        logits = torch.einsum("ijvk,bjv->bik", self.table, hot)
        return ArmOutput(logits, logits[..., :0])

    def span_cache(self, slots: int, window: int) -> "PassSpans":
        """See `AutoregressiveModel`."""
        return PassSpans(self, window)


class PassSpans:
    """Spans of any ARM by whole passes: what they cost is counted as if they were cached."""

    def __init__(self, arm: AutoregressiveModel, window: int) -> None:
        granule, self.arm = arm.granule or 1, arm
        self.window = min(-(-window // granule) * granule, arm.layout.dims)

    def evaluate(self, x: Tensor, start: Tensor, stop: Tensor) -> SpanOutput:
        """See `SpanCache`."""
        places = torch.arange(x.shape[1], device=x.device)
        where = ((places >= start[:, None]) & (places < stop[:, None])).flatten().nonzero().flatten()
        logits, hidden = self.arm(x)
        return SpanOutput(where, logits.flatten(0, 1)[where], hidden.flatten(0, 1)[where], len(where) / x.shape[1])


ARMS: dict[str, Callable[[], Tables]] = {
    "six": partial(Tables, Layout(1, 1, 6, 3), seed=3),
    "peaked": partial(Tables, Layout(1, 2, 2, 4), seed=5, scale=2.0),
    "colour": partial(Tables, Layout(2, 1, 3, 3), granule=2, seed=7),
    "two": partial(Tables, Layout(1, 1, 2, 8), seed=4),
}
DECISIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "top-2, 0.8": {"logits_processor": top_k(2), "temperature": 0.8},
}
Sampler = Callable[[AutoregressiveModel, int, int, int, dict[str, Any]], SampleTrace]
"""(ARM, samples, window, seed, what decides rows) -> samples."""


def drafted(sample: Callable[..., SampleTrace], **settings: Any) -> Sampler:
    return lambda arm, count, window, seed, options: sample(
        arm, batch=count, generator=torch.Generator().manual_seed(seed), window=window, **settings, **options
    )


SAMPLERS: dict[str, Sampler] = {
    "sjd": drafted(sjd_sample),
    "sjd, slots": drafted(sjd_sample, slots=1000),
    "sjd, row above": drafted(sjd_sample, slots=1000, first=row_above),
    "scd": drafted(scd_sample),
    "scd, slots": drafted(scd_sample, slots=1000),
    "scd, row above": drafted(scd_sample, slots=1000, first=row_above),
    "scd, maximal": drafted(scd_sample, coupling="maximal"),
    "scd, maximal, slots": drafted(scd_sample, coupling="maximal", slots=1000),
    "scd, maximal, row above": drafted(scd_sample, coupling="maximal", slots=1000, first=row_above),
    "pac": drafted(pac_sample),
    "pac, slots": drafted(pac_sample, slots=1000),
    "pac, row above": drafted(pac_sample, branches=2, depth=2, slots=1000, first=row_above),
    "resampled": lambda arm, count, window, seed, options: resampled_sample(
        arm, batch=count, generator=torch.Generator().manual_seed(seed), forecaster=fixed_point, **options
    ),
    "ours": lambda arm, count, window, seed, options: sample_many(
        arm, count=count, seed=seed, slots=1000, window=window, **options
    ),
}


class SharedNoise(DraftedWork):
    """The error that vLLM shipped (#47386, #54282): what replaces a rejected draft is drawn with the draft's noise."""

    def _instead(self, weights: Tensor, slot: Tensor, dim: Tensor) -> Tensor:
        return (weights.log() + self.noise.at(slot, dim)).argmax(dim=-1)


PLANTED = drafted(drafted_sample, make=SharedNoise, coupling="gumbel", slots=None, first=row_above)
PLANTED_SAMPLES = 60_000
"""At which about nine in ten of `ordinary_arms` tell the planted error."""


def ordinary_arms(count: int) -> Iterator[tuple[str, Tables]]:
    """(what it is, the ARM) of random ARMs of three shapes and two scales, none chosen: their seeds are 0, 1, 2, ..."""
    shapes = (Layout(1, 1, 2, 8), Layout(1, 1, 3, 4), Layout(1, 2, 2, 4))
    for number, (layout, scale) in zip(range(count), itertools.cycle(itertools.product(shapes, (1.0, 2.0)))):
        about = f"{layout.height}x{layout.width} of {layout.categories}, scale {scale:g}, seed {number}"
        yield about, Tables(layout, seed=number, scale=scale)


class Fit(NamedTuple):
    """Chi-square of counts against a law.

    Attributes:
        statistic, freedom: of the test.
        p_value: how often a sampler of that law is as far from it.
    """

    statistic: float
    freedom: int
    p_value: float


def every_sequence(layout: Layout) -> Tensor:
    """All categories ** dims sequences, in the order of their numbers in base `categories`."""
    return torch.tensor(list(itertools.product(range(layout.categories), repeat=layout.dims)))


def law_of(arm: AutoregressiveModel, options: dict[str, Any]) -> Tensor:
    """The probability of every sequence under the decision of the options, by the chain rule."""
    x = every_sequence(arm.layout)
    decision = Decision(options.get("logits_processor"), options.get("temperature", 1.0))
    logits = arm(x).logits.flatten(0, 1)
    scores = decision(logits, torch.zeros_like(logits)).scores / decision.temperature
    rows = scores.log_softmax(dim=-1).gather(1, x.flatten()[:, None])
    return rows.view_as(x).sum(dim=1).exp()


def chi_square(x: Tensor, layout: Layout, law: Tensor) -> Fit:
    """How well samples fit a law of all sequences."""
    powers = layout.categories ** torch.arange(layout.dims - 1, -1, -1)
    counts = torch.bincount(x @ powers, minlength=len(law)).double()
    if bool(counts[law == 0].any()):
        return Fit(float("inf"), 0, 0.0)
    expected, order = (law * len(x)).sort()
    counts = counts[order]
    rare = int((expected < FEWEST_EXPECTED).sum())
    while 0 < rare < len(expected) and float(expected[:rare].sum()) < FEWEST_EXPECTED:
        rare += 1
    if rare:
        expected, counts = (torch.cat([each[:rare].sum()[None], each[rare:]]) for each in (expected, counts))
    statistic = ((counts - expected).square() / expected).sum()
    freedom = len(expected) - 1
    p_value = torch.special.gammaincc(torch.tensor(freedom / 2, dtype=torch.float64), statistic / 2)
    return Fit(float(statistic), freedom, float(p_value))


def fit_of(sample: Sampler, arm: Tables, samples: int, *, seed: int = 0) -> Fit:
    """The fit of a sampler on an ARM as it is, in windows of the whole image."""
    x = sample(arm, samples, arm.layout.dims, seed, {}).x
    return chi_square(x, arm.layout, law_of(arm, {}))


def fits(samplers: dict[str, Sampler], *, samples: int, seed: int = 0) -> Iterator[tuple[tuple[str, ...], Fit]]:
    """((sampler, ARM, window, decision), fit) of each sampler on each ARM, two windows, with and without filters."""
    for arm_name, make in ARMS.items():
        arm = make()
        for decision, options in DECISIONS.items():
            law = law_of(arm, options)
            for window in (arm.layout.dims // 2, arm.layout.dims):
                for name, sample in samplers.items():
                    x = sample(arm, samples, window, seed, options).x
                    yield (name, arm_name, str(window), decision), chi_square(x, arm.layout, law)


@click.command(cls=Benchmark)
@click.option("--samples", default=20_000, show_default=True, type=click.IntRange(min=100), help="Of each test.")
@click.option("--power", type=click.IntRange(min=1), help="Count how many of so many random ARMs tell a known error.")
def main(samples: int, power: int | None) -> None:
    """Chi-square of every sampler on four ARMs with two windows, as they are and filtered.

    \b
    Examples:
      python -m benchmarks.law --samples 100000
      python -m benchmarks.law --samples 60000 --power 30
    """
    if power is not None:
        caught = 0
        for about, arm in ordinary_arms(power):
            fit = fit_of(PLANTED, arm, samples)
            caught += fit.p_value < FALSE_FAILURE
            CONSOLE.print(f"{about}: p = {fit.p_value:.3g}", soft_wrap=True)
        CONSOLE.print(f"{caught} of {power} tell shared noise at {samples:,} samples and {FALSE_FAILURE:g}.")
        return
    failed = 0
    CONSOLE.print(f"A right sampler fails a line with probability {FALSE_FAILURE:g}.")
    for names, fit in fits(SAMPLERS, samples=samples):
        failed += fit.p_value < FALSE_FAILURE
        verdict = "FAILS" if fit.p_value < FALSE_FAILURE else "fits "
        about = f"p = {fit.p_value:.3g}, chi-square {fit.statistic:.0f} of {fit.freedom}"
        CONSOLE.print(f"{verdict}  {', '.join(names)}: {about}", soft_wrap=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
