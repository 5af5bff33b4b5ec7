"""The tables and the figure of `harness bench`: medians over its repetitions, ratios inside each of them."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from harness.benches.samplers import ANCESTRAL, CONSOLE, PAPER
from harness.jobs.timing import REFERENCE_WIDTH
from harness.report.formats import markdown_rows

MEASURES = {"calls": "ARM calls a sample", "work": "full passes a sample", "ms": "ms a sample"}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for every height, sampler and width, in the order of the samplers: medians over repetitions.

    Columns: height, name, width, is_drawn, samples (of a repetition), calls, work and ms (a sample), `ms_low` and
    `ms_high` (the extremes), over_paper and over_ancestral (how many times faster than the paper's batches and than
    ancestral ones of the reference width, the median of the ratios of each repetition) with `_low` and `_high`, window
    (median, in dims), exact_fraction (of all that were compared), largest_gap (of all mismatches), repetitions and
    disturbed (of them by others).
    """
    rows = rows[~rows["is_warmup"].astype(bool)].copy()
    rows["samples"] = rows["arm_calls"].map(len)
    for name, column in (("calls", "arm_calls"), ("work", "arm_work"), ("dims_a_call", "windows")):
        rows[name] = rows[column].map(np.mean)
    rows["ms"] = 1000 * rows["wall_s"] / rows["samples"]
    for name, against in (("over_paper", PAPER), ("over_ancestral", ANCESTRAL)):
        rows[name] = _reference(rows, against) / rows["ms"]
    groups = rows.groupby(["height", "rank", "name", "batch_size"])
    found = groups.agg(
        is_drawn=("is_drawn", "first"),
        samples=("samples", "first"),
        **{name: (name, "median") for name in (*MEASURES, "over_paper", "over_ancestral")},
        **{f"{name}_low": (name, "min") for name in ("ms", "over_paper", "over_ancestral")},
        **{f"{name}_high": (name, "max") for name in ("ms", "over_paper", "over_ancestral")},
        window=("dims_a_call", "median"),
        exact_fraction=("exact_fraction", "mean"),
        largest_gap=("smallest_gap", "max"),
        repetitions=("seed", "nunique"),
        disturbed=("busy", lambda part: int(part.fillna(False).astype(bool).sum())),
    )
    return found.reset_index().drop(columns="rank").rename(columns={"batch_size": "width"})


def _reference(rows: pd.DataFrame, name: str) -> np.ndarray:
    """ms a sample of `name` in batches of `REFERENCE_WIDTH` (or its largest), same height and repetition, or nan."""
    own = rows[rows["name"] == name]
    sizes = own.groupby("height")["batch_size"].agg(lambda part: _reference_width(set(part)))
    own = own[own["batch_size"] == own["height"].map(sizes)].set_index(["height", "seed"])["ms"]
    return own.reindex(pd.MultiIndex.from_frame(rows[["height", "seed"]])).to_numpy()


def _reference_width(widths: Collection[int]) -> int:
    """The batch size at which a sampler is what the others are compared with: `REFERENCE_WIDTH`, or its largest."""
    return REFERENCE_WIDTH if REFERENCE_WIDTH in widths else int(max(widths, default=REFERENCE_WIDTH))


def _as_reference(found: pd.DataFrame, name: str) -> str:
    """A sampler and the batch size at which it is compared with."""
    return f"{name} in batches of {_reference_width(set(found.loc[found['name'] == name, 'width']))}"


def write(rows: pd.DataFrame, out: Path) -> list[Path]:
    """Write the raw rows, the summary, the tables and the figure; print the first table.

    Returns:
        The files.
    """
    from harness.report.figures.samplers import draw

    out.mkdir(parents=True, exist_ok=True)
    found = summary(rows)
    raw, csv, text = (out / f"samplers.{kind}" for kind in ("parquet", "csv", "md"))
    rows.to_parquet(raw, index=False)
    found.to_csv(csv, index=False, float_format="%.6g")
    text.write_text(as_markdown(rows, found), encoding="utf-8")
    _print(found[found["height"] == own_height(rows)])
    return [raw, csv, text, *draw(found, own_height(rows), out)]


def own_height(rows: pd.DataFrame) -> int:
    """The checkpoint's: the one at which most was run."""
    return int(rows["height"].value_counts().idxmax())


def as_markdown(rows: pd.DataFrame, found: pd.DataFrame) -> str:
    """All tables, and what they were measured with."""
    own = own_height(rows)
    here = found[found["height"] == own]
    parts = [
        f"# Samplers side by side\n\n{conditions(rows, found)}",
        *(_by_width(here, name, axis) for name, axis in MEASURES.items()),
        _ratios(here),
    ]
    if found["height"].nunique() > 1:
        width = int(found.loc[found["height"] != own, "width"].iloc[0])
        parts += [_by_height(found[found["width"] == width], width, own)]
    return "\n\n".join(parts) + "\n"


