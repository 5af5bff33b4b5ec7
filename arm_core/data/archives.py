"""Archives are read where they lie: nothing is ever unpacked, and nothing larger than it may be is read."""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast, runtime_checkable

from arm_core.errors import InputError

BROKEN = (gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)
"""What the readers of the standard library raise for a damaged archive."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the errors of a damaged archive into one message about it."""
    try:
        yield
    except BROKEN as error:
        raise InputError(f"{path} is damaged or cut off ({error}); fetch it anew") from None


def inflated(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file's content, gzip taken off if there is any: browsers and unpackers take it off and leave the name."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if zipped else path.open("rb")


@runtime_checkable
class Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to that many; none at the end."""


class Limited:
    """A stream that refuses to give more bytes than it may have."""

    def __init__(self, stream: Readable, limit: int, path: Path) -> None:
        self.stream, self.left, self.limit, self.path = stream, limit, limit, path

    def read(self, size: int, /) -> bytes:
        """Up to that many; none at the end.

        Raises:
            InputError: there are more than there may be.
        """
        data = self.stream.read(min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.path} holds more than the {self.limit} bytes that it may have; fetch it anew")
        return data


def check_member(path: Path, name: str) -> None:
    """Refuse a member whose name would leave the folder that it is unpacked into.

    Nothing is unpacked here; but an archive with such a name was made to harm, so nothing of it is believed.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (len(name) > 1 and name[1] == ":"):
        raise InputError(f"{path} has a member named {name!r}, which leaves its folder; do not use this archive")


def tar_members(path: Path, wanted: Mapping[str, int], *, limit: int) -> dict[str, bytes]:
    """Members of a tar, gzipped or not any more.

    Args:
        path: of the archive.
        wanted: name -> the most bytes it may have.
        limit: the most bytes that the archive may inflate to.

    Raises:
        InputError: the archive is damaged, too large, has a name that leaves its folder, or lacks a member.
    """
    found: dict[str, bytes] = {}
    with readable(path), inflated(path) as file:
        stream = Limited(file, limit, path)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            for member in archive:
                check_member(path, member.name)
                if member.name not in wanted:
                    continue
                if not member.isfile() or member.size > wanted[member.name]:
                    raise InputError(
                        f"{path}: {member.name} must be a file of at most {wanted[member.name]} bytes, "
                        f"got {member.size}; fetch it anew"
                    )
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                found[member.name] = content.read()
        while stream.read(1 << 20):  # the end of the gzip stream, where its checksum is
            pass
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}; fetch it anew")
    return found
