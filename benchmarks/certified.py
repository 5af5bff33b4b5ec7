"""What a proof costs and what it shows: certified samples against a float64 stream, and drafts of low precision.

exact    10,000 certified samples of float32 streams, compared with those of a float64 stream
cost     seconds a sample with and without a proof, and of the paper's algorithm, which take turns
drafts   a line a dtype of the drafts: calls, repairs, milliseconds a sample
ties     an ARM made for near ties, at sizes of its own: certified samples of all slots, windows, forecasters and drafts
         against ancestral ones in float64
"""

import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, cast

import click
import torch
from rich.table import Table
from torch import Tensor

from arm_core import (
    AutoregressiveModel,
    Forecaster,
    Layout,
    SampleTrace,
    ancestral_sample,
    load_arm,
    predictive_sample,
    sample_many,
    sample_noise,
)
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    GatedForecaster,
    LearnedForecaster,
    fixed_point,
    fixed_point_above,
    row_above,
    zeros,
)
from arm_core.samplers.certified import in_dtype
from arm_core.samplers.options import noise_dtype
from arm_core.testing import randomise
from benchmarks.command import ROOT, Benchmark
from harness.console import CONSOLE

SEED = 10
PARTS = ("exact", "cost", "drafts", "ties")
TIED = {Layout(3, 16, 16, 256): 8, Layout(3, 32, 32, 256): 2}
"""Layouts of ARMs made for near ties, and how many samples of each are drawn."""
SLOTS = (1, 5, 64)
OFFSET = 2.0**20
"""Added to all their logits: it leaves the distribution alone, and float32 a resolution of 1/8."""
Draw = Callable[[int], SampleTrace]
"""From the number of a repetition, which has noise of its own, to samples."""


def exact(arm: AutoregressiveModel, ids: range, *, slots: int) -> list[dict[str, Any]]:
    """Certified samples of the ARM's own dtype against those of a stream in float64, both timed once."""
    drawn, rows = {}, []
    for name, who, certified in (
        ("certified", arm, True),
        ("float64", in_dtype(arm, torch.float64), False),
    ):
        how = {"count": len(ids), "first_id": ids.start, "seed": SEED, "slots": slots, "certified": certified}
        started = time.perf_counter()
        trace = drawn[name] = sample_many(who, **how)  # type: ignore[arg-type]
        rows.append({"sampler": name, **_figures(trace, [time.perf_counter() - started])})
    for row in rows:
        equal = (drawn[row["sampler"]].x == drawn["float64"].x).all(dim=1)
        row |= {"first_id": ids.start, "equal_to_float64": equal.double().mean().item()}
    return rows


def cost(arm: AutoregressiveModel, *, slots: int, per_slot: int, repetitions: int) -> list[dict[str, Any]]:
    """The stream with and without a proof, and the paper's algorithm on a batch of as many samples as slots."""
    weight, count = next(arm.parameters()), slots * per_slot
    dtype = noise_dtype(weight.dtype)

    def paper(number: int) -> SampleTrace:
        ids = range(number * count, number * count + slots)
        noise = sample_noise(arm.layout, seed=SEED, sample_ids=ids, dtype=dtype, device=weight.device)
        return predictive_sample(arm, noise, fixed_point)

    draws = {"plain": _stream(arm, slots, count), "certified": _stream(arm, slots, count, certified=True)}
    return _in_turns({**draws, "paper's algorithm": paper}, repetitions)


def drafts(arm: AutoregressiveModel, *, slots: int, per_slot: int, repetitions: int) -> list[dict[str, Any]]:
    """Streams of every precision of drafts > of proofs, beside a float64 stream without one."""
    count = slots * per_slot
    draws: dict[str, Draw] = {"float64": _stream(in_dtype(arm, torch.float64), slots, count)}
    for proof in (torch.float64, torch.float32):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            if dtype.itemsize <= proof.itemsize:
                name = f"{dtype} > {proof}".replace("torch.", "")
                draws[name] = _stream(arm, slots, count, certified=proof, draft_dtype=dtype)
    return _in_turns(draws, repetitions)


def near_ties(layout: Layout, **config: Any) -> PixelCNN:
    """A PixelCNN of wild weights, most of whose float32 samples are not those of float64."""
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=12, **config)).eval()
    randomise(arm, scale=0.2)
    with torch.no_grad():
        arm.head.weight *= 16
        cast(Tensor, arm.head.bias).add_(OFFSET)
    return arm


def forecasters(arm: AutoregressiveModel) -> dict[str, Forecaster]:
    """One of every kind; modules are as they begin."""
    torch.manual_seed(0)
    modules = ForecastingModules(arm.layout, ForecastingConfig(3, 12), arm.hidden_features)
    guessed = {"fixed point": fixed_point, "fixed point above": fixed_point_above, "row above": row_above}
    return {**guessed, "zeros": zeros, "learned": LearnedForecaster(modules), "gated": GatedForecaster(modules)}


