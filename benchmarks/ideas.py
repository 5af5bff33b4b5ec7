"""What ideas of the state of the art give us, in calls and full passes a sample, with the very sample kept.

Drafts that read the noise, or other places of the image; several drafts of a sample at once, of which the one that
equality confirms for longest goes on; spans as long as a sample lately needed. What wins belongs into
`arm_core.fixed_point`; what does not is written down in docs/samplers.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from arm_core import AutoregressiveModel, Forecaster, SamplerState, SampleTrace, load_checkpoint
from arm_core.decision import Decision
from arm_core.fixed_point import fixed_point, fixed_point_above
from arm_core.forecasters import row_above
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import keyed_noise, span_cache
from arm_core.samplers.peers.branches import join
from arm_core.samplers.step import step
from arm_core.samplers.work import Work
from benchmarks.command import ROOT, Benchmark
from harness.console import CONSOLE

Alternative = Callable[[SamplerState, Tensor, int], Tensor]
"""(state, first drafts, number from 1) -> drafts of that branch; what the other branches do with theirs is ignored."""


def _row(state: SamplerState) -> int:
    return state.layout.width * state.layout.channels


def _above(values: Tensor, places: int, fill: float = 0) -> Tensor:
    """What stands so many dims earlier."""
    return torch.nn.functional.pad(values, (places, 0), value=fill)[:, : values.shape[1]]


def neighbours_above(state: SamplerState) -> Tensor:
    """Where no call has been: what two of the three neighbours above agree in, or else the one above."""
    guess = fixed_point_above(state)
    now, row, pixel = torch.where(state.is_known, state.x, guess), _row(state), state.layout.channels
    left, above, right = (_above(now, row + pixel * shift) for shift in (1, 0, -1))
    return torch.where(state.evaluated, guess, torch.where(left == right, left, above))


def look_up(state: SamplerState) -> Tensor:
    """Where no call has been: what stood, at its last place in this image, below the same three neighbours."""
    guess = fixed_point_above(state)
    now, row, pixel = torch.where(state.is_known, state.x, guess), _row(state), state.layout.channels
    context, many = torch.zeros_like(now), state.layout.categories
    for shift in (1, 0, -1):
        context = context * many + _above(now, row + pixel * shift)
    context = context * pixel + torch.arange(now.shape[1]) % pixel
    same = (context[:, :, None] == context[:, None, :]) & state.is_known[:, None, :]  # (slots, dim, earlier)
    last = torch.where(same, torch.arange(now.shape[1]), -1).amax(dim=2)
    return torch.where(state.evaluated | (last < 0), guess, now.gather(1, last.clamp_min(0)))


def _decided(state: SamplerState, logits: Tensor) -> Tensor:
    """What the sampler would decide on these logits (slots, dims, categories), with its own noise."""
    slots, dims = state.x.shape
    slot = torch.arange(slots).repeat_interleave(dims)
    noise = state.noise.at(slot, torch.arange(dims).repeat(slots))
    return state.decision(logits.flatten(0, 1), noise).values.view(slots, dims)


def noise_above(state: SamplerState) -> Tensor:
    """Where no call has been: the distribution of the dim above, decided with this dim's own noise."""
    row = _row(state)
    logits = torch.nn.functional.pad(state.logits, (0, 0, row, 0))[:, : state.layout.dims]
    known = _above(state.evaluated.float(), row) > 0
    return torch.where(state.evaluated | ~known, fixed_point_above(state), _decided(state, logits))


def noise_blended(state: SamplerState) -> Tensor:
    """Everywhere: the mean of what the ARM last said of this dim and of that above, decided with this dim's noise."""
    row = _row(state)
    logits = torch.nn.functional.pad(state.logits, (0, 0, row, 0))[:, : state.layout.dims]
    said = _decided(state, (state.logits + logits) / 2)
    return torch.where(state.evaluated & (torch.arange(state.layout.dims) >= row), said, noise_above(state))


class Extrapolated:
    """Everywhere: logits that go on changing as they changed from the last call but one to the last, by a share."""

    def __init__(self, share: float) -> None:
        self.share, self.before, self.seen = share, torch.empty(0), torch.empty(0)

    def __call__(self, state: SamplerState) -> Tensor:
        """See `Forecaster`."""
        logits = state.logits.clone()
        if len(self.before) == 0:
            self.before, self.seen = logits, state.evaluated.clone()
        said = _decided(state, logits + self.share * (logits - self.before))
        guess = torch.where(state.evaluated & self.seen, said, fixed_point_above(state))
        self.before, self.seen = logits, state.evaluated.clone()
        return guess


def runner_up(state: SamplerState, drafts: Tensor, branch: int) -> Tensor:
    """The drafts, but for the second best at the least certain of the next dims: the least, the second least, ..."""
    slots, dims = drafts.shape
    slot = torch.arange(slots).repeat_interleave(dims)
    noise = state.noise.at(slot, torch.arange(dims).repeat(slots))
    scores = state.decision(state.logits.flatten(0, 1), noise).scores.view(slots, dims, -1)
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    near = (torch.arange(dims) - state.known[:, None]).clamp_min(-1)
    margin = torch.where((near >= 0) & (near < 12) & state.evaluated, best - second, torch.inf)
    at = margin.argsort(dim=1)[:, branch - 1 : branch]
    return drafts.scatter(1, at, scores.topk(2, dim=-1).indices[..., 1].gather(1, at))


