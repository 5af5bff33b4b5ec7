"""Files that are written whole or not at all. Loads no torch: who watches jobs uses it too."""

import os
import tempfile
from pathlib import Path


def write_atomic(place: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file beside its place and move it there; nothing is left of it if that fails.

    Args:
        place: of the file; its folder must exist.
        data: its content.
        sync: whether the content, and the name in the folder, must survive a power cut.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{place.stem}-", suffix=".tmp", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's files are private to their maker
        os.replace(temporary, place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, not the contents alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
