"""Where results lie: Parquet parts, sweep records and the folders in which jobs keep their files.

    STORE/tables/<table>/<job>.parquet    one part a job and table, written whole or not at all
    STORE/sweeps/<sweep>[@<profile>].json the latest plan of a sweep
    STORE/jobs/<job>/                     checkpoint, progress and log of a job

All reading and writing of tables is in this module, the only importer of pyarrow (with the schemas), so that
another file system needs changes here alone. One process writes a store: the driver.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from arm_core.errors import InputError
from harness.store.schemas import DECIDING, SCHEMAS, Row, SchemaError, schema_of, to_arrow, version_of

T = TypeVar("T")

_PANDAS_TYPES = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(na_value=float("nan")),
}
"""A column has the same dtype whether or not a value is missing in it."""


class Ragged(NamedTuple):
    """A column of lists: all their values in one array, and how many of them each row has (none if it is null)."""

    values: np.ndarray
    lengths: np.ndarray


class Store:
    """The results of all sweeps under one folder.

    Example:
        >>> import tempfile
        >>> Store(tempfile.mkdtemp()).read("curves").empty
        True
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the store must be a folder, but {self.root} is a file; give another --store")

    def write_job(self, job: str, rows: Mapping[str, Sequence[Row]]) -> None:
        """Write everything that a job found out, replacing what an earlier run of it left.

        Every part is staged beside its place and synced before the first one is moved, and the part of the
        deciding table (trials or timings) is moved last: while it is there, all parts are of one run.

        Args:
            job: the job's id.
            rows: table -> rows; exactly one of the deciding tables, with at least one row.

        Raises:
            SchemaError: a row breaks its table's schema; nothing has been written then.
        """
        deciding = _deciding_table(job, rows)
        tables = {name: to_arrow(name, part) for name, part in rows.items() if len(part)}
        for name, table in tables.items():
            _check_owner(name, table, job)
        with _staged({self._part(name, job): table for name, table in tables.items()}) as staged:
            last = self._part(deciding, job)
            if len(tables) > 1:  # from here to the last move the job counts as not run
                last.unlink(missing_ok=True)
            for name in SCHEMAS.keys() - tables.keys():
                self._part(name, job).unlink(missing_ok=True)
            for place in sorted(staged, key=lambda place: place == last):
                os.replace(staged[place], place)
                _sync_folder(place.parent)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store as its only writer.

        Raises:
            InputError: another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another sweep is writing to the store {self.root}; wait, or give another --store"
                ) from None
            yield

    def read(
        self,
        table: str,
        *,
        jobs: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
        first: int | None = None,
        unreadable: dict[Path, str] | None = None,
    ) -> pd.DataFrame:
        """All rows of a table, in the order of the job ids.

        Args:
            table: one of the schemas' names.
            jobs: only the rows of these jobs; None reads all.
            columns: only these; None keeps all.
            first: only so many rows of each job, from the start; None reads all.
            unreadable: where parts that cannot be read are noted, with the reason; None makes them errors.

        Returns:
            A frame with exactly the columns of the schema, whatever version the parts have; integers and
            booleans have pandas' nullable dtypes.

        Raises:
            InputError: a part cannot be read, is not ours, or is of a newer version.
        """
        joined = self._joined(table, jobs, columns, first, unreadable)
        return cast(pd.DataFrame, joined.to_pandas(types_mapper=_PANDAS_TYPES.get))

    def read_ragged(
        self,
        table: str,
        columns: Sequence[str],
        lists: Sequence[str],
        *,
        jobs: Collection[str] | None = None,
        unreadable: dict[Path, str] | None = None,
    ) -> tuple[pd.DataFrame, list[Ragged]]:
        """Columns as `read` gives them, and columns of lists without an object a row, in one pass over the parts.

        Raises:
            InputError: as `read`.
        """
        joined = self._joined(table, jobs, [*columns, *lists], None, unreadable)
        frame = joined.select(list(columns)).to_pandas(types_mapper=_PANDAS_TYPES.get)
        return frame, [_ragged(joined[name]) for name in lists]

    def _joined(
        self,
        table: str,
        jobs: Collection[str] | None,
        columns: Sequence[str] | None,
        first: int | None,
        unreadable: dict[Path, str] | None,
    ) -> pa.Table:
        schema = schema_of(table)
        wanted = schema.names if columns is None else list(columns)

        def part_of(path: Path) -> pa.Table | None:
            try:
                return _read_part(path, schema, wanted, first)
            except InputError as error:
                if unreadable is None:
                    raise
                unreadable[path] = str(error)
                return None

        paths = [path for path in self._parts(table) if jobs is None or path.stem in jobs]
        with ThreadPoolExecutor() as pool:  # decoding leaves Python alone, so the parts are read side by side
            parts = [part for part in pool.map(part_of, paths) if part is not None]
        if parts:
            return pa.concat_tables(parts)
        fields = [schema.field(name) for name in wanted]
        return pa.table([pa.array([], field.type) for field in fields], schema=pa.schema(fields))

    def parts(self) -> set[str]:
        """The ids of the complete jobs, whatever came of them; opens no file."""
        return {path.stem for table in DECIDING for path in self._parts(table)}

    def outcomes(self) -> dict[str, str]:
        """The complete jobs: id -> "done", "stopped" or "failed" ("failed" if any of its rows is)."""
        found = {}
        for table in DECIDING:
            for path in self._parts(table):
                statuses = _open(path, lambda path: pq.read_table(path, columns=["status"]))
                values = statuses["status"].to_pylist()
                found[path.stem] = next((state for state in ("failed", "stopped") if state in values), "done")
        return found

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        """Keep the plan of a sweep (of each of its profiles), replacing its earlier plan."""
        name = record["sweep"] if record.get("profile") is None else f"{record['sweep']}@{record['profile']}"
        place = self.root / "sweeps" / f"{_safe(name)}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        with _temporary(place, lambda temporary: temporary.write_text(text, encoding="utf-8")) as temporary:
            os.replace(temporary, place)
        _sync_folder(place.parent)

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """The latest plans: "quickstart" or, for a profile, "quickstart@laptop" -> its record."""
        found = {}
        for path in sorted((self.root / "sweeps").glob("*.json")):
            try:
                found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise InputError(f"{path} is not JSON; delete it and run the sweep again") from None
        return found

    def job_dir(self, job: str) -> Path:
        """The folder in which a job keeps checkpoint, progress and log; made if it is missing."""
        folder = self.root / "jobs" / _safe(job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _part(self, table: str, job: str) -> Path:
        return self.root / "tables" / table / f"{_safe(job)}.parquet"

    def _parts(self, table: str) -> list[Path]:
        return sorted((self.root / "tables" / table).glob("[!.]*.parquet"))


def _ragged(chunked: pa.ChunkedArray) -> Ragged:
    lengths = chunked.combine_chunks().value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunked.chunks]
    return Ragged(np.concatenate(values), lengths)


