"""Files as their authors published them: where they are looked for, and whether they are the ones.

Nothing here opens a connection: addresses are data, `harness data fetch` is what uses them.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arm_core.data.base import Progress, Source
from arm_core.errors import InputError

ROOT_VARIABLE = "ARM_DATA"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
        path: below the root, where a fetch puts it.
        digest: `md5:...` or `sha256:...`.
        size: in bytes; None if it is not known.
        urls: where it can be had, the best one first.
    """

    path: str
    digest: str
    size: int | None
    urls: tuple[str, ...]


class MissingDataError(InputError):
    """A dataset's files are not there.

    Attributes:
        looked: every path that was looked for.
    """

    def __init__(self, message: str, looked: Sequence[Path]) -> None:
        super().__init__(message)
        self.looked = list(looked)


def data_root(root: Path | None) -> Path:
    """The folder with the data: the one given, that of the environment variable ARM_DATA, or ./data."""
    return root if root is not None else Path(os.environ.get(ROOT_VARIABLE) or "data")


def find(
    name: str, roots: Sequence[Path], layouts: Sequence[Sequence[str | tuple[str, ...]]], *, remedy: str
) -> list[Path]:
    """The files of the first layout that is there as a whole.

    Args:
        name: of the dataset.
        roots: folders that may hold it, the first one first.
        layouts: the paths, below a root, that belong together; several names of one file: the first that is there.
        remedy: what to do where there is none.

    Raises:
        MissingDataError: none is whole; it names every path, and of a layout that is there in part what it lacks.
    """
    looked: list[Path] = []
    lines, partial = [], []
    for root in roots:
        for layout in layouts:
            paths = [_first(root.absolute(), part) for part in layout]
            absent = [path for path in paths if not path.exists()]
            if not absent:
                return paths
            looked += paths
            lines.append("  " + ", ".join(map(str, paths)))
            if len(absent) < len(paths):
                partial.append(f"incomplete: {', '.join(map(str, absent))} is missing")
    found = "; ".join(partial) or "nothing of it is there"
    text = "\n".join([f"{name}: {found}. Looked for one of:", *lines, f"Remedy: {remedy}"])
    raise MissingDataError(text, looked)


def _first(root: Path, names: str | tuple[str, ...]) -> Path:
    if isinstance(names, str):
        return root / names
    return next((root / name for name in names if (root / name).is_file()), root / names[0])


def fetch_remedy(name: str) -> str:
    """What to do where a published dataset is missing."""
    return f"harness data fetch {name}, or give the folder that holds it (root, or {ROOT_VARIABLE})"


def digest_of(path: Path, kind: str, progress: Progress | None = None) -> str:
    """`kind:hex` of a file's bytes; kind is md5 or sha256."""
    digest, done, total = hashlib.new(kind), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total, f"checking {path.name}")
    return f"{kind}:{digest.hexdigest()}"


def checked(path: Path, published: str | None, progress: Progress | None = None) -> Source:
    """A file, its digest, and whether that is the published one (None: there is no such digest)."""
    kind = (published or "sha256:").partition(":")[0]
    found = digest_of(path, kind, progress)
    return Source(path, found, None if published is None else found == published)
