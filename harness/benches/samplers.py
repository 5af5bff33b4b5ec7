"""`harness bench CHECKPOINT`: every sampler on one ARM, in one run, after all of them gave the same samples.

The samplers take turns, in an order shuffled for every repetition (`harness.jobs.timing.Bench`). Samplers of batches
draw one batch, streams four samples a slot; seconds are divided by the samples that were really drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.status import Status

from arm_core import Checkpoint, InputError, load_checkpoint
from arm_core.registry import ARMS, config_type
from harness.console import CONSOLE
from harness.jobs.clock import clock_for
from harness.jobs.machine import device_of_this_job, provenance
from harness.jobs.rows import DATA
from harness.jobs.sampling import Draw, make_sampler, measured
from harness.jobs.timing import Bench, naming
from harness.sweep.jobs import Component, SamplerSpec, TimingJob

PAPER = "fixed point, whole batch"
ANCESTRAL = "ancestral"
OURS = "auto window"
_AT_HEIGHTS = (PAPER, "cached sequential", OURS)
EQUAL_COUNT = 3
"""Samples that every sampler has to draw alike in float64 before anything is timed."""


@dataclass(frozen=True)
class Contestant:
    """A sampler.

    Attributes:
        name: in tables and the figure.
        spec: what it is.
        is_drawn: in the figure; not where its line would lie on another one.
    """

    name: str
    spec: SamplerSpec
    is_drawn: bool = True


@dataclass(frozen=True)
class Settings:
    """How a bench is run.

    Attributes:
        widths: batch sizes and numbers of slots.
        repetitions: each with noise of its own.
        samples_per_slot: that a stream draws.
        patience: seconds; what would take longer is left out.
        heights: of images, beside the checkpoint's own; width and weights stay.
        height_width: batch size and slots at these heights.
        names: of the samplers; none: all.
    """

    widths: tuple[int, ...] = (1, 4, 16, 64)
    repetitions: int = 5
    samples_per_slot: int = 4
    patience: float = 60.0
    heights: tuple[int, ...] = ()
    height_width: int = 16
    names: tuple[str, ...] = ()


def contestants(checkpoint: Checkpoint) -> list[Contestant]:
    """Every sampler that the checkpoint allows; the horizon of its modules is measured here."""
    layout, learned = checkpoint.arm.layout, None
    if checkpoint.modules is not None:
        learned = measured(_predictive("learned", horizon="auto"), checkpoint)
    row = layout.width * layout.channels
    whole, free = "fixed_point", "fixed_point_above"
    found = [
        Contestant(ANCESTRAL, SamplerSpec(sampler="ancestral")),
        Contestant(PAPER, _predictive(whole)),
        Contestant("fixed point, finished dropped", _predictive(whole, window=layout.dims)),
        Contestant("fixed point, slots refilled", _predictive(whole, stream=True)),
        Contestant("Jacobi", SamplerSpec(sampler="jacobi"), is_drawn=False),
        Contestant("Jacobi-GS, rows", SamplerSpec(sampler="jacobi_gs", block=row)),
    ]
    if learned is not None:
        found.insert(2, Contestant(f"learned, T={learned.horizon}, whole batch", learned))
    if checkpoint.arm.granule is None:
        return found
    found += [
        Contestant("GS-Jacobi, rows", SamplerSpec(sampler="gs_jacobi", block=row)),
        Contestant("cached sequential", SamplerSpec(sampler="cached_sequential")),
        *(Contestant(f"window {n}", _predictive(free, window=n, stream=True), n == row) for n in _windows(row)),
        Contestant(OURS, _predictive(free, window="auto", stream=True)),
    ]
    if learned is not None:
        spec = learned.model_copy(update={"window": "auto", "stream": True})
        found.append(Contestant(f"auto window, learned, T={learned.horizon}", spec, is_drawn=False))
    return found


def _predictive(forecaster: str, **settings: Any) -> SamplerSpec:
    return SamplerSpec(sampler="predictive", forecaster=forecaster, **settings)


def _windows(row: int) -> list[int]:
    return sorted({max(1, row // 2), row, 2 * row})


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The positive whole numbers of an option such as 1,4,16."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{option} takes positive whole numbers with commas between, for example 1,4,16; got {text!r}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def run_bench(path: Path, out: Path, settings: Settings, *, reference: str | None = None) -> int:
    """Compare all samplers on a checkpoint; write and print tables and a figure. Returns the exit code.

    Args:
        path: the checkpoint's folder.
        out: folder for samplers.parquet, .csv, .md, .png, .svg and .pdf.
        settings: what to run.
        reference: of the ARM's class, if it is not a registered one.

    Raises:
        InputError: the checkpoint cannot be read, or a sampler or height does not exist.
    """
    from harness.benches.samplers_report import write

    kind = ARMS.resolve(reference) if reference else None
    device = device_of_this_job()
    loaded = load_checkpoint(path, device=device, arm=kind)
    with CONSOLE.status("Measuring the horizon of the forecasting modules ..."):
        chosen = _chosen(contestants(loaded), settings.names)
    own = loaded.arm.layout.height
    arms = {own: loaded, **{height: at_height(loaded, height) for height in settings.heights if height != own}}
    exact = load_checkpoint(path, device=device, dtype=torch.float64, arm=kind)
    with CONSOLE.status("Drawing the same samples with every sampler in float64 ...") as status:
        different = unequal(exact, chosen)
        if different:
            CONSOLE.print(f"Not the ancestral samples in float64: {', '.join(different)}. Nothing was timed.")
            return 1
        CONSOLE.print(f"All {len(chosen)} samplers draw the same {EQUAL_COUNT} samples in float64.")
        rows = pd.DataFrame(_timed(loaded, arms, chosen, settings, status))
    for file in write(rows, out):
        CONSOLE.print(f"Wrote {file}", soft_wrap=True)
    return 0


def _chosen(found: Sequence[Contestant], names: Sequence[str]) -> list[Contestant]:
    unknown = [name for name in names if name not in {one.name for one in found}]
    if unknown:
        valid = "; ".join(one.name for one in found)
        raise InputError(f"unknown sampler {unknown[0]!r} for this checkpoint. Valid: {valid}.")
    return [one for one in found if not names or one.name in (*names, ANCESTRAL, PAPER)]


def at_height(checkpoint: Checkpoint, height: int) -> Checkpoint:
    """The checkpoint with its weights in an ARM of images of another height.

    Raises:
        InputError: the ARM cannot have this height, or its weights depend on it.
    """
    arm, layout = checkpoint.arm, replace(checkpoint.arm.layout, height=height)
    config = getattr(arm, "config", None)
    other = type(arm)(layout) if config_type(type(arm)) is None else type(arm)(layout, config)  # type: ignore
    weight = next(arm.parameters())
    try:
        other.to(weight).load_state_dict(arm.state_dict())
    except RuntimeError:
        raise InputError(f"the weights of {type(arm).__name__} depend on the height; leave --heights out") from None
    return replace(checkpoint, arm=other.eval(), modules=None)


def unequal(checkpoint: Checkpoint, chosen: Sequence[Contestant]) -> list[str]:
    """The names of those that do not draw the ancestral samples; streams have fewer slots than samples."""
    arm = checkpoint.arm
    x = {
        one.name: make_sampler(one.spec, checkpoint)(Draw.of(arm, 0, EQUAL_COUNT)).x
        for one in chosen
        if not one.spec.stream
    }
    draw = Draw.of(arm, 0, EQUAL_COUNT - 1, EQUAL_COUNT)
    x |= {one.name: make_sampler(one.spec, checkpoint)(draw).x for one in chosen if one.spec.stream}
    return [name for name, samples in x.items() if not torch.equal(samples, x[ANCESTRAL])]


def _timed(
    checkpoint: Checkpoint,
    arms: dict[int, Checkpoint],
    chosen: Sequence[Contestant],
    settings: Settings,
    status: Status,
) -> list[dict[str, Any]]:
    """The rows of all heights, each with its provenance."""
    rows = []
    for height, loaded in sorted(arms.items()):
        own = loaded is checkpoint
        entered = chosen if own else [one for one in contestants(loaded) if one.name in _AT_HEIGHTS and one in chosen]
        widths = settings.widths if own else (settings.height_width,)
        specs = [one.spec for one in entered]
        samplers = [(spec, make_sampler(spec, loaded)) for spec in specs]
        job = _job(loaded, specs, settings, widths)
        bench = Bench(job, loaded, samplers, clock_for(device_of_this_job()), _Shown(status, f"height {height}: "))
        names = {_key(naming(spec, loaded.arm.layout, 1)): one.name for spec, one in zip(specs, entered, strict=True)}
        about = {"height": height, "dims": loaded.arm.layout.dims, "checkpoint_sha256": checkpoint.sha256}
        about |= {name: checkpoint.metadata.get(name) for name in (*DATA, "valid_bits_per_dim")} | provenance()
        about["dtype"] = str(next(loaded.arm.parameters()).dtype).removeprefix("torch.")
        ranks = {one.name: {"rank": rank, "is_drawn": one.is_drawn} for rank, one in enumerate(chosen)}
        for row in bench.repetitions():
            name = names[_key(row)]
            rows.append({"name": name, **ranks[name], **about, **row})
        for (spec, width), seconds in bench.skipped.items():
            name = next(
                one.name for one, settled in zip(entered, specs, strict=True) if settled.model_dump_json() == spec
            )
            CONSOLE.print(
                f"Left out: {name} at {width}, about {seconds:.0f} s a run (--patience {settings.patience:g}).",
                soft_wrap=True,
            )
    return rows


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells samplers apart, whatever the number of slots."""
    return (
        *(row[name] for name in ("sampler", "forecaster", "horizon", "window", "auto_window")),
        row["slots"] is None,
    )


def _job(checkpoint: Checkpoint, specs: list[SamplerSpec], settings: Settings, widths: Sequence[int]) -> TimingJob:
    given = checkpoint.metadata
    return TimingJob(
        id="bench",
        title="bench",
        arm=Component(name=str(given.get("arm"))),
        train_job=str(given.get("job")),
        train_seed=int(given.get("seed") or 0),
        samplers=specs,
        batch_sizes=list(widths),
        slots=list(widths),
        samples_per_slot=settings.samples_per_slot,
        patience=settings.patience,
        seeds=list(range(settings.repetitions)),
        dtype="float32",
        figure_seed=0,
        figure_count=1,
    )


class _Shown:
    """Shows on the terminal how far a bench is."""

    def __init__(self, status: Status, what: str) -> None:
        self.status, self.what = status, what

    def update(self, step: int, total: int, *, note: str = "") -> None:
        """See `harness.jobs.timing.Progress`."""
        self.status.update(f"{self.what}{note}, run {step + 1} of {total}")
