"""Published numbers from a user's file, to stand beside the measured ones. None comes with this package.

A CSV file with the columns dataset, quantity, value, and where they apply variant, sampler, batch_size, std and source:

    dataset,sampler,batch_size,quantity,value,std,source
    binary_mnist,fixed point,1,calls_percent,VALUE,STD,"Table 1"
    binary_mnist,,,bits_per_dim,VALUE,,"Table 1"

`dataset` and `sampler` are what the report calls them. Quantities of a sampler: calls_percent, work, seconds, speedup;
of a model (no sampler): bits_per_dim, mse.
"""

from pathlib import Path

import pandas as pd

from arm_core.errors import InputError
from arm_core.registry import suggest
from harness.report.statistics import MEASURES

OF_MODELS = ("bits_per_dim", "mse")
_COLUMNS = ["dataset", "variant", "sampler", "batch_size", "quantity", "value", "std", "source"]


def load_references(file: Path) -> pd.DataFrame:
    """The published numbers of a file, with all of `_COLUMNS`; value and std as numbers.

    Raises:
        InputError: the file cannot be read, or a row does not fit; with its line.
    """
    try:
        frame = pd.read_csv(file, dtype=str, skipinitialspace=True)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{file} cannot be read as CSV ({str(error).splitlines()[0]})") from None
    for name in frame.columns:
        if name not in _COLUMNS:
            raise suggest(f"column in {file}", str(name), _COLUMNS)
    for name in ("dataset", "quantity", "value"):
        if name not in frame:
            raise InputError(f"{file} has no column {name!r}; it needs dataset, quantity and value")
    frame = frame.reindex(columns=_COLUMNS)
    for index, row in frame.iterrows():
        _check(f"{file}, line {int(str(index)) + 2}", row)
    frame["value"], frame["std"] = frame["value"].astype(float), frame["std"].astype(float)
    frame["batch_size"] = frame["batch_size"].astype(float)
    return frame


def _check(place: str, row: pd.Series) -> None:
    quantities = [*MEASURES, *OF_MODELS]
    if row["quantity"] not in quantities:
        raise InputError(f"{place}: {suggest('quantity', str(row['quantity']), quantities)}")
    for name in ("value", "std", "batch_size"):
        try:
            float(row[name])
        except ValueError:
            raise InputError(f"{place}: {name} must be a number, got {row[name]!r}") from None
    if pd.isna(row["dataset"]) or pd.isna(row["value"]):
        raise InputError(f"{place}: dataset and value must not be empty")
    if row["quantity"] in MEASURES and (pd.isna(row["sampler"]) or pd.isna(row["batch_size"])):
        raise InputError(f"{place}: {row['quantity']} is of a sampler; give sampler and batch_size")


def published(references: pd.DataFrame, quantity: str, row: pd.Series) -> tuple[float, float] | None:
    """(value, std) that the file gives for a row of a table; None if it gives none."""
    found = references[(references["dataset"] == row["dataset"]) & (references["quantity"] == quantity)]
    found = found[found["variant"].isna() | (found["variant"] == row["variant"])]
    if quantity in MEASURES:
        found = found[(found["sampler"] == row["sampler"]) & (found["batch_size"] == row["batch_size"])]
    return None if found.empty else (float(found["value"].iloc[0]), float(found["std"].iloc[0]))


def unmatched(references: pd.DataFrame, speedup: pd.DataFrame, models: pd.DataFrame) -> list[str]:
    """A sentence for every published number that stands beside no row."""
    said = []
    for _, given in references.iterrows():
        rows = models if given["quantity"] in OF_MODELS else speedup
        same = rows["dataset"] == given["dataset"]
        for name in ("variant", "sampler", "batch_size"):
            if name in rows and pd.notna(given[name]):
                same &= rows[name] == given[name]
        if not same.any():
            what = " ".join(str(part) for part in (given["dataset"], given["sampler"]) if isinstance(part, str))
            said.append(f"The published {given['quantity']} of {what} stands beside no row of this report.")
    return said
