"""Named files, written whole or not at all: in a local folder, or on any file system that pyarrow knows.

Names are paths below the root with "/" between their parts. A local file is written beside its place, synced and moved
there; on object storage one put makes an object, so it is whole or not there as well.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from arm_core.atomic import write_atomic
from arm_core.errors import InputError


class Files(Protocol):
    """What a store asks of the place where its tables lie."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, replacing the one of that name."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """A file, or so many bytes of it from `start` on; FileNotFoundError if there is none."""

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, in order, without hidden ones; none if there is no folder."""

    def label(self, name: str) -> str:
        """The name as a user knows it."""


class LocalFiles:
    """Files of a folder of this machine, or of one that it mounts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, data: bytes) -> None:
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, data)
        _sync_folder(place.parent)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        place = self.root / folder
        found = sorted(path.name for path in place.glob("[!.]*") if path.is_file())
        return [f"{folder}/{name}" for name in found]

    def label(self, name: str) -> str:
        return str(self.root / name)


class ArrowFiles:
    """Files under a URI such as s3://bucket/runs."""

    def __init__(self, uri: str) -> None:
        self._plain = shown(uri)
        try:
            self._system, base = pafs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the store {self._plain} cannot be reached ({reason}); give another --store") from None
        self._base = base.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        place = f"{self._base}/{name}"
        with self._named(name):
            if self._system.type_name == "local":
                self._system.create_dir(place.rpartition("/")[0])
            with self._system.open_output_stream(place) as stream:  # the object appears when it is closed
                stream.write(data)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with self._named(name), self._system.open_input_file(f"{self._base}/{name}") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def remove(self, name: str) -> None:
        with self._named(name):
            if self._system.get_file_info(f"{self._base}/{name}").type != pafs.FileType.NotFound:
                self._system.delete_file(f"{self._base}/{name}")

    def names(self, folder: str) -> list[str]:
        with self._named(folder):
            found = self._system.get_file_info(pafs.FileSelector(f"{self._base}/{folder}", allow_not_found=True))
        names = sorted(info.base_name for info in found if info.type == pafs.FileType.File)
        return [f"{folder}/{name}" for name in names if not name.startswith(".")]

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Errors of the storage carry the name of the file, as those of a folder do."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error).partition("\n")[0]
            raise OSError(error.errno or errno.EIO, reason, self.label(name)) from None

    def label(self, name: str) -> str:
        return f"{self._plain}/{name}"


def shown(uri: str) -> str:
    """A URI without its secrets and options."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}".rstrip("/")


def is_uri(place: str | Path) -> bool:
    """Whether a store's place is a URI and not a folder."""
    return "://" in str(place) and bool(urlsplit(str(place)).scheme)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, not the contents alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
