"""A part of a table as bytes: Parquet that carries the sha256 of the rest of itself, so that no damage is read as data.

Parquet checks neither its footer nor, unless told, its pages: a flipped bit may be another number, or a column that is
not there. The digest stands in the footer under `seal`, and is taken with zeros in its place.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from arm_core.errors import InputError
from harness.store.schemas import SEALED_SINCE, version_of

T = TypeVar("T")
SEAL = b"seal"
_BLANK = b"0" * 64


def encode(table: pa.Table) -> bytes:
    """A table of one of our schemas as a sealed part."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({SEAL.decode(): _BLANK.decode()})
    data = buffer.getvalue()
    place = data.rindex(_BLANK)
    return data[:place] + hashlib.sha256(data).hexdigest().encode() + data[place + len(_BLANK) :]


def decode(name: str, data: bytes, schema: pa.Schema, columns: Sequence[str], first: int | None = None) -> pa.Table:
    """Columns of a part as a table of the present schema: those that are younger than the part are null.

    Args:
        name: of the part, for errors.
        data: from `encode`, now or in an earlier version.
        schema: of the table.
        columns: those wanted.
        first: only so many rows, from the start; None: all.

    Raises:
        InputError: it is damaged, not ours, or of a newer version.
    """
    with _told(name, lambda: pq.ParquetFile(pa.BufferReader(data))) as file:
        written, kept = _told(name, lambda: (file.schema_arrow, file.metadata.metadata or {}))
        _check(name, data, written, kept.get(SEAL), schema)
        known = set(written.names)  # pyarrow lists them anew whenever it is asked
        for field in schema:
            if field.name not in known and not field.nullable:
                raise InputError(f"{name} has no column {field.name!r}; delete it and run the sweep again")
        present = [column for column in columns if column in known]
        part = _told(name, lambda: _rows(file, present, first))
    fields = [schema.field(column) for column in columns]
    found = dict(zip(part.column_names, part.columns, strict=True))
    read = [_column(name, found.get(field.name), len(part), field) for field in fields]
    return pa.Table.from_arrays(read, schema=pa.schema(fields))


def _check(name: str, data: bytes, written: pa.Schema, seal: bytes | None, schema: pa.Schema) -> None:
    """Refuse what is not a part of this table, is of a newer version, or differs from what was written."""
    metadata = written.metadata or {}
    version = metadata.get(b"version", b"")
    if metadata.get(b"table") != schema.metadata[b"table"] or not version.isdigit():
        raise InputError(f"{name} is not a part of a results table; move it out of the store")
    if int(version) > version_of(schema):
        raise InputError(
            f"{name} has version {int(version)} of its table, and this package knows version {version_of(schema)}; "
            "update the package or give another --store"
        )
    if seal is None and int(version) < SEALED_SINCE[schema.metadata[b"table"].decode()]:
        return
    place = data.rfind(seal) if seal else -1
    blank = data[:place] + _BLANK + data[place + len(_BLANK) :]
    if place < 0 or hashlib.sha256(blank).hexdigest().encode() != seal:
        raise _damaged(name, "its content differs from what was written")


def _rows(file: pq.ParquetFile, columns: list[str], first: int | None) -> pa.Table:
    if first is None:
        return file.read(columns=columns)
    for batch in file.iter_batches(batch_size=first, columns=columns):
        return pa.Table.from_batches([batch])
    return file.read(columns=columns)  # there are no rows


def _column(name: str, column: pa.ChunkedArray | None, rows: int, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if column is None:
        return pa.nulls(rows, field.type)
    return column if column.type == field.type else _told(name, lambda: column.cast(field.type))


def _told(name: str, read: Callable[[], T]) -> T:
    """What `read` gives; its errors as one of ours."""
    try:
        return read()
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        raise _damaged(name, str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _damaged(name: str, reason: str) -> InputError:
    return InputError(f"{name} cannot be read ({reason}); delete it and run the sweep again")
