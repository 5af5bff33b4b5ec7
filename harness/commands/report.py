"""`harness report`, `status` and `compact`: what is done with a store later. Loads no torch, so they answer at once."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from arm_core.errors import InputError
from harness.store import Store

CONSOLE = Console(highlight=False)


def run_report(
    root: Path | str,
    out: Path,
    *,
    sweeps: Sequence[str],
    only: Sequence[str],
    mix: Sequence[str],
    reference: Path | None,
    other: Path | None,
    figures: int,
) -> None:
    """Write the report and print its tables."""
    from harness.report import formats, write_report

    if other is not None and not other.is_dir():
        raise InputError(f"--diff needs the folder of another store, and there is none at {other}")
    report = write_report(
        Store(root),
        out,
        sweeps=sweeps,
        only=only,
        mix=mix,
        reference=reference,
        other=Store(other) if other is not None else None,
        figures=figures,
    )
    for lead in report.leads[:SHOWN]:
        CONSOLE.print(formats.terminal_lead(lead))
    for table in report.tables:
        for part in formats.terminal(table, most=SHOWN):
            CONSOLE.print(part)
    if report.comparison is not None:
        CONSOLE.print(formats.markdown_rows(report.comparison.headings, report.comparison.cells[:SHOWN]), markup=False)
    for note in [*report.footnotes, *report.left_out]:
        CONSOLE.print(f"- {note}", soft_wrap=True, markup=False)
    if not report.tables:
        CONSOLE.print(
            "No finished training or timing to report; fill a store with: harness sweep sweeps/quickstart.yaml"
        )
    CONSOLE.print(f"Wrote {len(report.files)} files; open {out / 'index.html'}", soft_wrap=True, markup=False)


SHOWN = 100
"""Rows of a table that the terminal shows."""


def show_status(root: Path | str, work: Path | None = None) -> None:
    """Print how every recorded job stands."""
    from harness.execution.monitor import status_table

    store = Store(root, work=work)
    sweeps = store.sweeps()
    if not sweeps:
        raise InputError(
            f"no sweep has been run on the store {store.place}; start with: harness sweep sweeps/quickstart.yaml"
        )
    outcomes = store.outcomes()
    for name, record in sweeps.items():
        CONSOLE.print(status_table(store, outcomes, name, record))


def run_compact(root: Path | str, work: Path | None) -> None:
    """Pack the tables of a store that nobody else writes."""
    store = Store(root, work=work)
    if not store.exists():
        raise InputError(f"there is no store {store.place}; run: harness sweep sweeps/quickstart.yaml")
    with store.locked():
        parts = store.compact()
    CONSOLE.print(f"{parts} parts in one file of the store {store.place}", soft_wrap=True, markup=False)
