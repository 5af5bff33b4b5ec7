"""`folder:PATH`: image files of yours, converted once and memory-mapped from then on."""

import hashlib
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arm_core.data.base import SPLITS, DataOptions, Dataset, Progress, Source
from arm_core.data.files import MissingDataError, data_root
from arm_core.data.image_files import FolderStream, image_names, shape_of
from arm_core.data.prepare import TENTHS, preparation, refuse, tenths
from arm_core.data.store import Conversion, Marks, place_of, stored
from arm_core.errors import InputError

_NAMES = re.compile(r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?))(?:[^a-z].*)?", re.IGNORECASE)
"""Folders that are called like splits: train, Validation, test-images."""


class ImageFolder(Dataset):
    """Image files, all of one size, all grey or all RGB.

    Either in folders `train`, `valid` and `test` (or `training`, `val`, `validation`, `dev`, `testing`, in any case),
    or all together (at any depth, links followed): then a tenth each becomes validation and test (drawn, seed 0). What
    is converted lies below the data root, not in your folder. A warning says what was left out.
    """

    def __init__(self, root: Path | None, config: DataOptions, progress: Progress | None = None) -> None:
        if root is None:
            raise InputError("folder: must be followed by the path of a folder, as in folder:my_images")
        folder, name = root.absolute(), f"folder:{root}"
        if not folder.is_dir():
            raise MissingDataError(f"folder: there is no folder {folder}; give another path", [folder])
        if config.binarise not in (None, "threshold"):
            refuse(name, config, binarise="image files can be binarised by threshold only")
        files, others = image_names(folder)
        splits = _splits(folder, files)
        names = {split: [file for file in files if file.startswith(f"{splits[split]}/")] for split in splits}
        everything = [file for split in names for file in names[split]] or files
        others += sorted({*files} - {*everything})
        if names:
            route = np.repeat(np.arange(3, dtype=np.uint8), [len(names[split]) for split in SPLITS])
        else:
            route = np.zeros(len(everything), np.uint8)
            for split, rows in tenths(len(everything)).items():
                route[rows] = SPLITS.index(split)
        shape = shape_of(folder / everything[0])
        prepared = preparation(name, config, shape)

        def make() -> Conversion:
            about: dict[str, Any] = {
                "name": f"folder:{folder}",
                "status": "unverified",
                "rule": "as given" if names else TENTHS,
                "sources": [Source(folder)],
                "published": {},
            }
            return Conversion(about, prepared, [FolderStream(folder, everything, shape)], route)

        label = f"folder-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
        place = place_of(data_root(None), label, prepared.variant)
        super().__init__(**{**stored(place, _marks(folder, everything), make, progress), "name": name})
        self.read = f"read {_counted(everything)}; left out {_counted(others)}"
        if any(not file.rpartition("/")[2].startswith(".") for file in others):
            warnings.warn(f"{name}: {self.read}", stacklevel=3)


def _splits(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Split -> the folder of its images; empty if none is named after a split.

    Raises:
        InputError: two for one split, none for another, or names like those of splits where they would be ignored.
    """
    found: dict[str, str] = {}
    like: dict[str, str] = {}
    for folders in dict.fromkeys(file.rpartition("/")[0] for file in files):
        for depth, part in enumerate(folders.split("/")):
            match = _NAMES.fullmatch(part)
            if match is None:
                continue
            split = SPLITS[(match.lastindex or 1) - 1]
            like.setdefault(split, part)
            if depth == 0 and match.end(match.lastindex or 1) == len(part) and found.setdefault(split, part) != part:
                raise InputError(f"{folder} has the folders {found[split]} and {part} for {split}; leave one")
    if found and len(found) < len(SPLITS):
        there, missing = (", ".join(s for s in SPLITS if (s in found) == has) for has in (True, False))
        raise InputError(f"{folder} has folders for {there} but not for {missing}; add them, or none")
    if not found and len(like) > 1:
        there = " and ".join(like[split] for split in SPLITS if split in like)
        remedy = f"name them {', '.join(SPLITS)}, right in the folder that is given, or otherwise if they are no splits"
        raise InputError(f"{folder}: images in {there} would be mixed and split anew; {remedy}")
    return {split: found[split] for split in SPLITS if split in found}


def _counted(files: Sequence[str]) -> str:
    """How many files, of which kinds, and where they are few their names."""
    bases = [file.rpartition("/")[2] for file in files]
    kinds = Counter("hidden" if base.startswith(".") else os.path.splitext(base)[1].lower() or base for base in bases)
    said = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6))
    return f"{len(files)} file{'s' * (len(files) != 1)}" + (f" ({said})" if files else "")


def _marks(folder: Path, names: list[str]) -> Marks:
    """One number that changes when any file does."""
    seen = [(name, (found := os.stat(folder / name)).st_size, found.st_mtime_ns) for name in names]
    return [[int.from_bytes(hashlib.sha256(json.dumps(seen).encode()).digest()[:6])]]
