"""The report as one HTML file that needs nothing else: no network, no other file."""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from harness.report import lead
from harness.report.lead import headline
from harness.report.tables import DASH, EXACT, Table, with_std

if TYPE_CHECKING:
    from harness.report import Report
    from harness.report.figures import Figure

MOST_ROWS = 1000
"""Rows of a table that the page shows; the files hold all."""
_CARDS = 12
_MODEL_HEADINGS = [
    "dataset",
    "variant",
    "data",
    "trainings",
    "train bits/dim",
    "valid bits/dim",
    "test bits/dim",
    "gap",
    "MSE",
    "iterations",
    "parameters",
]


def render(
    report: "Report",
    figures: Sequence["Figure"],
    provenance: Sequence[dict[str, Any]],
    *,
    title: str,
    moving: bytes | None = None,
) -> str:
    """The page.

    Args:
        report: tables, what was left out, what to know.
        figures: all of them; each stands with the table that it names.
        provenance: a row a job.
        title: of the page.
        moving: a GIF of how samplers draw.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [_picture(figure) for figure in figures]
    placed = {table.name for table in report.tables}
    return environment.get_template("report.html").render(
        title=title,
        headline=headline(report.leads, report.speedup),
        leads=report.leads[:_CARDS],
        lead_headings=lead.HEADINGS,
        sections=[_section(table, [p for p in pictures if p["place"] == table.name]) for table in report.tables],
        others=[picture for picture in pictures if picture["place"] not in placed],
        moving=_embedded("gif", moving) if moving is not None else None,
        comparison=report.comparison,
        provenance=provenance[:MOST_ROWS],
        jobs=len(provenance),
        left_out=report.left_out,
        footnotes=report.footnotes,
        most=MOST_ROWS,
    )


def _section(table: Table, pictures: list[dict[str, Any]]) -> dict[str, Any]:
    """A table and its figures, as the template wants them: one HTML table for all blocks, to sort and filter."""
    rows: list[dict[str, Any]] = []
    queries = list(table.frame["query"]) if len(table.frame) else []
    for block in table.blocks:
        for cells in block.rows:
            equal = next(cell.text for cell in cells if cell.text in EXACT)
            query = queries[len(rows)] if len(rows) < len(queries) else ""
            rows.append({"dataset": block.title, "cells": cells, "equal": equal, "query": query})
    text = [heading for heading in table.headings if heading in ("variant", "sampler")]
    return {
        "name": table.name,
        "title": table.title,
        "headings": table.headings,
        "text": len(text),
        "filters": [
            0,
            *(1 + table.headings.index(name) for name in ("variant", "sampler", "batch") if name in table.headings),
        ],
        "rows": rows[:MOST_ROWS],
        "total": len(rows),
        "models": [_model(row) for _, row in table.models.iterrows()][:MOST_ROWS],
        "model_headings": _MODEL_HEADINGS,
        "about": [f"{block.title}: {block.about}" for block in table.blocks if block.about][:MOST_ROWS],
        "notes": table.notes,
        "figures": pictures,
    }


def _model(row: pd.Series) -> list[str]:
    bits = [with_std(row[f"{s}_bits_per_dim"], row[f"{s}_bits_per_dim_std"], 3) for s in ("train", "valid", "test")]
    gap = DASH if pd.isna(row["gap_bits_per_dim"]) else f"{row['gap_bits_per_dim']:+.3f}"
    mse = DASH if pd.isna(row["mse"]) else f"{row['mse']:.4f}"
    counts = [DASH if pd.isna(row[name]) else f"{row[name]:,}" for name in ("iterations", "parameters")]
    dataset = row["dataset"] if pd.isna(row["profile"]) else f"{row['dataset']} ({row['profile']})"
    return [dataset, row["variant"], row["data"], str(row["trainings"]), *bits, gap, mse, *counts]


def _picture(figure: "Figure") -> dict[str, Any]:
    width, height = _size(figure.png)
    return {
        "title": figure.title,
        "caption": figure.caption,
        "place": figure.place,
        "query": figure.query,
        "file": f"figures/{figure.name}",
        "width": width // 2,  # drawn at twice the resolution of a screen
        "height": height // 2,
        "data": _embedded("png", figure.png.read_bytes()),
    }


def _embedded(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _size(png: Path) -> tuple[int, int]:
    with png.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return width, height
