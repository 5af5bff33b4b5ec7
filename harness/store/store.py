"""Where results lie: a folder for every job, and what each sweep calls the jobs that it asks for.

    STORE/jobs/<job>/<table>.parquet      what the job found out, a file a table
    STORE/jobs/<job>/done.json            written last: how the job ended, and the sha256 of every file that it made
    STORE/jobs/<job>/...                  checkpoint, log and progress
    STORE/sweeps/<sweep>[@<profile>].json the names of the jobs that a sweep asks for, as of its last run

A job is complete when its done.json is there, and only then; rows hold what a job is, never what a sweep calls it. A
table is read from the folders of the complete jobs. Every file is checked against its sha256 before it counts.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from arm_core.atomic import write_atomic
from arm_core.errors import InputError
from harness.store.lock import locked
from harness.store.parts import MEND, decode, encode
from harness.store.schemas import DECIDING, STATUSES, Row, SchemaError, schema_of, to_arrow
from harness.store.sealed import read_sealed, write_sealed

DONE, SUFFIX = "done.json", ".parquet"
_NAMES = ("id", "kind", "title", "dataset", "variant", "seed")
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


class Done(NamedTuple):
    """What the done.json of a job says: its `status`, and the sha256 of each file by its path in the folder."""

    status: str
    files: dict[str, str]


class Store:
    """The results of all sweeps under one folder.

    Example:
        >>> import tempfile
        >>> Store(tempfile.mkdtemp()).read("curves").empty
        True
    """

    def __init__(self, root: str | Path) -> None:
        """Open a store.

        Raises:
            InputError: the root is a file.
        """
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the store must be a folder, but {self.root} is a file; give another --store")

    def locked(self) -> AbstractContextManager[None]:
        """Hold the store as its only driver; InputError if another process does."""
        return locked(self.root)

    def write_job(self, job: str, rows: Mapping[str, Sequence[Row]], made: Iterable[Path] = ()) -> str:
        """Write everything that a job found out, replacing what an earlier run of it left; returns its status.

        From the first write to the last one the job counts as not run.

        Args:
            job: the job's id.
            rows: table -> rows; exactly one of the deciding tables, with at least one row.
            made: files and folders in the job's folder that belong to its result besides the tables.

        Raises:
            SchemaError: a row breaks its table's schema; nothing has been written then.
        """
        status = _status_of(job, rows)
        tables = {name: to_arrow(name, part) for name, part in rows.items() if len(part)}
        for name, table in tables.items():
            _check_owner(name, table, job)
        folder = job_folder(self.root, job)
        folder.mkdir(parents=True, exist_ok=True)
        self.forget(job)
        for old in folder.glob(f"*{SUFFIX}"):
            old.unlink()
        files = {}
        for name, table in tables.items():
            data = encode(table)
            write_atomic(folder / f"{name}{SUFFIX}", data)
            files[f"{name}{SUFFIX}"] = hashlib.sha256(data).hexdigest()
        for place in _files_of(made):
            with place.open("rb") as file:
                files[str(place.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
        write_sealed(folder / DONE, {"job": job, "status": status, "files": files})
        return status

    def forget(self, job: str) -> None:
        """Make a job one that has not been run; its files stay."""
        (job_folder(self.root, job) / DONE).unlink(missing_ok=True)

    def done(self, job: str) -> Done | None:
        """What a job's done.json says; None: the job is not complete.

        Raises:
            InputError: it is damaged, or of another job.
        """
        place = job_folder(self.root, job) / DONE
        said = read_sealed(place, MEND)
        if said is None:
            return None
        if said.get("job") != job or said.get("status") not in STATUSES:
            raise InputError(f"{place} is not of the job {job}; {MEND}")
        return Done(said["status"], said["files"])

    def jobs(self) -> list[str]:
        """The ids of all jobs that have a folder, in order."""
        try:
            with os.scandir(self.root / "jobs") as entries:
                return sorted(entry.name for entry in entries if re.fullmatch(_SAFE, entry.name))
        except FileNotFoundError:
            return []

    def outcomes(
        self, jobs: Iterable[str] | None = None, *, unreadable: dict[Path, str] | None = None
    ) -> dict[str, str]:
        """The complete jobs: id -> "done", "stopped", "failed", or "lost": it was done, and files of it are gone.

        Args:
            jobs: to look at; None: all.
            unreadable: where damaged ones are noted, with the reason, and then "damaged"; None makes them errors.

        Raises:
            InputError: a done.json is damaged.
        """
        found = {}
        for job in self.jobs() if jobs is None else jobs:
            try:
                done = self.done(job)
            except InputError as error:
                if unreadable is None:
                    raise
                unreadable[job_folder(self.root, job)], found[job] = str(error), "damaged"
                continue
            if done is not None:
                folder = os.fspath(job_folder(self.root, job))
                whole = done.status != "done" or all(os.path.exists(f"{folder}/{name}") for name in done.files)
                found[job] = done.status if whole else "lost"
        return found

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
            unreadable: where files that cannot be read are noted, with the reason; None makes them errors.

        Returns:
            A frame with exactly the columns of the schema, whatever version the files have; integers and
            booleans have pandas' nullable dtypes.

        Raises:
            InputError: a file is gone, damaged, not ours, or of a newer version.
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
        """Columns as `read` gives them, and columns of lists without an object a row, in one pass over the files.

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

        def part_of(job: str) -> pa.Table | None:
            try:
                return self._part(table, job, schema, wanted, first)
            except InputError as error:
                if unreadable is None:
                    raise
                unreadable[job_folder(self.root, job)] = str(error)
                return None

        with ThreadPoolExecutor() as pool:  # hashing and decoding leave Python alone, so files are read side by side
            chosen = self.jobs() if jobs is None else sorted(jobs)
            parts = [part for part in pool.map(part_of, chosen) if part is not None]
        if parts:
            return pa.concat_tables(parts)
        fields = [schema.field(name) for name in wanted]
        return pa.table([pa.array([], field.type) for field in fields], schema=pa.schema(fields))

    def _part(
        self, table: str, job: str, schema: pa.Schema, columns: Sequence[str], first: int | None
    ) -> pa.Table | None:
        """The rows that a complete job has in a table; None if it has none."""
        done, name = self.done(job), f"{table}{SUFFIX}"
        if done is None or name not in done.files:
            return None
        place = job_folder(self.root, job) / name
        try:
            data = place.read_bytes()
        except OSError as error:
            raise InputError(f"{place} cannot be read ({error.strerror}); {MEND}") from None
        if hashlib.sha256(data).hexdigest() != done.files[name]:
            raise InputError(f"{place} differs from what was written; {MEND}")
        return decode(str(place), data, schema, columns, first)

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        """Keep what a sweep (each of its profiles) asks for and how it calls it, replacing its earlier record.

        Args:
            record: sweep, profile, and jobs: a mapping for every name, with id, kind, title, dataset, variant and
                seed; several names may stand for one job.
        """
        name = record["sweep"] if record.get("profile") is None else f"{record['sweep']}@{record['profile']}"
        write_sealed(self.root / "sweeps" / f"{_safe(name)}.json", record)

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """What each sweep asks for: "quickstart" or, for a profile, "quickstart@laptop" -> its record.

        Raises:
            InputError: a record is damaged.
        """
        found = {}
        for place in sorted((self.root / "sweeps").glob("[!.]*.json")):
            mend = "delete it and run the sweep again, which writes it anew"
            record = read_sealed(place, mend)
            try:
                found[place.stem] = _record(place.stem, record or {})
            except (ValueError, TypeError, KeyError):
                raise InputError(f"{place} is not the record of a sweep; {mend}") from None
        return found