def ties(layout: Layout, count: int) -> list[dict[str, Any]]:
    """Certified streams with drafts of both precisions, in every pair of slots and windows and by every forecaster.

    A row a stream: how many of its samples were repaired, how often, and how many are the ancestral ones in float64.
    """
    arm, row = near_ties(layout), layout.width * layout.channels
    size = f"{layout.channels}x{layout.height}x{layout.width}x{layout.categories}"
    noise = sample_noise(layout, seed=SEED, sample_ids=range(count), dtype=torch.float64)
    expected = ancestral_sample(in_dtype(arm, torch.float64), noise).x
    windows: list[int | None] = [layout.channels, row, layout.dims, None]
    hows = [("fixed point above", slots, window) for slots in SLOTS for window in windows]
    hows += [(name, SLOTS[-1], row) for name in forecasters(arm) if name != "fixed point above"]
    rows = []
    for dtype, (name, slots, window) in product((torch.float32, torch.bfloat16), hows):
        how: dict[str, Any] = {"slots": slots, "window": window, "draft_dtype": dtype}
        trace = sample_many(arm, count=count, seed=SEED, forecaster=forecasters(arm)[name], certified=True, **how)
        about: dict[str, Any] = {"layout": size, "drafts": str(dtype).removeprefix("torch."), "forecaster": name}
        about |= {"slots": slots, "window": window or "chosen", "samples": count}
        found = {"repaired": int((trace.repairs > 0).sum()), "repairs": int(trace.repairs.sum())}
        rows.append({**about, **found, "equal to float64": int((trace.x == expected).all(dim=1).sum())})
    return rows


def _stream(arm: AutoregressiveModel, slots: int, count: int, **how: Any) -> Draw:
    return lambda number: sample_many(arm, count=count, first_id=number * count, seed=SEED, slots=slots, **how)


def _in_turns(draws: dict[str, Draw], repetitions: int) -> list[dict[str, Any]]:
    """The figures of each, over repetitions of which the first only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in draws}
    traces: dict[str, list[SampleTrace]] = {name: [] for name in draws}
    for number in range(repetitions + 1):
        for name, draw in draws.items():
            started = time.perf_counter()
            trace = draw(number)
            if number > 0:
                taken[name].append(time.perf_counter() - started)
                traces[name].append(trace)
    return [{"sampler": name, **_figures(SampleTrace.joined(traces[name]), taken[name])} for name in draws]


def _figures(trace: SampleTrace, seconds: list[float]) -> dict[str, Any]:
    """Of equally large runs."""
    each = [1e3 * run * len(seconds) / len(trace.x) for run in seconds]
    return {
        "samples": len(trace.x),
        "arm_calls": trace.arm_calls.double().mean().item(),
        "arm_work": trace.arm_work.mean().item(),
        "repaired": (trace.repairs > 0).double().mean().item(),
        "largest_lead": trace.overruled.max().item(),
        "ms_per_sample": median(each),
        "ms_per_sample_runs": each,
    }


def shown(part: str, rows: list[dict[str, Any]]) -> Table:
    """A part as people read it."""
    if part == "ties":
        listed = Table(*rows[0], title=part)
        for row in rows:
            listed.add_row(*map(str, row.values()))
        return listed
    table = Table("sampler", "samples", "calls", "work", "repaired", "largest lead", "ms a sample", title=part)
    if "equal_to_float64" in rows[0]:
        table.add_column("equal to float64")
    for row in rows:
        cells = [row["sampler"], str(row["samples"]), f"{row['arm_calls']:.1f}", f"{row['arm_work']:.2f}"]
        cells += [f"{row['repaired']:.2%}", f"{row['largest_lead']:.2g}", f"{row['ms_per_sample']:.2f}"]
        table.add_row(*cells, *([f"{row['equal_to_float64']:.2%}"] if "equal_to_float64" in row else []))
    return table


@click.command(cls=Benchmark)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Of the above; all if left out.")
@click.option("--checkpoint", default=ROOT / "results/checkpoint", type=click.Path(path_type=Path), help="Its folder.")
@click.option("--count", default=10_000, show_default=True, type=click.IntRange(min=1), help="Samples of `exact`.")
@click.option("--first-id", default=0, show_default=True, type=click.IntRange(min=0), help="Of them, to go on later.")
@click.option("--slots", type=click.IntRange(min=1), help="64 for `exact`, 16 for the others, if left out.")
@click.option("--samples-per-slot", default=8, show_default=True, type=click.IntRange(min=1), help="Of a repetition.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1), help="After a warm-up.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the figures go as JSON.")
def main(
    parts: tuple[str, ...], checkpoint: Path, count: int, first_id: int, slots: int | None, samples_per_slot: int,
    repetitions: int, out: Path | None,
) -> None:  # fmt: skip
    """Measure proofs on the ARM of a checkpoint.

    \b
    Examples:
      python -m benchmarks.certified --part exact
      python -m benchmarks.certified --part cost --part drafts --out certified.json
      python -m benchmarks.certified --part ties --out results/certified/ties.json
    """
    arm, found = load_arm(checkpoint), dict[str, Any]()
    timed = {"slots": slots or 16, "per_slot": samples_per_slot, "repetitions": repetitions}
    for part in parts or PARTS:
        if part == "exact":
            found[part] = exact(arm, range(first_id, first_id + count), slots=slots or 64)
        elif part == "ties":
            found[part] = [row for layout, samples in TIED.items() for row in ties(layout, samples)]
        else:
            found[part] = (cost if part == "cost" else drafts)(arm, **timed)
        CONSOLE.print(shown(part, found[part]))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, **found}, indent=1))


if __name__ == "__main__":
    main()
