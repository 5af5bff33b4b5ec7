"""The numbers as text: what a cell looks like, in Markdown, LaTeX and on the terminal."""

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.table import Table

from harness.report.statistics import RESAMPLED

HEADINGS = [
    "sampler",
    "batch",
    "ARM calls",
    "full passes",
    "seconds",
    "speed-up",
    "95 % interval",
    "equal to ancestral",
]
DASH = "–"  # noqa: RUF001 what a table shows for a number that does not exist


def cells(row: pd.Series) -> list[str]:
    """One row of the speed-up table, formatted, in the order of `HEADINGS`."""
    between = DASH if pd.isna(row.speedup_low) else f"{times(row.speedup_low)} to {times(row.speedup_high)}"
    return [
        row.sampler,
        str(row.batch_size),
        with_std(row.calls_percent, row.calls_percent_std, 1) + " %",
        f"{row.work:.1f}",
        with_std(row.seconds, row.seconds_std, 3 if row.seconds < 1 else 2),
        DASH if pd.isna(row.speedup) else times(row.speedup),
        DASH if row.sampler == "ancestral" else between,
        "in law" if row.sampler.startswith(RESAMPLED) else "yes" if row.equal else "NO",
    ]


def times(ratio: float) -> str:
    """A ratio with two digits after the point below ten, one above."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def with_std(mean: float, std: float, digits: int) -> str:
    """mean ± std; the mean alone where there is no std."""
    text = f"{mean:.{digits}f}"
    return text if pd.isna(std) else f"{text} ± {std:.{digits}f}"


def trial_sentence(trials: pd.DataFrame, dataset: str, variant: str) -> str:
    """What was trained, and how well: bits/dim on held-out data, and what kind of data they are."""
    rows = trials[(trials["dataset"] == dataset) & (trials["variant"] == variant) & (trials["status"] == "done")]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    status = f"{row.dataset_status} data" + (", not the official set" if row.dataset_status == "sample" else "")
    many = f"mean of {len(rows)} seeds, " if len(rows) > 1 else ""
    test, valid = rows.test_bits_per_dim.mean(), rows.valid_bits_per_dim.mean()
    return (
        f"{row.dataset_name} {row.dataset_variant} ({status}), {row.channels}x{row.height}x{row.width}, "
        f"{row.categories} categories: {many}{test:.3f} bits/dim on the test split, {valid:.3f} on validation; "
        f"{row.iterations} iterations, {row.parameters:,} parameters"
    )


def title(key: Sequence[object]) -> str:
    """The heading of one group of samplers: dataset, and variant and profile where they say something."""
    _, profile, dataset, variant = key
    extra = [
        str(part) for part in (None if variant == "default" else variant, None if pd.isna(profile) else profile) if part
    ]
    return f"{dataset} ({', '.join(extra)})" if extra else str(dataset)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned source."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in escaped) for column in range(len(headings))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in escaped
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"


def latex(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A booktabs table."""
    frame = pd.DataFrame([[_tex(cell) for cell in row] for row in rows], columns=[_tex(cell) for cell in headings])
    return frame.style.hide(axis="index").to_latex(
        hrules=True, column_format="l" + "r" * (len(headings) - 1), caption=_tex(caption), position_float="centering"
    )


def _tex(text: str) -> str:
    for plain, escaped in {
        "\\": r"\textbackslash{}",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "±": r"$\pm$",
        DASH: "--",
    }.items():
        text = text.replace(plain, escaped)
    return text


def terminal(key: Sequence[object], group: pd.DataFrame, caption: str) -> Table:
    """The samplers of one dataset, for a terminal of 80 columns: means only."""
    table = Table(title=title(key), caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("sampler", "batch", "ARM calls", "seconds", "speed-up", "equal to ancestral"):
        named = heading == "sampler"  # the only column that may need more than one line
        table.add_column(heading, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    last = group["batch_size"].ne(group["batch_size"].shift(-1))
    for (_, row), ends in zip(group.iterrows(), last, strict=True):
        name, batch, *_, speed, _, equal = cells(row)
        seconds = f"{row.seconds:.3f}" if row.seconds < 10 else f"{row.seconds:.1f}"
        table.add_row(name, batch, f"{row.calls_percent:.1f} %", seconds, speed, equal, end_section=bool(ends))
    return table
