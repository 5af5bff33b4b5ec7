"""The folder that a report is written to is its user's: a list in it says which files are ours, no other is touched."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arm_core.atomic import write_atomic
from arm_core.errors import InputError

LIST = "report-files.sha256"
_HEAD = "# Written by harness: these files are replaced, or removed, when it writes here again.\n"
Lines = set[tuple[str, str]]  # (sha256, name) of files


@contextmanager
def published(out: Path, listing: str = LIST) -> Iterator[Path]:
    """An empty folder to write to; at the end its files move to `out`, and what last time left there else is removed.

    Args:
        out: made if missing.
        listing: the name in `out` of the list of what was written, as `sha256sum --check` reads it.

    Raises:
        InputError: a name is taken by a file that is not in the list or was changed since; nothing is touched then.
    """
    before = _listed(out / listing)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".harness-", dir=out) as scratch:
        made = Path(scratch)
        yield made
        now = {(_sha256(file), file.relative_to(made).as_posix()) for file in made.rglob("*") if file.is_file()}
        names = sorted(name for _, name in now)
        if taken := [name for name in names if _is_taken(out, name, before | now)]:
            raise InputError(
                f"{out} has files that are not of an earlier report, or were changed since: {', '.join(taken)}; "
                "nothing was written: move them away, or give another folder with --out"
            )
        _write_list(out / listing, before | now)  # stopped from here on, both are known next time
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / name, out / name)
        for sha256, name in before:
            if name not in names and _has(out / name, {sha256}):
                (out / name).unlink()
        _write_list(out / listing, now)


def _is_taken(out: Path, name: str, known: Lines) -> bool:
    """Whether a file must not be written: something else has its name, or the name of a folder that it lies in."""
    place = out / name
    if os.path.lexists(place):
        return not _has(place, {sha256 for sha256, of in known if of == name})
    within = place.parent
    return within != out and os.path.lexists(within) and not within.is_dir()


def _has(place: Path, digests: set[str]) -> bool:
    return place.is_file() and _sha256(place) in digests


def _sha256(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(place: Path) -> Lines:
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    except UnicodeDecodeError:
        text = ""
    if not text.startswith(_HEAD):
        raise InputError(f"{place} is not the list that harness writes there; move it away, or give another --out")
    lines = (line.partition("  ") for line in text.removeprefix(_HEAD).splitlines())
    return {(sha256, name) for sha256, _, name in lines}


def _write_list(place: Path, lines: Lines) -> None:
    text = "".join(f"{sha256}  {name}\n" for sha256, name in sorted(lines, key=lambda line: line[::-1]))
    write_atomic(place, (_HEAD + text).encode(), sync=False)
