"""`folder:PATH`: image files of yours, converted once and memory-mapped from then on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from arm_core.data.base import SPLITS, DataOptions, Dataset, Progress, Source
from arm_core.data.files import MissingDataError, data_root
from arm_core.data.image_files import FolderStream, image_names, shape_of
from arm_core.data.prepare import TENTHS, preparation, refuse, tenths
from arm_core.data.store import Conversion, Marks, place_of, stored
from arm_core.errors import InputError


class ImageFolder(Dataset):
    """Image files, all of one size, all grey or all RGB.

    Either in folders `train`, `valid` and `test`, or all together (at any depth): then a tenth each becomes validation
    and test (drawn, seed 0). What is converted lies below the data root, not in your folder.
    """

    def __init__(self, root: Path | None, config: DataOptions, progress: Progress | None = None) -> None:
        if root is None:
            raise InputError("folder: must be followed by the path of a folder, as in folder:my_images")
        folder, name = root.absolute(), f"folder:{root}"
        if not folder.is_dir():
            raise MissingDataError(f"folder: there is no folder {folder}; give another path", [folder])
        if config.binarise not in (None, "threshold"):
            refuse(name, config, binarise="image files can be binarised by threshold only")
        names = {split: image_names(folder / split) for split in SPLITS if (folder / split).is_dir()}
        if names and len(names) < len(SPLITS):
            missing = ", ".join(split for split in SPLITS if split not in names)
            raise InputError(f"{folder} has folders for {', '.join(names)} but not for {missing}; add them, or none")
        everything = [f"{split}/{file}" for split in names for file in names[split]] or image_names(folder)
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


def _marks(folder: Path, names: list[str]) -> Marks:
    """One number that changes when any file does."""
    seen = [(name, (found := os.stat(folder / name)).st_size, found.st_mtime_ns) for name in names]
    return [[int.from_bytes(hashlib.sha256(json.dumps(seen).encode()).digest()[:6])]]