def _safe(name: str) -> str:
    """The name itself, if it stays in its folder as a file name."""
    if not re.fullmatch(r"\w[\w@-]*", name, flags=re.ASCII):
        raise InputError(f"a job or sweep is named with letters, digits, '_', '-' and '@', got {name!r}")
    return name


def _deciding_table(job: str, rows: Mapping[str, Sequence[Row]]) -> str:
    given = [table for table in DECIDING if rows.get(table)]
    if len(given) != 1:
        raise SchemaError(f"job {job} must write rows of exactly one of {', '.join(DECIDING)}, got {list(rows)}")
    return given[0]


def _check_owner(name: str, table: pa.Table, job: str) -> None:
    for owner in table["job"].to_pylist():
        if owner != job:
            raise SchemaError(f"{name}.job must be {job!r}, the job that writes it, got {owner!r}")


@contextmanager
def _staged(tables: Mapping[Path, pa.Table]) -> Iterator[dict[Path, Path]]:
    """Final place -> synced temporary file beside it; what has not been moved at the end is removed."""
    staged: dict[Path, Path] = {}
    try:
        for place, table in tables.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            staged[place] = _write_beside(place, partial(pq.write_table, table))
        yield staged
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def _temporary(place: Path, write: Callable[[Path], object]) -> Iterator[Path]:
    temporary = _write_beside(place, write)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_beside(place: Path, write: Callable[[Path], object]) -> Path:
    """A synced temporary file in the folder of `place`, so that moving it there is atomic."""
    handle, name = tempfile.mkstemp(prefix=f".{place.stem}-", suffix=".tmp", dir=place.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's files are private to their maker
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, not the contents alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); delete it and run the sweep again") from None


def _read_part(path: Path, schema: pa.Schema, names: Sequence[str], first: int | None) -> pa.Table:
    """Columns of a part as a table of the present schema: those that are younger than the part are null."""
    with _open(path, pq.ParquetFile) as file:
        written = file.schema_arrow
        metadata = written.metadata or {}
        if metadata.get(b"table") != schema.metadata[b"table"] or not metadata.get(b"version", b"").isdigit():
            raise InputError(f"{path} is not a part of a results table; move it out of the store")
        version, known = version_of(written), version_of(schema)
        if version > known:
            raise InputError(
                f"{path} has version {version} of its table, and this package knows version {known}; "
                "update the package or give another --store"
            )
        known_names = set(written.names)  # pyarrow lists them anew whenever it is asked
        for field in schema:
            if field.name not in known_names and not field.nullable:
                raise InputError(f"{path} has no column {field.name!r}; delete it and run the sweep again")
        present = [name for name in names if name in known_names]
        part = _open(path, lambda _: _rows(file, present, first))
    fields = [schema.field(name) for name in names]
    found = dict(zip(part.column_names, part.columns, strict=True))
    columns = [_column(path, found.get(field.name), len(part), field) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _rows(file: pq.ParquetFile, columns: list[str], first: int | None) -> pa.Table:
    if first is None:
        return file.read(columns=columns)
    for batch in file.iter_batches(batch_size=first, columns=columns):
        return pa.Table.from_batches([batch])
    return file.read(columns=columns)  # there are no rows


def _column(path: Path, column: pa.ChunkedArray | None, rows: int, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if column is None:
        return pa.nulls(rows, field.type)
    return column if column.type == field.type else _open(path, lambda _: column.cast(field.type))
