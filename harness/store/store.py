"""Where results lie: Parquet parts, sweep records and the folders in which jobs keep their files.

    STORE/tables/<table>/<job>.parquet    one part a job and table, written whole or not at all
    STORE/packs/                          the parts of many jobs in one file, see `Store.compact`
    STORE/sweeps/<sweep>[@<profile>].json the latest plan of a sweep
    STORE/jobs/<job>/                     checkpoint, progress and log of a job

Tables and records may lie on any file system that pyarrow knows (`s3://bucket/runs`), the folders of jobs are always
in a folder. What a part is made of is the matter of `harness.store.parts`. One process writes a store: the driver.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from arm_core.errors import InputError
from harness.store import checkpoints
from harness.store.files import ArrowFiles, Files, LocalFiles, is_uri, shown
from harness.store.packs import PackedFiles
from harness.store.parts import decode, encode
from harness.store.schemas import DECIDING, SCHEMAS, Row, SchemaError, schema_of, to_arrow
from harness.store.writer import lock, note

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


def _free() -> None:
    """Nobody else can have taken over a store that is a folder: it is locked."""


class Store:
    """The results of all sweeps under one folder.

    Example:
        >>> import tempfile
        >>> Store(tempfile.mkdtemp()).read("curves").empty
        True
    """

    def __init__(self, root: str | Path, *, work: str | Path | None = None) -> None:
        """Open a store.

        Args:
            root: a folder, or the URI of a place that pyarrow knows, such as s3://bucket/runs.
            work: for a URI the folder in which jobs work; None: one named after it under `runs`.

        Raises:
            InputError: the root is a file, or a folder with another one to work in.
        """
        self.place = shown(str(root)) if is_uri(root) else str(root)
        self._outside = is_uri(root)
        if work is not None and not self._outside and Path(work) != Path(root):
            raise InputError(f"--work is for a store that is no folder; jobs work in {root} itself: leave --work out")
        files: Files
        if self._outside:
            self.root = Path(work if work is not None else Path("runs") / re.sub(r"[^\w.-]+", "-", shown(str(root))))
            files = ArrowFiles(str(root))
        else:
            self.root = Path(root)
            files = LocalFiles(self.root)
        self.files = PackedFiles(files)
        self._check: Callable[[], None] = _free
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the store must be a folder, but {self.root} is a file; give another --store")

    def exists(self) -> bool:
        """Whether there is such a folder; a place that is none is there as soon as something is written."""
        return self._outside or Path(self.place).exists()

    def write_job(self, job: str, rows: Mapping[str, Sequence[Row]]) -> None:
        """Write everything that a job found out, replacing what an earlier run of it left.

        The part of the deciding table (trials or timings) goes first when there are others, and comes last: while it
        is there, all parts are of one run.

        Args:
            job: the job's id.
            rows: table -> rows; exactly one of the deciding tables, with at least one row.

        Raises:
            SchemaError: a row breaks its table's schema; nothing has been written then.
            InputError: another process has taken over the store; nothing has been written then.
        """
        self._check()
        deciding = _deciding_table(job, rows)
        tables = {name: to_arrow(name, part) for name, part in rows.items() if len(part)}
        for name, table in tables.items():
            _check_owner(name, table, job)
        parts = {name: encode(table) for name, table in tables.items()}
        if len(parts) > 1:  # from here to the last write the job counts as not run
            self.files.remove(_part(deciding, job))
        for name in SCHEMAS.keys() - parts.keys():
            self.files.remove(_part(name, job))
        for name in sorted(parts, key=lambda name: name == deciding):
            self.files.write(_part(name, job), parts[name])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store as its only writer.

        Raises:
            InputError: another process holds it.
        """
        noted = note(self.files, self.place) if self._outside else nullcontext(_free)
        with lock(self.root, self.place), noted as check:
            self._check = check
            try:
                yield
            finally:
                self._check = _free

    def keep_checkpoint(self, job: str, folder: Path) -> None:
        """Make the checkpoint that a job left in a folder part of the store, if the folder is not part of it."""
        if self._outside:
            checkpoints.upload(self.files, job, folder)

    def bring_checkpoint(self, job: str, folder: Path) -> bool:
        """See that a job's checkpoint lies in a folder; whether it does now."""
        if (folder / checkpoints.MANIFEST).exists():
            return True
        return self._outside and checkpoints.download(self.files, job, folder)

    def has_checkpoint(self, job: str, folder: Path) -> bool:
        """Whether the store has a job's checkpoint, in its folder or outside."""
        if (folder / checkpoints.MANIFEST).exists():
            return True
        return self._outside and checkpoints.exists(self.files, job)

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

        def part_of(name: str) -> pa.Table | None:
            try:
                return self._part_table(name, schema, wanted, first)
            except InputError as error:
                if unreadable is None:
                    raise
                unreadable[Path(self.files.label(name))] = str(error)
                return None

        names = [name for name in self._parts(table) if jobs is None or _job_of(name) in jobs]
        with ThreadPoolExecutor() as pool:  # decoding leaves Python alone, so the parts are read side by side
            parts = [part for part in pool.map(part_of, names) if part is not None]
        if parts:
            return pa.concat_tables(parts)
        fields = [schema.field(name) for name in wanted]
        return pa.table([pa.array([], field.type) for field in fields], schema=pa.schema(fields))

    def _part_table(self, name: str, schema: pa.Schema, columns: Sequence[str], first: int | None = None) -> pa.Table:
        try:
            data = self.files.read(name)
        except OSError as error:
            raise InputError(f"{self.files.label(name)} cannot be read ({error.strerror or error})") from None
        read = decode(self.files.label(name), data, schema, list(dict.fromkeys([*columns, "job"])), first)
        if set(read["job"].unique().to_pylist()) - {_job_of(name)}:
            raise InputError(f"{self.files.label(name)} holds rows of another job; delete it and run the sweep again")
        return read.select(columns)

    def parts(self) -> set[str]:
        """The ids of the complete jobs, whatever came of them; opens no file."""
        return {_job_of(name) for table in DECIDING for name in self._parts(table)}

    def outcomes(self) -> dict[str, str]:
        """The complete jobs: id -> "done", "stopped" or "failed" ("failed" if any of its rows is)."""

        def outcome_of(part: tuple[str, str]) -> tuple[str, str]:
            table, name = part
            states = self._part_table(name, SCHEMAS[table], ["status"])["status"].unique().to_pylist()
            return _job_of(name), next((state for state in ("failed", "stopped") if state in states), "done")

        parts = [(table, name) for table in DECIDING for name in self._parts(table)]
        with ThreadPoolExecutor() as pool:
            return dict(pool.map(outcome_of, parts))

    def compact(self) -> int:
        """Put all parts of all tables into one file; how many there are. Rows and their order stay as they are."""
        return self.files.pack([f"tables/{table}" for table in SCHEMAS])

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        """Keep the plan of a sweep (of each of its profiles), replacing its earlier plan."""
        name = record["sweep"] if record.get("profile") is None else f"{record['sweep']}@{record['profile']}"
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        self.files.write(f"sweeps/{_safe(name)}.json", text.encode())

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """The latest plans: "quickstart" or, for a profile, "quickstart@laptop" -> its record."""
        found = {}
        for name in self.files.names("sweeps"):
            if not name.endswith(".json"):
                continue
            try:
                found[Path(name).stem] = _record(json.loads(self.files.read(name)))
            except (ValueError, TypeError, KeyError):
                label = self.files.label(name)
                raise InputError(f"{label} is not the record of a sweep; delete it and run the sweep again") from None
        return found

    def job_dir(self, job: str) -> Path:
        """The folder in which a job keeps checkpoint, progress and log; made if it is missing."""
        folder = self.root / "jobs" / _safe(job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _parts(self, table: str) -> list[str]:
        return [name for name in self.files.names(f"tables/{table}") if name.endswith(".parquet")]


def _part(table: str, job: str) -> str:
    return f"tables/{table}/{_safe(job)}.parquet"


def _job_of(part: str) -> str:
    return part.rpartition("/")[2].removesuffix(".parquet")


def _record(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a sweep, if it is one."""
    jobs = [(_safe(job["id"]), job["kind"] + job["title"]) for job in record["jobs"]]
    if not isinstance(record["sweep"], str) or not all(jobs):
        raise ValueError("a sweep's record names the sweep and its jobs")
    return record


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
