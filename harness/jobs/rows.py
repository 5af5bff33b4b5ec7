"""The rows that a job found out, kept in its folder until the driver puts them into the tables.

A job writes them last and atomically, so that they are there means that it came to its end. The driver may die in
between: the next one finds them here. Their first line is a sha256 of the job and of what follows.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arm_core.atomic import write_atomic

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
    body = json.dumps(rows, default=_encode).encode()
    write_atomic(folder / FILE, _seal(folder, body) + b"\n" + body)


def read_rows(folder: Path) -> Rows | None:
    """What `write_rows` wrote; None if the job has not come to its end, or its file is damaged: it runs again."""
    try:
        seal, _, body = (folder / FILE).read_bytes().partition(b"\n")
    except OSError:
        return None
    return json.loads(body, object_hook=_decode) if seal == _seal(folder, body) else None


def _seal(folder: Path, body: bytes) -> bytes:
    """A folder is named by its job, and the rows of another one do not count."""
    return hashlib.sha256(folder.name.encode() + body).hexdigest().encode()


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
