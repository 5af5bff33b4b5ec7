"""The rows that a job found out, kept in its folder until the driver puts them into the tables.

A job writes them last and atomically, so their presence means that it came to its end. The driver may die in between:
the next one finds them here.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # status reads rows, and answers without torch
    from arm_core.data import Dataset

DATA = ("dataset_name", "dataset_variant", "dataset_status", "dataset_sha256")
"""The columns that every result row has: which data it is about, and what they may be compared with."""

Rows = dict[str, list[dict[str, Any]]]
FILE = "rows.json"


def data_columns(dataset: "Dataset") -> dict[str, str]:
    """`DATA`, of a dataset."""
    return dict(zip(DATA, (dataset.name, dataset.variant, dataset.status, dataset.sha256), strict=True))


def write_rows(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write table -> rows; values are JSON values, bytes or times."""
    temporary = folder / f".{FILE}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(rows, file, default=_encode)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / FILE)


def read_rows(folder: Path) -> Rows | None:
    """What `write_rows` wrote; None if the job has not come to its end."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    return json.loads(text, object_hook=_decode)


def clear_rows(folder: Path) -> None:
    """Forget what an earlier run of the job wrote."""
    (folder / FILE).unlink(missing_ok=True)


def status_of(rows: Rows) -> str:
    """ "done", or "failed" or "stopped" if any row is."""
    decided = [row["status"] for part in rows.values() for row in part if "status" in row]
    return next((status for status in ("failed", "stopped") if status in decided), "done")


def _encode(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    raise TypeError(f"rows hold JSON values, bytes and times, got {type(value).__name__}")


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() == {"$bytes"}:
        return base64.b64decode(value["$bytes"])
    if value.keys() == {"$time"}:
        return datetime.fromisoformat(value["$time"])
    return value
