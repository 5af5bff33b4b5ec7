"""Rows: what a run has found, one line of JSON each, on the disk as soon as they are known.

A run that is cut off leaves all rows but the one that it was writing. Tables and ratios are made from the lines, on
reading. This module knows the columns and their units, and nothing of what is measured.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

LINES = "rows.jsonl"
Row = dict[str, Any]

COLUMNS: dict[str, tuple[type, str]] = {
    "question": (str, "which of the questions of docs/gpu.md it belongs to"),
    "item": (str, "the part of the run that found it"),
    "kind": (str, "timed, once, set-up, warm-up, extrapolated, checked, fact, skipped, failed or not there"),
    "at_s": (float, "seconds since the run began"),
    "model": (str, "the ARM"),
    "trained": (bool, "whether its weights are trained; calls of untrained weights say little of trained ones"),
    "size": (str, "height x width x channels x categories"),
    "dtype": (str, "of the weights"),
    "what": (str, "the sampler, the call or the fact"),
    "mode": (str, "how a span is evaluated: compact, fixed or recorded"),
    "window": (float, "dims that a call evaluates of each sample; none where it is chosen while sampling"),
    "slots": (float, "samples in work at a time, or the batch"),
    "samples": (float, "finished samples that the row's seconds, calls, work and joules are those of"),
    "repetition": (float, "from 0, warm-ups apart"),
    "seconds": (float, "on the device, between two events around all of it"),
    "host_s": (float, "by the clock of the host, until the device had finished"),
    "calls": (float, "calls of the ARM a sample, mean; or how many calls were timed"),
    "work": (float, "full passes a sample, mean"),
    "peak_mem_bytes": (float, "most that was allocated on the device; of samplers: beyond what there was before"),
    "joules": (float, "that the device used meanwhile, by NVML"),
    "held": (bool, "whether what was promised is so"),
    "share": (float, "of what `what` says, in [0, 1]"),
    "amount": (float, "of what `what` says, in `unit`"),
    "unit": (str, "of the amount"),
    "note": (str, "what else to know"),
    "error": (str, "the text of an exception"),
}


class RowFile:
    """Appends rows to a file of lines; each is on the disk when `write` returns.

    Args:
        folder: made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LINES).open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; keys must be columns, values that are not there are left out.

        Raises:
            KeyError: a key is no column.
        """
        if unknown := sorted(set(row) - set(COLUMNS)):
            raise KeyError(f"no columns: {unknown}; they are {', '.join(COLUMNS)}")
        kept = {key: _plain(value) for key, value in row.items()}
        self._file.write(json.dumps({key: value for key, value in kept.items() if value is not None}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_rows(folder: Path) -> list[Row]:
    """All rows of a run, in their order; lines that were cut off are left out."""
    place = folder / LINES
    return list(_parsed(place.read_text(encoding="utf-8"))) if place.exists() else []


def frame_of(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table with every column, in the order of `COLUMNS`."""
    kinds = {str: "string", float: "Float64", bool: "boolean"}
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype=kinds[kind]) for name, (kind, _) in COLUMNS.items()
    }
    return pd.DataFrame(columns)


def _parsed(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        yield row


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
