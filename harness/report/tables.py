"""The tables in the paper's shape: Table 1 (images), 2 (latents), 3 (ablations), each once for every kind of data.

A table is blocks, a block is a dataset with the quality of its models and a row for every sampler and width. What the
cells look like in Markdown or LaTeX is the matter of `formats`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.report.comparable import BLOCK
from harness.report.references import published
from harness.report.statistics import GROUP, MEASURES, RATIOS

DASH = "–"  # noqa: RUF001 what a table shows for a number that does not exist
KINDS = {
    "explicit": ("table1", "Table 1", "ARMs of images"),
    "latent": ("table2", "Table 2", "ARMs of latents"),
    "ablation": ("table3", "Table 3", "Ablations"),
}
STATUSES = {
    "official": "official data",
    "unverified": "unverified data",
    "sample": "sample data, not the official sets",
    "unknown": "data of unknown origin",
}
EXACT = ("same sample", "law", "NO")
"""Every sample is that of ancestral sampling; samples have its distribution and are others; neither."""
UNITS = {
    "calls_percent": "ARM calls (%)",
    "dims_per_call": "dims a call",
    "work": "full passes",
    "seconds": "ms a sample",
}
UNITS |= {"speedup": "over ancestral", "over_paper": "over the paper's"}


class Cell(NamedTuple):
    """What a cell says: text, its 95 % interval if there is one, and the number that it sorts by."""

    text: str
    interval: str = ""
    value: float | str = ""


@dataclass(frozen=True)
class Block:
    """One dataset of a table: heading, a sentence on its models, rows; a sentence for each of several variants."""

    title: str
    about: str
    rows: list[list[Cell]]
    variants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table: `name` is its file's, `frame` the numbers behind the cells, `models` those of the trainings."""

    name: str
    title: str
    headings: list[str]
    blocks: list[Block]
    frame: pd.DataFrame
    models: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def models(trials: pd.DataFrame, autoencoders: pd.DataFrame) -> pd.DataFrame:
    """A row for every dataset and variant: how good its models are, mean and standard deviation over the trainings.

    Returns:
        Columns: those of `GROUP`, kind, data_status, data, trainings, train/valid/test bits/dim with `_std`,
        gap_bits_per_dim (validation minus training, both without dropout), mse (of the autoencoder, test split),
        codebook_perplexity, iterations, kept, parameters, query.
    """
    found = []
    for key, group in trials.groupby(["kind", "data_status", *GROUP], dropna=False, sort=False):
        first = group.iloc[0]
        row = dict(zip(["kind", "data_status", *GROUP], key, strict=True))
        row |= {"data": f"{first['dataset_name']} {first['dataset_variant']}", "trainings": len(group)}
        for name in ("train", "valid", "test"):
            column = group[f"{name}_bits_per_dim"].astype(float)
            row |= {f"{name}_bits_per_dim": column.mean(), f"{name}_bits_per_dim_std": column.std()}
        gap = group["valid_bits_per_dim"].astype(float) - group["train_eval_bits_per_dim"].astype(float)
        encoders = autoencoders[autoencoders["job"].isin(group["autoencoder_job"].dropna())]
        shape = [first[name] for name in ("channels", "height", "width")]
        row |= {
            "gap_bits_per_dim": gap.mean(),
            "mse": encoders["test_mse"].astype(float).mean(),
            "codebook_perplexity": encoders["codebook_perplexity"].astype(float).mean(),
            "shape": "x".join(str(size) for size in shape),
            "categories": first["categories"],
            "iterations": first["iterations"],
            "kept": first["kept"],
            "parameters": first["parameters"],
            "query": f"job in {sorted(group['job'])!r}",
        }
        found.append(row)
    return pd.DataFrame(found) if found else pd.DataFrame(columns=["kind", "data_status", *GROUP, "data", "query"])


def paper_tables(speedup: pd.DataFrame, models: pd.DataFrame, references: pd.DataFrame | None) -> list[Table]:
    """Tables 1 to 3, one for each kind of data, of what the rows suffice for.

    Args:
        speedup: from `statistics.speedup`.
        models: from `models`.
        references: from `references.load_references`.
    """
    made = []
    for kind, (name, number, what) in KINDS.items():
        both = pd.concat([part[part["kind"] == kind]["data_status"] for part in (speedup, models)])
        for status in sorted(set(both), key=[*STATUSES].index):
            rows, of = (part[(part["kind"] == kind) & (part["data_status"] == status)] for part in (speedup, models))
            columns = _published_columns(rows, references)
            energy = ["J a sample"] if rows["joules"].notna().any() else []
            headings = ["sampler", "batch", "samples", *UNITS.values(), "peak MiB", *energy, "exact"]
            headings += [f"published {UNITS[quantity]}" for quantity in columns]
            if kind == "ablation":
                headings.insert(0, "variant")
            blocks = [_block(key, part, of, references, columns, headings) for key, part in _blocks(rows, of)]
            notes = ["The published numbers are of other data."] if columns and status != "official" else []
            title = f"{number}: {what} ({STATUSES[status]})"
            made.append(Table(f"{name}-{status}", title, headings, blocks, rows, of, notes))
    return made


