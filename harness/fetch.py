"""Brings a published file: resumed where it stopped, from the first mirror that has it whole, held to its checksum.

The file appears under its name only when its checksum is right. Until then it is `NAME.part`, from which the next try,
of this process or a later one, goes on.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests
import urllib3

from arm_core import InputError
from arm_core.data.base import Progress
from arm_core.data.files import Archive, digest_of

TRIES = 3
"""How often a mirror is asked before the next one."""
_BLOCK = 1 << 18
_TIMEOUT_S = (10, 60)  # to connect, and between two pieces
_UNKNOWN = 16 << 30  # bytes that a file of unknown size may have at most


class _TransferError(Exception):
    """This try failed; the message says why, `final` that the mirror need not be asked again."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def fetch(
    archive: Archive,
    root: Path,
    *,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Download one file, unless it is there.

    Args:
        archive: what to bring.
        root: where it goes, at `archive.path`.
        mirrors: addresses of folders that are asked for a file of its name before its own addresses.
        progress: called with the bytes.
        pause: waits that many seconds between two tries.

    Returns:
        Where it is.

    Raises:
        InputError: another file is there, the disk is too small, or no mirror has the file; it lists what each said.
    """
    target = root / archive.path
    on_progress = progress or (lambda done, total, what: None)
    if target.exists():
        _accept(archive, target, on_progress)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    failures = []
    with _held(part) as file:
        for url in [*(f"{mirror.rstrip('/')}/{target.name}" for mirror in mirrors), *archive.urls]:
            for number in range(TRIES):
                try:
                    _transfer(archive, url, file, target.name, on_progress)
                    _check(archive, part, file, on_progress)
                except _TransferError as error:
                    failures.append(f"  {url}: {error}")
                    if error.final:
                        break
                    if number + 1 < TRIES:
                        pause(2.0**number)
                    continue
                os.replace(part, target)
                return target
        if file.tell() == 0:
            part.unlink()
    asked = "\n".join(dict.fromkeys(failures))
    raise InputError(
        f"{archive.path} could not be fetched:\n{asked}\nTry again (it goes on where it stopped), give another address "
        f"with --mirror, or bring the file yourself to {target}"
    )


def _accept(archive: Archive, target: Path, progress: Progress) -> None:
    found = digest_of(target, archive.digest.partition(":")[0], progress)
    if found != archive.digest:
        raise InputError(
            f"{target} is there, but has {found}, not {archive.digest}; move it away, then it is fetched anew"
        )


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """The unfinished file, at its end; nobody else writes to it meanwhile."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is fetching {part}; wait for it") from None
        yield file


def _transfer(archive: Archive, url: str, file: IO[bytes], name: str, progress: Progress) -> None:
    """Append what is missing; afterwards the file has the size that it should have."""
    have = file.tell()
    if archive.size is not None and have >= archive.size:
        return
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            have = _start(response, file, have)
            total = _total(archive, response, have)
            _room(file, total - have)
            for block in response.raw.stream(_BLOCK, decode_content=False):
                have += len(block)
                if have > total:
                    _empty(file)
                    raise _TransferError(f"sends more than the {total} bytes that the file has", final=True)
                file.write(block)
                progress(have, total, f"fetching {name}")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _TransferError(_reason(error, have)) from None
    finally:
        file.flush()
        os.fsync(file.fileno())
    if have < total:
        raise _TransferError(f"the transfer was cut off after {have} of {total} bytes")


def _start(response: requests.Response, file: IO[bytes], have: int) -> int:
    """The bytes that are kept: those that are there if the server goes on after them, otherwise none."""
    if response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if response.status_code in (200, 206, 416):
        _empty(file)
    if response.status_code != 200:
        raise _TransferError(
            f"HTTP status {response.status_code} {response.reason}",
            final=400 <= response.status_code < 500 and response.status_code not in (408, 416, 429),
        )
    return 0


def _total(archive: Archive, response: requests.Response, have: int) -> int:
    stated = response.headers.get("Content-Length", "")
    announced = have + int(stated) if stated.isdigit() else None
    if archive.size is None:
        return announced if announced is not None else _UNKNOWN
    if announced is not None and announced != archive.size:
        raise _TransferError(f"offers a file of {announced} bytes, not of {archive.size}", final=True)
    return archive.size


def _room(file: IO[bytes], needed: int) -> None:
    free = shutil.disk_usage(file.name).free
    if needed > free and needed != _UNKNOWN:
        raise InputError(f"{file.name} needs {needed} more bytes, the disk has {free} free; make room, or give --root")


def _check(archive: Archive, part: Path, file: IO[bytes], progress: Progress) -> None:
    found = digest_of(part, archive.digest.partition(":")[0], progress)
    if found != archive.digest:
        _empty(file)
        raise _TransferError(f"the file has {found}, not {archive.digest}")


def _empty(file: IO[bytes]) -> None:
    file.truncate(0)
    file.seek(0)


def _reason(error: Exception, have: int) -> str:
    if isinstance(error, urllib3.exceptions.ProtocolError | requests.exceptions.ChunkedEncodingError):
        return f"the transfer was cut off after {have} bytes"
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.MissingSchema):
        return "is no http address"
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return f"{type(error).__name__} ({cause})"
