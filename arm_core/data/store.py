"""Converted images: a folder with an array of bytes a split, memory-mapped, so that it opens at once at any size.

    PLACE/train.npy, valid.npy, test.npy    uint8 (n, C, H, W), as `numpy.load` reads them
    PLACE/store.json                        what they are, their sha256, and what they were read from

A conversion works in `PLACE.partial` and moves it to `PLACE` when it is whole. Stopped, it goes on where it was;
refused for a bad input, it leaves nothing. One process converts at a time, others wait for it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from arm_core.data.base import SPLITS, Images, Progress, Source
from arm_core.data.prepare import Preparation
from arm_core.errors import InputError

FORMAT = 1
CHUNK = 4096
"""Images that are in memory at a time."""
PLACE_VARIABLE = "ARM_CONVERTED"
_ABOUT = "store.json"
_STATE = "progress.json"


Marks = list[list[int]]
"""What tells whether the sources of a conversion are still the same."""


@runtime_checkable
class ImageStream(Protocol):
    """Images in a fixed order, read in pieces.

    Attributes:
        count: of images.
    """

    count: int

    def chunks(self, start: int) -> Iterator[Images]:
        """The images from `start` on, at most `CHUNK` at a time."""


class Conversion(NamedTuple):
    """What is to be converted.

    Attributes:
        about: name, status, rule, sources and published, as `Dataset` takes them.
        prepared: what is done to the images; nothing that draws.
        parts: the streams, one after the other.
        route: the split of every image of them, as its place in `SPLITS`.
    """

    about: dict[str, Any]
    prepared: Preparation
    parts: Sequence[ImageStream]
    route: np.ndarray


def place_of(root: Path, name: str, variant: str) -> Path:
    """The folder of a conversion: below the root, or below the environment variable ARM_CONVERTED."""
    label = re.sub(r"[^A-Za-z0-9_]+", "-", f"{name} {variant}").strip("-")
    if given := os.environ.get(PLACE_VARIABLE):
        return Path(given) / f"{label}-{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:8]}"
    return root / "converted" / label


def stored(
    place: Path, marks: Marks | None, make: Callable[[], Conversion], progress: Progress | None = None
) -> dict[str, Any]:
    """What `Dataset` takes, memory-mapped; converted first if that has not been done, or not from these files.

    Args:
        place: of the conversion.
        marks: of what it reads; None: that is gone, what was converted is all there is.
        make: called only if there is something to convert.
        progress: told of the images.

    Raises:
        InputError: a source is damaged, or the place cannot be written.
    """
    found = open_store(place)
    if found is not None and (marks is None or marks == found["read_from"]):
        return _content(found)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            found = open_store(place)  # another process may have converted meanwhile
            if found is None or marks != found["read_from"]:
                _convert(place, marks or [], make(), progress or (lambda done, total, what: None))
                found = open_store(place)
    except PermissionError as error:
        remedy = f"set {PLACE_VARIABLE} to a folder that can be"
        raise InputError(f"{error.filename} cannot be written; {remedy}") from None
    assert found is not None  # it was just written
    return _content(found)


def marks_of(paths: Sequence[Path]) -> Marks:
    """What tells without reading whether files or folders have been changed: the time, and the size of a file."""
    return [[(info := path.stat()).st_mtime_ns, 0 if path.is_dir() else info.st_size] for path in paths]


def open_store(place: Path) -> dict[str, Any] | None:
    """What a whole conversion says of itself, its `splits` memory-mapped; None if there is none.

    Raises:
        InputError: a file of it is missing or has another size than was written.
    """
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{place / _ABOUT} is damaged ({error}); delete {place}, it is made anew") from None
    if about.get("format") != FORMAT:
        return None
    splits = {}
    for name in SPLITS:
        shape = (about["counts"][name], *about["shape"])
        try:
            # "c": pages are read on demand; the tensors count as writable, but nothing ever reaches the file
            splits[name] = np.load(place / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{place / name}.npy cannot be read ({error}); delete {place}, it is made anew") from None
        if splits[name].shape != shape or splits[name].dtype != np.uint8:
            got = f"{splits[name].dtype} {splits[name].shape}"
            raise InputError(f"{place / name}.npy must be uint8 {shape}, got {got}; delete {place}, it is made anew")
    return {**about, "splits": splits}


def _content(found: dict[str, Any]) -> dict[str, Any]:
    sources = [Source(Path(path), digest, official) for path, digest, official in found["sources"]]
    kept = ("name", "variant", "status", "categories", "rule", "published", "sha256", "splits")
    return {**{key: found[key] for key in kept}, "sources": sources}


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    with place.with_name(f".{place.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(place: Path, marks: Marks, conversion: Conversion, progress: Progress) -> None:
    partial = place.with_name(f"{place.name}.partial")
    counts = {name: int((conversion.route == number).sum()) for number, name in enumerate(SPLITS)}
    if empty := [name for name, count in counts.items() if count == 0]:
        enough = ", 10 in all are enough" if sum(counts.values()) < 10 else ""
        raise InputError(f"{conversion.about['name']}: no image for {', '.join(empty)}; add some{enough}")
    about = {
        "format": FORMAT,
        **conversion.about,
        "sources": [(str(source.path), source.digest, source.official) for source in conversion.about["sources"]],
        "variant": conversion.prepared.variant,
        "categories": conversion.prepared.categories,
        "shape": conversion.prepared.shape,
        "counts": counts,
        "read_from": marks,
    }
    try:
        _write_splits(partial, about, conversion, progress)
    except InputError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    about["sha256"] = _digest(partial, about, progress)
    (partial / _STATE).unlink()
    _write_json(partial / _ABOUT, about)
    if place.exists():  # made from other files; a process that has it open keeps its pages
        shutil.rmtree(place)
    os.replace(partial, place)


def _write_splits(partial: Path, about: dict[str, Any], conversion: Conversion, progress: Progress) -> None:
    """Write every array, from where an interrupted conversion of the same files was."""
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    route, size = conversion.route, int(np.prod(about["shape"]))
    row = _start(partial, key)
    with ExitStack() as stack:
        files = [stack.enter_context(_array_file(partial / f"{name}.npy", about, name)) for name in SPLITS]
        for number, file in enumerate(files):
            file.truncate(file.tell() + size * int((route[:row] == number).sum()))
            file.seek(0, os.SEEK_END)
        for chunk in _chained(conversion.parts, row):
            ready, target = conversion.prepared.levels(conversion.prepared.grey(chunk)), route[row : row + len(chunk)]
            for number, file in enumerate(files):
                file.write(np.ascontiguousarray(ready[target == number]).data)
                file.flush()
                os.fsync(file.fileno())  # before the state says that they are there
            row += len(chunk)
            _write_json(partial / _STATE, {"key": key, "row": row})
            progress(row, len(route), f"converting {about['name']}")
    if row != len(route):
        raise InputError(f"{about['name']}: {len(route)} images were counted, but {row} were read; try again")


def _start(partial: Path, key: str) -> int:
    """The images that an interrupted conversion with this key has written; otherwise a fresh folder, and 0."""
    try:
        state = json.loads((partial / _STATE).read_text(encoding="utf-8"))
        if state["key"] == key:
            return int(state["row"])
    except (OSError, ValueError, KeyError):
        pass
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    _write_json(partial / _STATE, {"key": key, "row": 0})
    return 0


def _array_file(path: Path, about: dict[str, Any], name: str) -> IO[bytes]:
    """The file of a split, at the place of its first image."""
    file = path.open("r+b" if path.exists() else "w+b")
    shape = (about["counts"][name], *about["shape"])
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file


def _chained(parts: Sequence[ImageStream], start: int) -> Iterator[Images]:
    """The images of all parts, from `start` on."""
    for part in parts:
        if start < part.count:
            yield from part.chunks(start)
        start = max(0, start - part.count)


def _digest(partial: Path, about: dict[str, Any], progress: Progress) -> str:
    """What `Dataset.pixels_sha256` gives, read without mapping: memory stays small."""
    digest, done, total = hashlib.sha256(), 0, sum(about["counts"].values()) * int(np.prod(about["shape"]))
    for name in SPLITS:
        shape = (about["counts"][name], *about["shape"])
        digest.update(f"{name} {shape} ".encode())
        with (partial / f"{name}.npy").open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress(done, total, "hashing pixels")
    return digest.hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
