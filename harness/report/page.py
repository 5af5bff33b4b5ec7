"""The report as one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from harness.report.figures import Figure


def render(
    sections: Sequence[dict[str, Any]],
    figures: Sequence[Figure],
    provenance: Sequence[dict[str, Any]],
    notes: Sequence[str],
    headings: Sequence[str],
    headline: str,
) -> str:
    """The page.

    Args:
        sections: per dataset: title, about, rows (formatted cells), figures (names).
        figures: all of them; those that no section names stand at the top.
        provenance: a row a run: what ran where.
        notes: what was left out, and why.
        headings: of the columns of the rows.
        headline: the result in a sentence.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    placed = {name for section in sections for name in section["figures"]}
    return environment.get_template("report.html").render(
        sections=sections,
        figures={figure.name: {"caption": figure.caption, "data": _data_uri(figure.png)} for figure in figures},
        overview=[figure.name for figure in figures if figure.name not in placed],
        provenance=provenance,
        notes=notes,
        headings=headings,
        headline=headline,
    )


def _data_uri(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"
