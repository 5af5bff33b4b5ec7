"""Datasets: one file each, registered by name, or a file of your own."""

import inspect
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from arm_core.data.base import SPLITS, DataOptions, Dataset, DynamicImages, Progress
from arm_core.data.files import MissingDataError
from arm_core.data.patches import in_patches
from arm_core.errors import InputError
from arm_core.registry import DATASETS, config_type, suggest

__all__ = ["DataOptions", "Dataset", "DynamicImages", "MissingDataError", "load_dataset"]


def load_dataset(
    name: str, root: str | Path | None = None, *, progress: Progress | None = None, **options: Any
) -> Dataset:
    """Load a dataset; docs/datasets.md lists them. Nothing is downloaded.

    Args:
        name: a registered name, `npz:PATH`, `folder:PATH`, `module:attr` or `file.py:attr`. A class of your own is
            built with (root, config), or with (root) if it takes no config; it has `.layout` and `.split(name)`.
        root: the folder with the data; without it ARM_DATA or ./data. Those that come from installed packages, and
            paths, refuse one.
        progress: called with (done, total, what) while images are converted, which happens once.
        **options: the fields of the dataset's config dataclass. For the registered ones they are those of
            `DataOptions`: binarise, bits, crop, downscale, patches.

    Returns:
        The dataset: .name .layout .variant .status .sha256 and .split("train" | "valid" | "test"), which
        gives uint8 (n, C, H, W). One of your own gets its reference as name, the options that are not at
            their defaults as variant, and the status `unverified`.

    Raises:
        MissingDataError: the data are not there; it names every path that was looked for.
        InputError: unknown name or option, a value that the dataset cannot serve, data that are damaged, a package
            that is not installed, or images of your own that do not fit their layout.

    Example:
        >>> load_dataset("digits").layout
        Layout(channels=1, height=8, width=8, categories=17)
    """
    cls = DATASETS.resolve(name)
    if not callable(cls):
        raise InputError(f"dataset {name} must be a class, got {cls!r}")
    place = _place(name, root)
    kind = config_type(cls)
    if kind is None:
        if options:
            raise InputError(f"dataset {name} takes no options, got {', '.join(options)}; leave them out")
        config, built = None, cls(place)
    else:
        config = _config(name, kind, options)
        told = {"progress": progress} if "progress" in inspect.signature(cls).parameters else {}
        built = cls(place, config, **told)
    if not isinstance(built, Dataset):
        return _completed(name, _variant(config), built)
    side = config.patches if isinstance(config, DataOptions) else 1
    return built if side == 1 else in_patches(built, side)


def _place(name: str, root: str | Path | None) -> Path | None:
    """What the class gets as its root: the path in the name, if there is one."""
    scheme, path = DATASETS.split(name)
    if scheme is None:
        return Path(root) if root is not None else None
    if root is not None:
        raise InputError(f"{name}: the path is part of the name, a root ({root}) would be ignored; leave it out")
    return Path(path) if path else None


def _config(name: str, kind: type, options: dict[str, Any]) -> Any:
    """The config dataclass of a dataset, filled with `options`."""
    if not is_dataclass(kind):
        raise InputError(f"dataset {name}: the type of its config must be a dataclass, got {kind.__name__}")
    valid = {field.name: field for field in fields(kind)}
    for option in options:
        if option not in valid:
            raise suggest(f"option of dataset {name}", option, valid)
    for option, field in valid.items():
        if option not in options and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"dataset {name} needs the option {option!r}; give it a value")
    return kind(**options)


def _variant(config: Any) -> str:
    """The options that differ from their defaults: the same text whether a default was given or left out."""
    changed = []
    for field in fields(config) if config is not None else ():
        value = getattr(config, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default:
            changed.append(f"{field.name}={value}")
    return " ".join(changed) or "default"


def _completed(name: str, variant: str, own: Any) -> Dataset:
    """A user's dataset as a `Dataset`, once its images are seen to fit its layout."""
    for attribute in ("layout", "split"):
        if not hasattr(own, attribute):
            raise InputError(f"dataset {name} must have .{attribute}, but {type(own).__name__} has none")
    layout, splits = own.layout, {}
    for split in SPLITS:
        try:
            images = own.split(split)
        except (LookupError, TypeError, AttributeError) as error:
            why = f"raises {type(error).__name__}: {error}"
            raise InputError(f"dataset {name}: split({split!r}) {why}; it is asked for {', '.join(SPLITS)}") from error
        shape = (layout.channels, layout.height, layout.width)
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise InputError(f"dataset {name}: split {split!r} must be a torch.uint8 tensor, got {kind}")
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            rule = f"must have the shape of its layout, (n, {', '.join(map(str, shape))})"
            raise InputError(f"dataset {name}: split {split!r} {rule}, got {tuple(images.shape)}")
        if len(images) and int(images.max()) >= layout.categories:
            rule = f"must have values below its layout's {layout.categories} categories"
            raise InputError(f"dataset {name}: split {split!r} {rule}, got {int(images.max())}")
        splits[split] = images.cpu().numpy()
    categories = layout.categories
    return Dataset(name=name, variant=variant, status="unverified", categories=categories, splits=splits)