def conditions(rows: pd.DataFrame, found: pd.DataFrame) -> str:
    """With what it was measured, and how exact the samples were."""
    first = rows.iloc[0]
    commit = f"`{str(first['commit'])[:10]}`{' with uncommitted changes' if first['dirty'] else ''}"
    equal = found["exact_fraction"].dropna()
    said = [
        f"Checkpoint sha256 `{first['checkpoint_sha256']}`{_training(first)}, {first['dtype']}.",
        f"{first['device']}: {first['cpu']}, {first['cores']} cores, {first['threads']} threads; "
        f"torch {first['torch']}; commit {commit}.",
        f"Medians of {int(found['repetitions'].max())} interleaved repetitions; "
        f"{int(found['disturbed'].sum())} of {int((~rows['is_warmup'].astype(bool)).sum())} runs shared the machine.",
        f"Samples equal to their reference in {dtype_of(rows)}: {100 * equal.mean():.2f} %"
        + (
            f"; the largest gap between the best two values at a first mismatch is {found['largest_gap'].max():.2g}."
            if found["largest_gap"].notna().any()
            else "."
        ),
    ]
    return "\n".join(said)


def _training(row: pd.Series) -> str:
    """What is known of the training: a checkpoint that `save_arm` wrote by itself says nothing of it."""
    name, bits = row["dataset_name"], row["valid_bits_per_dim"]
    return ("" if pd.isna(name) else f", {name}") + ("" if pd.isna(bits) else f", {bits:.3f} bits/dim on validation")


def dtype_of(rows: pd.DataFrame) -> str:
    """Of the runs."""
    return str(rows["dtype"].iloc[0])


def front_table(found: pd.DataFrame, height: int) -> str:
    """The samplers of the figure, for the README: work at the reference width, ms a sample, and how much faster."""
    here = found[(found["height"] == height) & found["is_drawn"]]
    widths = sorted(here["width"].unique())
    heads = [f"{'batch or slots: ' if width == widths[0] else ''}{width}" for width in widths]
    body = [
        [
            name,
            _cell(part, REFERENCE_WIDTH, "work"),
            *(_cell(part, width, "ms") for width in widths),
            *(_times(part, width) for width in widths if width in (REFERENCE_WIDTH, 64)),
        ]
        for name, part in _each(here)
    ]
    faster = [f"faster, {width}" for width in widths if width in (REFERENCE_WIDTH, 64)]
    return markdown_rows(["ms a sample", f"full passes, {REFERENCE_WIDTH}", *heads, *faster], body)


def _times(part: pd.DataFrame, width: int) -> str:
    fast = part["over_paper"].get(width, np.nan)
    return "" if np.isnan(fast) else f"{_round(fast)}x"


def _by_width(found: pd.DataFrame, measure: str, axis: str) -> str:
    widths = sorted(found["width"].unique())
    body = [[name, *(_cell(part, width, measure) for width in widths)] for name, part in _each(found)]
    return f"## {axis[0].upper()}{axis[1:]}, by batch size or slots\n\n" + markdown_rows(
        ["sampler", *map(str, widths)], body
    )


def _ratios(found: pd.DataFrame) -> str:
    widths = sorted(found["width"].unique())
    body = [[name, *(_ratio(part, width) for width in widths)] for name, part in _each(found)]
    references = " / ".join(_as_reference(found, name) for name in (PAPER, ANCESTRAL))
    return (
        f"## Times faster a sample than {references}\n\n"
        "Medians of the ratios inside each repetition, in brackets their extremes.\n\n"
        + markdown_rows(["sampler", *map(str, widths)], body)
    )


def _by_height(found: pd.DataFrame, width: int, own: int) -> str:
    heights = sorted(found["height"].unique())
    body = []
    for name in dict.fromkeys(found.loc[found["height"] != found["height"].max(), "name"]):
        part = found[found["name"] == name].set_index("height")
        if set(heights) <= set(part.index):
            cells = [
                f"{part.at[h, 'calls']:.1f} / {part.at[h, 'work']:.2f} / {_round(part.at[h, 'ms'])}" for h in heights
            ]
            body.append([name, *cells])
    return (
        f"## ARM calls / full passes / ms a sample, by image height, at {width}\n\n"
        f"The weights, trained at a height of {own}, in an ARM of other heights.\n\n"
        + markdown_rows(["sampler", *map(str, heights)], body)
    )


def _each(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, part in found.groupby("name", sort=False):
        yield str(name), part.set_index("width")


def _cell(part: pd.DataFrame, width: int, measure: str) -> str:
    return _round(float(part.at[width, measure])) if width in part.index else "-"


def _ratio(part: pd.DataFrame, width: int) -> str:
    if width not in part.index:
        return "-"
    row = part.loc[width]
    cells = []
    for name in ("over_paper", "over_ancestral"):
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        cells.append("-" if np.isnan(row[name]) else f"{_round(row[name])} [{_round(low)}, {_round(high)}]")
    return " / ".join(cells)


def _round(value: float) -> str:
    """Three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _print(found: pd.DataFrame) -> None:
    widths = sorted(found["width"].unique())
    title = f"ms a sample (times faster than {_as_reference(found, PAPER)})"
    table = Table(title=title, title_justify="left")
    table.add_column("sampler")
    for width in widths:
        table.add_column(f"{width}", justify="right")
    for name, part in _each(found):
        cells = []
        for width in widths:
            fast = part["over_paper"].get(width, np.nan)
            cells.append(_cell(part, width, "ms") + ("" if np.isnan(fast) else f" ({fast:.3g}x)"))
        table.add_row(name, *cells)
    CONSOLE.print(table)
