"""A table of one job as Parquet bytes, and back as a table of the present schema."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from arm_core.errors import InputError
from harness.store.schemas import version_of

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
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            written = set(file.schema_arrow.names)
            _check(name, file.schema_arrow, schema)
            if missing := [field.name for field in schema if field.name not in written and not field.nullable]:
                raise InputError(f"{name} has no column {missing[0]!r}; {MEND}")
            known = [column for column in columns if column in written]
            few = None if first is None else next(file.iter_batches(batch_size=first, columns=known), None)
            part = file.read(columns=known) if few is None else pa.Table.from_batches([few])
        fields = [schema.field(column) for column in columns]
        read = [
            part[field.name].cast(field.type) if field.name in written else pa.nulls(len(part), field.type)
            for field in fields
        ]
        return pa.Table.from_arrays(read, schema=pa.schema(fields))
    except InputError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} cannot be read ({reason}); {MEND}") from None


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
