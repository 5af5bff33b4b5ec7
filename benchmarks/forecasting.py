"""What forecasting modules save: their hits, their divergence from the ARM, and ARM calls beside fixed-point iteration.

Three sets of noise that no sweep uses and that share no sample: one chooses the horizon and the gate, one measures
hits and divergences, one compares calls. Samples are compared in pairs, under the same noise; those without
reparametrisation, which have fresh noise at every call, can only be compared in the mean. Nothing here is timed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from arm_core import Checkpoint, Forecaster, InputError, load_checkpoint, resampled_sample
from arm_core.forecasters import LearnedForecaster, fixed_point, most_likely
from arm_core.forecasters.modules import INPUTS
from arm_core.horizon import arm_calls, choose_horizon
from arm_core.registry import ARMS
from benchmarks.command import Benchmark
from benchmarks.forecasts import divergences, hit_rates
from harness.jobs.machine import device_of_this_job, provenance
from harness.report.formats import markdown_rows as markdown

SEED = 2**32 + 1
"""Of the noise; those of sweeps are below 2^32, and 2^32 chooses the horizons of `horizon: auto`."""
MEASURED = ("t", "hits", "hits_fixed_point", "kl_nats", "kl_marginal_nats")
SAMPLERS = ("fixed point", "learned", "gated")
FRESH = ("fixed point", "most likely", "learned", "learned, most likely")


@dataclass(frozen=True)
class Counts:
    """How many samples choose, measure and compare; their ids follow one another.

    As many as measure are drawn without reparametrisation, by each forecaster.
    """

    choose: int = 32
    measure: int = 64
    compare: int = 256

    def ids(self) -> tuple[range, range, range]:
        """The ids of the three."""
        first, second = self.choose, self.choose + self.measure
        return range(first), range(first, second), range(second, second + self.compare)


@dataclass(frozen=True)
class Measured:
    """The rows of the three tables.

    Attributes:
        forecasts: a row for every checkpoint and module.
        calls: a row for every checkpoint, sampler and sample.
        fresh: a row for every checkpoint, forecaster and sample without reparametrisation.
    """

    forecasts: pd.DataFrame
    calls: pd.DataFrame
    fresh: pd.DataFrame


def measure(checkpoints: Iterable[Checkpoint], counts: Counts) -> Measured:
    """The rows of checkpoints with modules, in their order."""
    forecasts, calls, fresh = [], [], []
    for checkpoint in checkpoints:
        about = _about(checkpoint)
        forecasts += [{**about, **row} for row in _forecasts(checkpoint, counts)]
        calls += [{**about, **row} for row in _calls(checkpoint, counts)]
        horizon = next(row["horizon"] for row in reversed(calls) if row["sampler"] == "learned")
        fresh += [{**about, **row} for row in fresh_calls(checkpoint, horizon, count=counts.measure)]
    return Measured(pd.DataFrame(forecasts), pd.DataFrame(calls), pd.DataFrame(fresh))


def _rank(checkpoint: Checkpoint) -> tuple[Any, ...]:
    assert checkpoint.modules is not None
    config = checkpoint.modules.config
    return (
        checkpoint.metadata.get("dataset", "?"),
        config.unit,
        config.detach_hidden,
        INPUTS.index(tuple(config.inputs)),
    )


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    assert checkpoint.modules is not None
    config, given, machine = checkpoint.modules.config, checkpoint.metadata, provenance()
    return {
        "dataset": given.get("dataset", "?"),
        "variant": given.get("variant", "?"),
        "inputs": " + ".join(config.inputs),
        "unit": config.unit,
        "detached": config.detach_hidden,
        "pairs": config.pairs,
        "step": given.get("step"),
        "valid_bits_per_dim": given.get("valid_bits_per_dim"),
        "checkpoint_sha256": checkpoint.sha256,
        "dtype": str(next(checkpoint.arm.parameters()).dtype).removeprefix("torch."),
        **{name: machine[name] for name in ("device", "torch", "commit")},
    }


def _forecasts(checkpoint: Checkpoint, counts: Counts) -> list[dict[str, Any]]:
    arm, modules, ids = checkpoint.arm, checkpoint.modules, counts.ids()[1]
    assert modules is not None
    hits = hit_rates(arm, modules, seed=SEED, sample_ids=ids)
    apart = divergences(arm, modules, seed=SEED, sample_ids=ids)
    columns = [hits.modules, hits.fixed_point, apart.modules, apart.marginals]
    return [
        dict(zip(MEASURED, (t, *row), strict=True))
        for t, row in enumerate(zip(*(column.tolist() for column in columns), strict=True), start=1)
    ]


def _calls(checkpoint: Checkpoint, counts: Counts) -> list[dict[str, Any]]:
    arm, modules, (choose, _, compare) = checkpoint.arm, checkpoint.modules, counts.ids()
    assert modules is not None
    settings = choose_horizon(arm, modules, seed=SEED, sample_ids=choose)
    learned = next(s for s in settings if s.horizon and s.gate is None)
    gated = next(s for s in settings if s.gate is not None)
    used = [(fixed_point, 0, None)] + [(s.forecaster(modules), s.horizon, s.gate) for s in (learned, gated)]
    rows = []
    for name, (forecaster, horizon, gate) in zip(SAMPLERS, used, strict=True):
        taken = arm_calls(arm, forecaster, seed=SEED, sample_ids=compare)
        said = {"sampler": name, "horizon": horizon, "gate": gate, "dims": arm.layout.dims}
        rows += [
            {**said, "sample_id": number, "arm_calls": calls}
            for number, calls in zip(compare, taken.tolist(), strict=True)
        ]
    return rows


def fresh_calls(checkpoint: Checkpoint, horizon: int, *, count: int, batch: int = 32) -> list[dict[str, Any]]:
    """A row for every forecaster and sample that is drawn with fresh noise at every call.

    Args:
        checkpoint: with modules.
        horizon: modules used.
        count: samples of each forecaster.
        batch: of them at a time.
    """
    arm, modules = checkpoint.arm, checkpoint.modules
    assert modules is not None
    learned = LearnedForecaster(modules, horizon=horizon)
    likely = LearnedForecaster(modules, horizon=horizon, fallback=most_likely, mode=True)
    used: list[tuple[Forecaster, int]] = [(fixed_point, 0), (most_likely, 0), (learned, horizon), (likely, horizon)]
    rows = []
    for name, (forecaster, modules_used) in zip(FRESH, used, strict=True):
        generator = torch.Generator(next(arm.parameters()).device).manual_seed(SEED)
        said = {"forecaster": name, "horizon": modules_used, "dims": arm.layout.dims}
        for first in range(0, count, batch):
            some = min(batch, count - first)
            taken = resampled_sample(arm, batch=some, generator=generator, forecaster=forecaster).arm_calls
            rows += [{**said, "sample": first + k, "arm_calls": calls} for k, calls in enumerate(taken.tolist())]
    return rows


def compared(calls: pd.DataFrame) -> pd.DataFrame:
    """A row for every checkpoint and sampler: mean calls, and the mean paired difference to the fixed point.

    `half_width` is that of the normal 95 % interval of the mean difference.
    """
    key = ["dataset", "variant", "checkpoint_sha256"]
    own = calls[calls["sampler"] == "fixed point"].set_index([*key, "sample_id"])["arm_calls"]
    rows = []
    for (*which, sampler), group in calls.groupby([*key, "sampler"], sort=False):
        paired = group.set_index([*key, "sample_id"])["arm_calls"]
        apart = (paired - own.reindex(paired.index)).to_numpy(float)
        first = group.iloc[0]
        rows.append(
            {
                **dict(zip(key, which, strict=True)),
                **{name: first[name] for name in ("inputs", "unit", "detached", "dims", "horizon", "gate")},
                "sampler": sampler,
                "samples": len(group),
                "mean_calls": group["arm_calls"].mean(),
                "difference": apart.mean(),
                "half_width": 1.96 * apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan,
            }
        )
    return pd.DataFrame(rows)


def as_markdown(measured: Measured) -> str:
    """The tables of every dataset, for people."""
    parts = []
    for dataset, calls in compared(measured.calls).groupby("dataset", sort=False):
        first = calls.iloc[0]
        parts.append(
            f"## {dataset}\n\nARM calls a sample at batch 1, mean over {first['samples']} samples of {first['dims']} "
            "dimensions; in brackets the mean paired difference to the fixed point and its 95 % interval. Horizon and "
            "gate were chosen on other samples.\n\n" + _calls_table(calls)
        )
        fresh = measured.fresh[measured.fresh["dataset"] == dataset]
        if len(fresh):
            parts.append(
                "Without reparametrisation, fresh noise at every call: mean ARM calls a sample and the 95 % interval, "
                "by what forecasts the rest.\n\n" + _fresh_table(fresh)
            )
        rows = measured.forecasts[measured.forecasts["dataset"] == dataset]
        parts.append(
            "Share of right forecasts, of the modules / of the fixed point in the same states, of unit t past the "
            "frontier.\n\n" + _by_module(rows, "hits", "hits_fixed_point")
        )
        parts.append(
            "KL(ARM || forecast) in nats a dimension, of the modules / of the marginal distribution of each "
            "dimension.\n\n" + _by_module(rows, "kl_nats", "kl_marginal_nats")
        )
    return "\n".join(parts)


def _calls_table(calls: pd.DataFrame) -> str:
    rows = []
    for _, group in calls.groupby(["variant", "checkpoint_sha256"], sort=False):
        by = group.set_index("sampler")
        cells = [*_kind(by.iloc[0]), f"{by.loc['fixed point', 'mean_calls']:.1f}"]
        for name in SAMPLERS[1:]:
            one = by.loc[name]
            how = f"T={one['horizon']}" + ("" if np.isnan(one["gate"]) else f", gate {one['gate']:g}")
            cells.append(f"{one['mean_calls']:.1f} ({one['difference']:+.1f} ± {one['half_width']:.1f}), {how}")
        rows.append(cells)
    return markdown(["inputs", "unit", "detached", *SAMPLERS], rows)


def _fresh_table(fresh: pd.DataFrame) -> str:
    rows = []
    for _, group in fresh.groupby(["variant", "checkpoint_sha256"], sort=False):
        cells = _kind(group.iloc[0])
        for name in FRESH:
            calls = group.loc[group["forecaster"] == name, "arm_calls"]
            cells.append(f"{calls.mean():.1f} ± {1.96 * calls.sem():.1f}")
        rows.append(cells)
    return markdown(["inputs", "unit", "detached", *FRESH], rows)


def _by_module(rows: pd.DataFrame, own: str, other: str) -> str:
    horizons = sorted(rows["t"].unique())
    cells = []
    for _, group in rows.groupby(["variant", "checkpoint_sha256"], sort=False):
        by = group.set_index("t")
        shown = [f"{by.loc[t, own]:.3f} / {by.loc[t, other]:.3f}" if t in by.index else "" for t in horizons]
        cells.append([*_kind(group.iloc[0]), *shown])
    return markdown(["inputs", "unit", "detached", *(f"t={t}" for t in horizons)], cells)


def _kind(row: pd.Series) -> list[str]:
    return [row["inputs"], row["unit"], "yes" if row["detached"] else "no"]


def write(measured: Measured, out: Path) -> list[Path]:
    """Write forecasts.parquet, calls.parquet, fresh.parquet and forecasting.md into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {f"{name}.parquet": getattr(measured, name) for name in ("forecasts", "calls", "fresh")}
    for name, frame in tables.items():
        frame.to_parquet(out / name, index=False)
    text = out / "forecasting.md"
    text.write_text(as_markdown(measured), encoding="utf-8")
    return [*(out / name for name in tables), text]