_SAFE = re.compile(r"\w[\w@-]*", re.ASCII)


def job_folder(root: Path, job: str) -> Path:
    """Where a job keeps its tables, checkpoint, log and progress."""
    return root / "jobs" / _safe(job)


def _safe(name: str) -> str:
    """The name itself, if it stays in its folder as a file name."""
    if not re.fullmatch(_SAFE, name):
        raise InputError(f"a job or sweep is named with letters, digits, '_', '-' and '@', got {name!r}")
    return name


def _record(stem: str, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a sweep, if it is one; a name that it leaves out is None."""
    jobs = [{**dict.fromkeys(_NAMES), **job} for job in record["jobs"]]
    if record["sweep"] != stem.partition("@")[0]:
        raise ValueError("a record lies under the name of its sweep")
    for job in jobs:
        job["id"] = _safe(job["id"])
    return {**record, "jobs": jobs}


def _files_of(made: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and those of folders."""
    for place in made:
        yield from sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


def _ragged(chunked: pa.ChunkedArray) -> Ragged:
    lengths = chunked.combine_chunks().value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunked.chunks]
    return Ragged(np.concatenate(values), lengths)


def _status_of(job: str, rows: Mapping[str, Sequence[Row]]) -> str:
    """How a job ended: "failed" or "stopped" if any of its rows is."""
    given = [table for table in DECIDING if rows.get(table)]
    if len(given) != 1:
        raise SchemaError(f"job {job} must write rows of exactly one of {', '.join(DECIDING)}, got {list(rows)}")
    states = {row.get("status") for row in rows[given[0]]}
    return next((state for state in ("failed", "stopped") if state in states), "done")


def _check_owner(name: str, table: pa.Table, job: str) -> None:
    for owner in table["job"].to_pylist():
        if owner != job:
            raise SchemaError(f"{name}.job must be {job!r}, the job that writes it, got {owner!r}")
