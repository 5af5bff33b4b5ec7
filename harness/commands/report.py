"""`harness report` and `status`: what is done with a store later. Loads no torch, so they answer at once."""

import os
import tempfile
from pathlib import Path
from typing import Any

from arm_core.errors import InputError
from harness.console import CONSOLE, SHOWN, show
from harness.store import Store


def run_report(
    root: Path, out: Path, *, other: Path | None = None, animate: Path | None = None, **options: Any
) -> None:
    """Write the report and print its tables; `options` as `write_report` takes them."""
    os.environ.pop("MPLBACKEND", None)  # nothing is shown here; that of a notebook need not exist
    from harness.report import formats, write_report

    if other is not None and not other.is_dir():
        raise InputError(f"--diff needs the folder of another store, and there is none at {other}")
    before = Store(other) if other is not None else None
    moving = _moving(animate) if animate is not None else None
    report = write_report(Store(root), out, other=before, moving=moving, **options)
    for lead in report.leads[:SHOWN]:
        show(formats.terminal_lead(lead), named=2)
    for table in report.tables:
        for part in formats.terminal(table, most=SHOWN):
            show(part)
    if report.comparison is not None:
        for part in formats.terminal_comparison(report.comparison, most=SHOWN):
            show(part)
    notes = report.comparison.notes if report.comparison is not None else []
    for note in [*notes, *report.footnotes, *report.left_out]:
        CONSOLE.print(f"- {note}", soft_wrap=True)
    if not report.tables:
        CONSOLE.print(
            "No finished training or timing to report; fill a store with: harness sweep sweeps/quickstart.yaml"
        )
    CONSOLE.print(f"Wrote {len(report.files)} files; open {out / 'index.html'}", soft_wrap=True)


def _moving(given: Path) -> bytes:
    """A GIF of how samplers draw: the one that is given, or that of a checkpoint."""
    if given.suffix != ".gif":
        from harness.commands.animation import animate_checkpoint  # only this needs torch

        with tempfile.TemporaryDirectory() as folder, CONSOLE.status("Drawing the picture"):
            animate_checkpoint(given, out=(made := Path(folder) / "how.gif"))
            return made.read_bytes()
    data = given.read_bytes()
    if not data.startswith(b"GIF8"):
        raise InputError(f"{given} is no GIF; `harness sample CHECKPOINT --animate {given}` makes one")
    return data


def show_status(root: Path) -> None:
    """Print how every recorded job stands."""
    from harness.execution.monitor import status_table

    store = Store(root)
    sweeps = store.sweeps()
    if not sweeps:
        raise InputError(f"no sweep has been run on the store {root}; start with: harness sweep sweeps/quickstart.yaml")
    for name, record in sweeps.items():
        show(status_table(store, name, record), named=2)
