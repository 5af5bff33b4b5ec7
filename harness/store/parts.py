"""A table of one job as Parquet bytes, and back as a table of the present schema."""

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from arm_core.errors import InputError
from harness.store.schemas import version_of

T = TypeVar("T")
MEND = "delete the folder of its job and run the sweep again"


def encode(table: pa.Table) -> bytes:
    """A table of one of our schemas as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def decode(name: str, data: bytes, schema: pa.Schema, columns: Sequence[str], first: int | None = None) -> pa.Table:
    """Columns of a part as a table of the present schema: those that are younger than the part are null.

    Args:
        name: of the part, for errors.
        data: from `encode`, of this version or an earlier one.
        schema: of the table.
        columns: those wanted.
        first: only so many rows, from the start; None: all.

    Raises:
        InputError: it cannot be read, is not ours, or is of a newer version.
    """
    with _named(name, lambda: pq.ParquetFile(pa.BufferReader(data))) as file:
        written = _named(name, lambda: file.schema_arrow)
        _check(name, written, schema)
        known = set(written.names)  # pyarrow lists them anew whenever it is asked
        for field in schema:
            if field.name not in known and not field.nullable:
                raise InputError(f"{name} has no column {field.name!r}; {MEND}")
        part = _named(name, lambda: _rows(file, [column for column in columns if column in known], first))
    fields = [schema.field(column) for column in columns]
    found = dict(zip(part.column_names, part.columns, strict=True))
    read = [_column(name, found.get(field.name), len(part), field) for field in fields]
    return pa.Table.from_arrays(read, schema=pa.schema(fields))


def _check(name: str, written: pa.Schema, schema: pa.Schema) -> None:
    """Refuse what is not a part of this table, or of a newer version of it."""
    metadata = written.metadata or {}
    version = metadata.get(b"version", b"")
    if metadata.get(b"table") != schema.metadata[b"table"] or not version.isdigit():
        raise InputError(f"{name} is not a part of a results table; {MEND}")
    if int(version) > version_of(schema):
        raise InputError(
            f"{name} has version {int(version)} of its table, and this package knows version {version_of(schema)}; "
            "update the package or give another --store"
        )


def _rows(file: pq.ParquetFile, columns: list[str], first: int | None) -> pa.Table:
    if first is None:
        return file.read(columns=columns)
    for batch in file.iter_batches(batch_size=first, columns=columns):
        return pa.Table.from_batches([batch])
    return file.read(columns=columns)  # there are no rows


def _column(name: str, column: pa.ChunkedArray | None, rows: int, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if column is None:
        return pa.nulls(rows, field.type)
    return column if column.type == field.type else _named(name, lambda: column.cast(field.type))


def _named(name: str, read: Callable[[], T]) -> T:
    """What `read` gives; its errors as one of ours."""
    try:
        return read()
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} cannot be read ({reason}); {MEND}") from None
