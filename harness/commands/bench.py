"""`harness bench CHECKPOINT`: a sweep over one checkpoint with the samplers of today, written, run and reported."""

import re
from pathlib import Path
from typing import Any

import yaml

from arm_core import Checkpoint, InputError
from arm_core.native import check_native
from harness.commands.report import run_report
from harness.commands.sweep import SweepCommand, run_sweep
from harness.console import CONSOLE
from harness.jobs.checkpoints import load
from harness.jobs.machine import device_of_this_job
from harness.report.folder import published
from harness.sweep.jobs import Existing

NAME = "bench"


def run_bench(given: Existing, out: Path, *, slots: str, native: bool, store: Path, **timing: Any) -> int:
    """Compare samplers on a checkpoint; returns the exit code.

    Args:
        given: the checkpoint.
        out: for the sweep file and the report.
        slots: batch sizes and numbers of slots, with commas between.
        native: time chosen windows and cached sequential sampling with the kernels in C++ too.
        store: where the rows go.
        timing: repetitions, and other settings of `timing:`.

    Raises:
        InputError: the checkpoint cannot be read, or a number is none.
    """
    widths = _numbers(slots)
    loaded = load(given)
    key = re.sub(r"\W+", "-", str(loaded.metadata.get("dataset_name") or Path(given.path).resolve().name))
    settings = {"batch_sizes": widths, "seeds": list(range(timing.pop("repetitions"))), **timing}
    settings |= {"float64_samples": 3, "figure_count": 4}
    of = given.absolute().model_dump(exclude_defaults=True)
    sweep = {"name": NAME, "checkpoints": {key: of}, "timing": {"samplers": samplers_of(loaded, native), **settings}}
    file, text = out / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False, default_flow_style=None, width=100)
    with published(out, "bench-files.sha256") as place:  # an edited one is its user's
        (place / file.name).write_text(text, encoding="utf-8")
    again = SweepCommand(file=file, store=store, serial=True).line()
    CONSOLE.print(f"{file}: what is run; a copy of it, changed, is run by: {again}", soft_wrap=True)
    code = run_sweep(SweepCommand(file=file, store=store, serial=True))
    run_report(store, out, sweeps=[NAME])
    return code


def samplers_of(checkpoint: Checkpoint, native: bool = False) -> list[Any]:
    """Every sampler that the checkpoint allows, as a sweep file has them.

    Args:
        checkpoint: with modules, or without.
        native: chosen windows and cached sequential sampling once more, with the kernels in C++.
    """
    layout = checkpoint.arm.layout
    row = layout.width * layout.channels
    found: list[Any] = ["ancestral", "fixed_point"]
    learned = {"forecaster": "learned", "horizon": "auto"}
    if checkpoint.modules is not None:
        found.append(learned)
    found += [{"forecaster": "fixed_point", "window": "image"}, {"forecaster": "fixed_point", "stream": True}]
    found += ["jacobi", "jacobi_gs"]
    if checkpoint.arm.granule is None:
        return found
    windows = [*dict.fromkeys([max(1, row // 2), row, 2 * row]), "auto"]
    streams = [{"forecaster": "fixed_point_above", "window": window, "stream": True} for window in windows]
    found += ["gs_jacobi", "cached_sequential", *streams]
    if native:
        check_native(checkpoint.arm.to(device_of_this_job()))
        found += [{"sampler": "cached_sequential", "native": True}, {**streams[-1], "native": True}]
    return found if checkpoint.modules is None else [*found, {**learned, "window": "auto", "stream": True}]


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--slots takes positive whole numbers with commas between, for example 1,4,16; got {text!r}")
    return list(dict.fromkeys(int(part) for part in parts))
