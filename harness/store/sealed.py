"""Small JSON files that carry the sha256 of what they say, so that no damage is read as data."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arm_core.atomic import write_atomic
from arm_core.errors import InputError

SEAL, FORMAT = "sha256", "format"
_FORMAT = 1
"""Raise it when a reader of an earlier version would misread what is written."""


def write_sealed(place: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping of JSON values, whole or not at all."""
    said = {FORMAT: _FORMAT, **content}
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, (json.dumps({**said, SEAL: _digest(said)}, indent=1) + "\n").encode())


def read_sealed(place: Path, mend: str) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None if there is no such file.

    Args:
        place: of the file.
        mend: what its user can do about damage, for the error.

    Raises:
        InputError: it differs from what was written, or is of a newer version.
    """
    try:
        said = json.loads(place.read_bytes())
        seal = said.pop(SEAL)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror}); {mend}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise InputError(f"{place} is damaged; {mend}") from None
    if seal != _digest(said):
        raise InputError(f"{place} differs from what was written; {mend}")
    if said.pop(FORMAT) > _FORMAT:
        raise InputError(f"{place} was written by a newer version of this package; update it, or give another --store")
    return said


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