def other_forecast(forecaster: Forecaster, state: SamplerState, drafts: Tensor, branch: int) -> Tensor:
    """The drafts of another forecaster."""
    return forecaster(state)


class OwnSpans(Work):
    """Spans as long as `times` what the last call confirmed of their sample, and at least `least` dims."""

    def __init__(self, *given: Any, times: float, least: int) -> None:
        super().__init__(*given)
        self.times, self.least, self.before = times, least, self.state.known * 0

    def place(self, start: Tensor, width: int, *seam: Any) -> Tensor:
        """See `Work`."""
        places = super().place(start, width, *seam)
        confirmed = (self.state.known - self.before).clamp_min(0)
        self.before = self.state.known.clone()
        long = (self.times * confirmed).long().clamp_min(self.least)
        long = torch.where(self.state.known == 0, width, long)
        until = (self.state.known + long).div(self.granule, rounding_mode="floor") * self.granule
        stop = torch.minimum(self.state.stop, until)
        stop = torch.maximum(stop, torch.minimum(start + self.granule, self.state.stop))
        self.state.stop.copy_(stop)
        self.reached.copy_(stop)
        return torch.where(places < stop[:, None], places, self.dims)


def draw(
    arm: AutoregressiveModel,
    count: int,
    window: int,
    forecaster: Forecaster = fixed_point_above,
    *,
    alternatives: tuple[Alternative, ...] = (),
    make: Callable[..., Work] = Work,
    seed: int = 0,
) -> SampleTrace:
    """Samples 0 .. count - 1 of a seed, all at once; each in a branch more than there are alternatives."""
    branches = 1 + len(alternatives)
    rows = [row for row in range(count) for _ in range(branches)]
    noise = keyed_noise(arm, seed=seed, sample_ids=range(count))

    def drafts(state: SamplerState) -> Tensor:
        first = forecaster(state)
        found = first.clone()
        for branch, alternative in enumerate(alternatives, start=1):
            found[branch::branches] = alternative(state, first, branch)[branch::branches]
        return found

    with sampling_mode(arm):
        work = make(arm, len(rows), span_cache(arm, len(rows), window), drafts, noise, Decision())
        work.begin(list(range(len(rows))), rows)
        while not all(work.finished()):
            step(work, *work.spans())
            if branches > 1:
                join(work, branches, work.state.known.view(-1, branches).argmax(dim=1))
        trace = work.trace(torch.arange(0, len(rows), branches))
    return replace(trace, arm_work=trace.arm_work * branches)


def ideas(row: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, settings of `draw`), the first what we do."""
    yield "as it is: last outputs, else the row above", {}
    for name, forecaster in {
        "last outputs, else 0": fixed_point,
        "the row above alone": row_above,
        "else two of three neighbours above": neighbours_above,
        "else looked up by three neighbours above": look_up,
        "else the distribution above, own noise": noise_above,
        "distributions blended with those above, own noise": noise_blended,
    }.items():
        yield name, {"forecaster": forecaster}
    for share in (0.25, 0.5):
        yield f"logits extrapolated by {share}", {"forecaster": Extrapolated(share)}
    for many in (1, 2, 3):
        yield f"{many} more drafts: runners-up", {"alternatives": (runner_up,) * many}
    for name, other in {"the row above": row_above, "looked up": look_up, "noise above": noise_above}.items():
        yield f"1 more draft: {name}", {"alternatives": (partial(other_forecast, other),)}
    for share in (0.25, 0.5, 2, 3):
        yield f"window of {share:g} rows", {"window": max(1, int(share * row))}
    for times in (1.0, 2.0, 3.0):
        yield f"spans {times:g} times what was confirmed", {"make": partial(OwnSpans, times=times, least=row // 4)}
    wide = {"make": partial(OwnSpans, times=3.0, least=row // 4), "window": 2 * row}
    yield "the same, 3 times, of up to 2 rows", wide


@click.command(cls=Benchmark)
@click.argument("checkpoints", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--samples", default=32, show_default=True, type=click.IntRange(min=1), help="Of each idea.")
def main(checkpoints: tuple[Path, ...], samples: int) -> None:
    """Calls and full passes a sample of every idea; all draw the same samples, or it is said.

    \b
    Example:
      python -m benchmarks.ideas results/checkpoint results/tokens/checkpoint
    """
    for place in checkpoints or (ROOT / "results" / "checkpoint",):
        arm = load_checkpoint(place).arm
        row = arm.layout.width * arm.layout.channels
        table = Table("idea", "calls", "against ours", "full passes", title=str(place), box=box.SIMPLE_HEAD)
        first: SampleTrace | None = None
        for name, settings in ideas(row):
            trace = draw(arm, samples, **{"window": row, **settings})
            first = first or trace
            calls, ours = (each.arm_calls.double().mean().item() for each in (trace, first))
            equal = int((trace.x == first.x).all(dim=1).sum())
            note = "" if equal == samples else f" ({equal} of {samples} equal)"
            table.add_row(name + note, f"{calls:.1f}", f"{calls / ours - 1:+.1%}", f"{trace.arm_work.mean():.2f}")
        CONSOLE.print(table)


if __name__ == "__main__":
    main()