@click.command(cls=Benchmark)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the tables.")
@click.option("--choose", default=32, show_default=True, type=click.IntRange(min=1), help="Samples: horizon, gate.")
@click.option("--measure", "some", default=64, show_default=True, type=click.IntRange(min=1), help="Samples: hits, KL.")
@click.option("--compare", default=256, show_default=True, type=click.IntRange(min=2), help="Samples: ARM calls.")
@click.option("--arm", "reference", help="The ARMs' class, if it is not a registered one: file.py:MyArm.")
def main(checkpoints: tuple[Path, ...], out: Path, choose: int, some: int, compare: int, reference: str | None) -> None:
    """What the forecasting modules in CHECKPOINTS save: hits, KL and ARM calls beside fixed-point iteration.

    \b
    Example:
      python -m benchmarks.forecasting runs/jobs/*/checkpoint --out results/forecasting
    """
    kind = ARMS.resolve(reference) if reference else None
    loaded = [load_checkpoint(place, device=device_of_this_job(), arm=kind) for place in checkpoints]
    for place, checkpoint in zip(checkpoints, loaded, strict=True):
        if checkpoint.modules is None:
            raise InputError(f"{place} has no forecasting modules; train it with `forecasting:`")
    console = Console(highlight=False)
    shown = track(sorted(loaded, key=_rank), "Measuring", console=console, disable=not console.is_terminal)
    measured = measure(shown, Counts(choose, some, compare))
    for file in write(measured, out):
        console.print(f"Wrote {file}", soft_wrap=True)


if __name__ == "__main__":
    main()
