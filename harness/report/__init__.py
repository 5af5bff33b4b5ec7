"""From the tables of a store to a report: Markdown, LaTeX, Parquet, figures and one HTML page."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from arm_core.errors import InputError
from arm_core.registry import suggest
from harness.report import tables
from harness.report.statistics import GROUP, speedup, usable
from harness.store import Store

__all__ = ["Report", "terminal_tables", "write_report"]


@dataclass(frozen=True)
class Report:
    """What a report says, and the files that it was written to."""

    speedup: pd.DataFrame
    trials: pd.DataFrame
    files: list[Path]
    notes: list[str]


def write_report(store: Store, out: Path, *, sweep: str | None = None) -> Report:
    """Write the report on a store, or on the latest plan of one of its sweeps.

    Args:
        store: to read.
        out: the folder to write to; made if missing. Files of an earlier report are replaced.
        sweep: its name.

    Raises:
        InputError: nothing to report, an unknown sweep, or runs in one table that cannot be compared.
    """
    jobs = _jobs_of(store, sweep)
    read = {name: store.read(name, jobs=jobs) for name in ("trials", "timings", "samples", "mistakes")}
    trials, timings = read["trials"], read["timings"]
    if trials.empty and timings.empty:
        raise InputError(f"the store {store.root} holds no results; run: harness sweep sweeps/quickstart.yaml")
    rows, notes = usable(timings)
    notes = [*_failures(trials, "training"), *_failures(timings, "timing"), *notes, *_doubts(rows)]
    table = speedup(timings)
    groups = {job: tuple(part[GROUP].iloc[0]) for job, part in rows.groupby("job")}

    from harness.report.figures import draw_all  # matplotlib takes a second, which only a report should pay
    from harness.report.page import render

    out.mkdir(parents=True, exist_ok=True)
    kept = [read[name][read[name]["job"].isin(list(groups))] for name in ("samples", "mistakes")]
    figures = draw_all(table, kept[0], kept[1], groups, out / "figures")
    sections = [
        {
            "title": tables.title(key),
            "about": tables.trial_sentence(trials, key[2], key[3]),
            "rows": [tables.cells(row) for _, row in group.iterrows()],
            "figures": [
                f.name for f in figures if f.name.startswith("-".join(str(x) for x in key[2:] if x != "default") + "-")
            ],
        }
        for key, group in table.groupby(GROUP, dropna=False, sort=False)
    ]
    page = render(sections, figures, _provenance(trials, rows), notes, tables.HEADINGS, _headline(table))
    files = [_write(out / "index.html", page), *_tables(out, table, trials, sections)]
    return Report(table, trials, [*files, *(path for figure in figures for path in (figure.png, figure.svg))], notes)


def terminal_tables(report: Report) -> list[Table]:
    """One table a dataset, as a terminal shows it."""
    return [
        tables.terminal(key, group, tables.trial_sentence(report.trials, key[2], key[3]))
        for key, group in report.speedup.groupby(GROUP, dropna=False, sort=False)
    ]


def _jobs_of(store: Store, sweep: str | None) -> set[str] | None:
    if sweep is None:
        return None
    records = {name: record for name, record in store.sweeps().items() if sweep in (name, record["sweep"])}
    if not records:
        raise suggest("sweep in this store", sweep, store.sweeps())
    return {job["id"] for record in records.values() for job in record["jobs"]}


def _failures(rows: pd.DataFrame, kind: str) -> list[str]:
    failed = rows[rows["status"] == "failed"]
    return [f"The {kind} of {row.dataset} ({row.variant}) failed: {row.error}" for _, row in failed.iterrows()]


def _doubts(rows: pd.DataFrame) -> list[str]:
    """What a reader should know of rows that are in the tables."""
    said = []
    busy = int(rows["busy"].fillna(False).sum())
    if busy:
        said.append(f"During {busy} of {len(rows)} timed repetitions other processes used the machine.")
    wrong = rows[rows["exact_fraction"] < 1]
    for (dataset, name), part in wrong.groupby(["dataset", "label"]):
        gap = part["smallest_gap"].max()
        said.append(
            f"{dataset}, {name}: {len(part)} repetitions have samples that differ from the ancestral ones "
            f"(largest gap between the best two at a first mismatch: {gap:.2g})."
        )
    return said


def _headline(table: pd.DataFrame) -> str:
    others = table[table["sampler"] != "ancestral"]
    if others.empty:
        return "No sampler has been timed yet."
    best = others.loc[others["speedup"].idxmax()]
    equal = "every sample equals the ancestral one" if others["equal"].all() else "some samples differ, see below"
    return (
        f"Up to {best.speedup:.0f} times faster than ancestral sampling ({best.dataset}, {best.sampler}, "
        f"batch {best.batch_size}: {best.calls_percent:.1f} % of the ARM calls), and {equal}."
    )


def _provenance(trials: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for kind, part in (("training", trials), ("timing", rows)):
        for job, group in part.groupby("job", sort=False):
            row = group.iloc[0]
            dirty = " with changes" if row["dirty"] is True or row["dirty"] == True else ""  # noqa: E712 a pandas boolean
            commit = f"{row['commit'][:10]}{dirty}" if isinstance(row["commit"], str) else tables.DASH
            seeds = row["seed"] if kind == "training" else ", ".join(map(str, sorted(set(group["seed"]))))
            found.append(
                {
                    "job": f"{kind} {job}",
                    "dataset": row["dataset"],
                    "seeds": seeds,
                    "started (UTC)": f"{row['started_at']:%Y-%m-%d %H:%M}",
                    "device": f"{row['device']}, {row['cpu']}, {row['threads']} threads",
                    "versions": f"torch {row['torch']}, Python {row['python']}",
                    "commit": commit,
                }
            )
    return found


def _tables(out: Path, table: pd.DataFrame, trials: pd.DataFrame, sections: list[dict[str, Any]]) -> list[Path]:
    parts = [f"## {s['title']}\n\n{s['about']}\n\n{tables.markdown(tables.HEADINGS, s['rows'])}" for s in sections]
    tex = [tables.latex(tables.HEADINGS, s["rows"], f"{s['title']}. {s['about']}") for s in sections]
    done = trials[trials["status"] == "done"]
    columns = [
        "dataset",
        "variant",
        "seed",
        "train_bits_per_dim",
        "valid_bits_per_dim",
        "test_bits_per_dim",
        "parameters",
        "iterations",
        "wall_s",
    ]
    cells = [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in done[columns].itertuples(index=False)
    ]
    headings = [column.replace("_", " ") for column in columns]
    return [
        _write(out / "speedup.md", "\n".join(parts)),
        _write(out / "speedup.tex", "\n".join(tex)),
        _write(out / "trials.md", tables.markdown(headings, cells)),
        _write(out / "trials.tex", tables.latex(headings, cells, "Trained models")),
        _write_parquet(out / "speedup.parquet", table),
        _write_parquet(out / "trials.parquet", trials),
    ]


def _write(place: Path, text: str) -> Path:
    temporary = place.with_name(f".{place.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, place)
    return place


def _write_parquet(place: Path, frame: pd.DataFrame) -> Path:
    temporary = place.with_name(f".{place.name}")
    frame.to_parquet(temporary, index=False)
    os.replace(temporary, place)
    return place
