"""Files that are written whole or not at all. Loads no torch: who watches jobs uses it too."""

import os
import tempfile
from pathlib import Path


def write_atomic(place: Path, data: bytes) -> None:
    """Write a file beside its place, sync it and move it there; nothing is left of it if that fails."""
    handle, temporary = tempfile.mkstemp(prefix=f".{place.stem}-", suffix=".tmp", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's files are private to their maker
        os.replace(temporary, place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
