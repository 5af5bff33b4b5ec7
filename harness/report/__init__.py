"""From the tables of a store to a report: Markdown, LaTeX, CSV, Parquet, figures and one HTML page."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from arm_core.errors import InputError
from harness.report import formats, provenance
from harness.report.comparison import compare
from harness.report.folder import published
from harness.report.lead import Lead, leads
from harness.report.page import render
from harness.report.references import load_references, unmatched
from harness.report.selection import Selection, select
from harness.report.statistics import few_repetitions, not_timed, speedup
from harness.report.tables import Table, models, paper_tables
from harness.store import Store

if TYPE_CHECKING:
    from harness.report.figures import Figure

__all__ = ["Report", "write_report"]

FIGURES = 6
"""Panels of a figure, and datasets with figures of their own, unless asked for otherwise."""


@dataclass(frozen=True)
class Report:
    """What a report says, and the files that it was written to.

    Attributes:
        comparison: with another store, if one was given.
        leads: the result at one look.
        left_out: a sentence for everything that is not in it, and why.
        footnotes: what a reader must know of what is in it.
    """

    tables: list[Table]
    speedup: pd.DataFrame
    models: pd.DataFrame
    comparison: Table | None = None
    files: list[Path] = field(default_factory=list)
    leads: list[Lead] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)


def write_report(
    store: Store,
    out: Path,
    *,
    sweeps: Sequence[str] = (),
    only: Sequence[str] = (),
    mix: Collection[str] = (),
    reference: Path | None = None,
    other: Store | None = None,
    moving: bytes | None = None,
    figures: int = FIGURES,
) -> Report:
    """Write the report on a store.

    Args:
        store: to read.
        out: the folder to write to; made if missing. Files of an earlier report are replaced or removed, no others.
        sweeps: names of recorded sweeps; none: the whole store.
        only: filters, `KEY=VALUE`.
        mix: differences that runs which are compared may have: device, version, checkpoint, status.
        reference: a CSV file of published numbers.
        other: an earlier store, to say what got faster or slower since.
        moving: a GIF of how samplers draw, for the page.
        figures: the most panels of a figure, and the most datasets with figures of their own.

    Raises:
        InputError: an unknown sweep or filter, a reference file that cannot be read, or a file in `out` that is not of
            a report and has the name of one that is.
    """
    if not store.root.exists():
        raise InputError(f"there is no store {store.root}; run: harness sweep sweeps/quickstart.yaml")
    references = load_references(reference) if reference is not None else None
    selection = select(store, sweeps=sweeps, only=only, mix=mix)
    table, trained = speedup(selection.repetitions), models(selection.trials, selection.autoencoders)
    tables = paper_tables(table, trained, references)
    before = select(other, sweeps=sweeps, only=only, mix=mix) if other is not None else None
    comparison = compare(before, selection, mix) if before is not None else None

    compared = [comparison] if comparison is not None else []
    with published(out) as place:
        files = [path for made in [*tables, *compared] for path in _write_table(place, made)]
        files += _write_frames(place, {"speedup": table, "models": trained})
        drawn, not_drawn = _draw(store, selection, table, tables, place / "figures", figures)
        missing = unmatched(references, table, trained) if references is not None else []
        left_out = [*selection.left_out, *missing, *not_timed(table), *not_drawn]
        footnotes = [*few_repetitions(table), *selection.footnotes]
        report = Report(tables, table, trained, comparison, [], leads(table), left_out, footnotes)
        page = render(report, drawn, provenance.rows(selection), title=_title(sweeps, only), moving=moving)
        files += [_written(place / "index.html", page.encode())]
        files += [_written(place / "how.gif", moving)] if moving is not None else []
        files += [path for figure in drawn for path in figure.files.values()]
        report.files.extend(out / path.relative_to(place) for path in files)
    return report


def _draw(
    store: Store, selection: Selection, table: pd.DataFrame, tables: Sequence[Table], out: Path, limit: int
) -> tuple[Sequence["Figure"], list[str]]:
    """The figures, and a sentence for each that is left out; matplotlib's settings are its user's, and may be bad."""
    try:
        from harness.report.figures import draw_all  # matplotlib takes a second, which only a report should pay
    except (ImportError, OSError, ValueError) as error:
        why = f"matplotlib does not load ({error}); mend its settings (matplotlibrc), then write the report again."
        return [], [f"No figures were drawn: {why}"]
    return draw_all(store, selection, table, tables, out, limit=limit)


def _title(sweeps: Sequence[str], only: Sequence[str]) -> str:
    named = [*sweeps, *only]
    return "Exact fast sampling of autoregressive image models" + (f": {', '.join(named)}" if named else "")


def _write_table(out: Path, table: Table) -> list[Path]:
    texts = {"md": formats.markdown(table), "tex": formats.latex(table)}
    files = [_written(out / f"{table.name}.{suffix}", text.encode()) for suffix, text in texts.items()]
    return files + _write_frames(out, {table.name: table.frame})


def _write_frames(out: Path, frames: dict[str, pd.DataFrame]) -> list[Path]:
    files = []
    for name, frame in frames.items():
        files.append(_written(out / f"{name}.csv", frame.to_csv(index=False).encode()))
        files.append(_written(out / f"{name}.parquet", frame.to_parquet(index=False)))
    return files


def _written(place: Path, data: bytes) -> Path:
    place.write_bytes(data)
    return place
