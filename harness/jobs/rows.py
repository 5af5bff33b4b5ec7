"""The rows that a job finds out: table -> rows."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # who watches jobs answers without torch
    from arm_core.data import Dataset

DATA = ("dataset_name", "dataset_variant", "dataset_status", "dataset_sha256")
"""The columns that every result row has: which data it is about, and what they may be compared with."""

Rows = dict[str, list[dict[str, Any]]]


def data_columns(dataset: "Dataset") -> dict[str, str]:
    """`DATA`, of a dataset."""
    return dict(zip(DATA, (dataset.name, dataset.variant, dataset.status, dataset.sha256), strict=True))