def _blocks(rows: pd.DataFrame, of: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    """A dataset at a time; those that were trained but not timed too."""
    for _, key in pd.concat([rows[BLOCK], of[BLOCK]]).drop_duplicates().iterrows():
        yield key, rows[_same(rows, key)]


def _same(rows: pd.DataFrame, key: pd.Series) -> pd.Series:
    same = pd.Series(True, rows.index)
    for name in BLOCK:
        same &= rows[name].isna() if pd.isna(key[name]) else rows[name] == key[name]
    return same


def _block(
    key: pd.Series,
    rows: pd.DataFrame,
    of: pd.DataFrame,
    references: pd.DataFrame | None,
    columns: Sequence[str],
    headings: Sequence[str],
) -> Block:
    trained = of[_same(of, key)]
    alone = len(trained) == 1
    sentences = {row["variant"]: about(row, references, with_data=alone) for _, row in trained.iterrows()}
    first = "" if trained.empty else next(iter(sentences.values())) if alone else f"{_data(trained.iloc[0])}."
    title = str(key["dataset"]) if pd.isna(key["profile"]) else f"{key['dataset']} ({key['profile']})"
    cells = [_cells(row, references, columns, headings) for _, row in rows.iterrows()]
    return Block(title, first, cells, {} if alone else sentences)


def about(model: pd.Series, references: pd.DataFrame | None = None, *, with_data: bool = True) -> str:
    """How good the models of a variant are: a sentence that starts with the data, or else with the variant."""
    many = f", mean of {model.trainings} trainings" if model.trainings > 1 else ""
    bits = with_std(model.test_bits_per_dim, model.test_bits_per_dim_std, 3)
    text = f"{_data(model) if with_data else model['variant']}: "
    if pd.notna(model.mse):
        text += f"autoencoder MSE {model.mse:.4f}, latents "
    text += f"{bits} bits/dim on the test split{many}"
    for quantity, unit in (("bits_per_dim", "bits/dim"), ("mse", "MSE")):
        if references is not None and (found := published(references, quantity, model)) is not None:
            text += f" (published: {found[0]:g} {unit})"
    return text + "."


def _data(model: pd.Series) -> str:
    return f"{model['data']}, {model['shape']}, {model['categories']} categories"


def _published_columns(rows: pd.DataFrame, references: pd.DataFrame | None) -> list[str]:
    if references is None:
        return []
    named = references[references["dataset"].isin(rows["dataset"])]
    return [quantity for quantity in MEASURES if (named["quantity"] == quantity).any()]


def _cells(
    row: pd.Series, references: pd.DataFrame | None, columns: Sequence[str], headings: Sequence[str]
) -> list[Cell]:
    variant = [Cell(row["variant"], value=row["variant"])] if "variant" in headings else []
    exact = EXACT[1 if row["in_law"] else 0 if row["equal"] else 2]
    memory = row["peak_mem_bytes"] / 2**20
    cells = [
        *variant,
        Cell(row["sampler"], value=row["sampler"]),
        Cell(str(row["batch_size"]), value=row["batch_size"]),
        Cell(str(row["samples"]), value=row["samples"]),
    ]
    cells += [measured(row, name) for name in MEASURES]
    proof = "" if pd.isna(row["repaired"]) else f"{row['repaired']:.1%} repaired"
    cells += [Cell(DASH) if pd.isna(memory) else Cell(f"{memory:.0f}", value=memory)]
    cells += [measured(row, "joules")] if "J a sample" in headings else []
    cells += [Cell(exact, proof, exact)]
    for quantity in columns:
        found = published(references, quantity, row) if references is not None else None
        if found is not None and quantity == "seconds":  # papers give those of a batch
            found = (1000 * found[0] / row["batch_size"], 1000 * found[1] / row["batch_size"])
        cells.append(Cell(DASH) if found is None else Cell(with_std(*found, _digits(found[0])), "", found[0]))
    return cells


def measured(row: pd.Series, name: str) -> Cell:
    """The cell of one of `MEASURES`; no spread where there are too few repetitions for an interval."""
    scale = 1000 if name == "seconds" else 1
    mean, std, low, high = (scale * float(row.get(f"{name}{end}", np.nan)) for end in ("", "_std", "_low", "_high"))
    if np.isnan(mean):
        return Cell(DASH)
    digits, unit = _digits(mean), "x" if name in RATIOS else ""
    known = not np.isnan(low) and low < high  # ancestral sampling is what the others are compared with
    interval = f"{low:.{digits}f}, {high:.{digits}f}" if known else ""
    return Cell(with_std(mean, std if known else np.nan, digits, unit), interval, mean)


def _digits(value: float) -> int:
    """As many as three figures take."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def with_std(mean: float, std: float, digits: int, unit: str = "") -> str:
    """mean ± std; the mean alone where there is no std; a dash without a mean."""
    if pd.isna(mean):
        return DASH
    text = f"{mean:.{digits}f}{unit}"
    return text if pd.isna(std) else f"{text} ± {std:.{digits}f}"


def title(key: Sequence[object]) -> str:
    """The heading of one group of `GROUP`: dataset, and variant and profile where they say something."""
    _, profile, dataset, variant = key
    extra = [str(part) for part in (None if variant == "default" else variant, profile) if pd.notna(part) and part]
    return f"{dataset} ({', '.join(extra)})" if extra else str(dataset)
