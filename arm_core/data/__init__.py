"""Datasets: one file each, registered by name, or a file of your own."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from arm_core.data.base import Dataset, DataOptions
from arm_core.registry import DATASETS, config_type, suggest

__all__ = ["DataOptions", "Dataset", "load_dataset"]


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> Any:
    """Load a dataset: `mnist5k`, `digits`, `photo_patches`, or a reference to a class of your own.

    Args:
        name: a registered name, `module:attr` or `file.py:attr`. A class of your own is built with (root, config), or
            with (root) if it takes no config, and has `.layout` and `.split(name)`.
        root: the folder with the data; the registered datasets come from installed packages and refuse one.
        **options: the fields of the dataset's config dataclass. For the registered ones: binarise
            ("threshold" or "static"), bits (1 .. 8), crop (side in pixels), downscale (whole factor).

    Returns:
        The dataset: .name .layout .variant .status .sha256 and .split("train" | "valid" | "test") -> uint8 (n, C, H, W).

    Raises:
        InputError: unknown name or option, a value that the dataset cannot serve, or data that are not installed.

    Example:
        >>> load_dataset("digits").layout
        Layout(channels=1, height=8, width=8, categories=17)
    """
    cls = DATASETS.resolve(name)
    kind = config_type(cls)
    valid = [field.name for field in fields(kind)] if kind is not None else []
    for option in options:
        if option not in valid:
            raise suggest(f"option of dataset {name}", option, valid)
    place = Path(root) if root is not None else None
    return cls(place) if kind is None else cls(place, kind(**options))
