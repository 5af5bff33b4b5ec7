"""What `harness data` does: which datasets are there, whether they are the ones, and bringing those that are not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from arm_core import InputError
from arm_core.data import DataOptions, Dataset, MissingDataError, load_dataset
from arm_core.data.base import SPLITS, status_of
from arm_core.data.base import Progress as OnProgress
from arm_core.data.files import data_root
from arm_core.data.published import Published
from arm_core.data.shipped import Shipped
from arm_core.data.store import open_store, place_of
from arm_core.registry import DATASETS, suggest
from harness.console import CONSOLE, show
from harness.fetch import fetch


class Holding(NamedTuple):
    """A line of `harness data list`.

    Attributes:
        name: of the dataset, with the option that asks for other files.
        status: official, unverified, sample, not checked, or missing.
        size: in bytes, of the files.
        where: the files that are there, or the places that were looked at.
    """

    name: str
    status: str
    size: int
    where: list[Path]


def list_data(root: Path | None) -> None:
    """Print every registered dataset: its status, its size, and where it is or was looked for."""
    table = Table("dataset", "status", "size", "where it is, or was looked for", box=None, pad_edge=False)
    with CONSOLE.status("Checking files ..."):
        for holding in holdings(root):
            style = {"official": "green", "sample": "cyan", "missing": "dim"}.get(holding.status, "yellow")
            size = f"{holding.size / 2**20:.1f} MiB" if holding.size else ""
            table.add_row(holding.name, Text(holding.status, style), size, _shortened(holding.where))
    show(table)
    CONSOLE.print(f"Data root: {data_root(root).absolute()} (--root or ARM_DATA)", soft_wrap=True)
    CONSOLE.print(
        "sample: small sets that packages ship; unverified: files whose checksum is unknown or another one",
        soft_wrap=True,
    )


def holdings(root: Path | None) -> Iterator[Holding]:
    """Every registered dataset, as it is found."""
    for name in DATASETS.names():
        cls = DATASETS.resolve(name)
        if issubclass(cls, Published):
            for config in cls.KINDS:
                label = f"{name} --binarise {config.binarise}" if config.binarise else name
                yield _published(label, name, cls, config, root)
        else:
            yield _shipped(name, cls.SHIPPED)


def _shipped(name: str, files: tuple[Shipped, ...]) -> Holding:
    try:
        paths = [file.locate() for file in files]
        for file in files:
            file.read()
    except InputError:
        return Holding(name, "missing", 0, [Path(file.path) for file in files])
    return Holding(name, "sample", sum(path.stat().st_size for path in paths), paths)


def _published(label: str, name: str, cls: type[Published], config: DataOptions, root: Path | None) -> Holding:
    converted = open_store(place_of(data_root(root), name, f"{getattr(cls, 'PREFIX', '')}8-bit"))
    try:
        paths = cls.locate(root, config)
    except MissingDataError as error:
        if converted is not None:
            place = place_of(data_root(root), name, converted["variant"])
            return Holding(label, converted["status"], _size([place]), [place])
        return Holding(label, "missing", 0, error.looked)
    if converted is not None:
        return Holding(label, converted["status"], _size(paths), paths)
    if _size(paths) > 2**30 or paths[0].is_dir():  # seconds to minutes of reading: that is what verify is for
        return Holding(label, "not checked", _size(paths), paths)
    try:
        return Holding(label, status_of(cls.check(paths, config)), _size(paths), paths)
    except InputError:
        return Holding(label, "damaged", _size(paths), paths)


def _size(paths: list[Path]) -> int:
    """Of files, and of what lies directly in a small folder."""
    files = [path for path in paths if path.is_file()]
    files += [file for path in paths if (path / "store.json").exists() for file in path.iterdir()]
    return sum(file.stat().st_size for file in files)


def _shortened(paths: list[Path]) -> str:
    """The folders, each with the names in it."""
    names: dict[Path, list[str]] = {}
    for path in paths:
        names.setdefault(path.parent, []).append(path.name)
    return "\n".join(f"{folder}/ {_few(list(dict.fromkeys(found)))}" for folder, found in names.items())


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[:3] if more else names) + more


def verify_data(name: str, root: Path | None, options: dict[str, Any]) -> int:
    """Hold a dataset to everything that is known of it, a line each; returns the exit code."""
    with progress_bar() as on_progress:
        dataset = load_dataset(name, root, progress=on_progress, **options)
    failed = 0
    for claim, holds in _claims(dataset):
        mark = {True: ("holds  ", "green"), False: ("fails  ", "red"), None: ("unknown", "yellow")}[holds]
        failed += holds is False
        CONSOLE.print(Text.assemble(mark, f"  {claim}"), soft_wrap=True)
    CONSOLE.print(f"{dataset.name}, {dataset.variant}: {dataset.status}; splits: {dataset.rule}", soft_wrap=True)
    if dataset.read:
        CONSOLE.print(dataset.read[0].upper() + dataset.read[1:], soft_wrap=True)
    CONSOLE.print(f"sha256 of its pixels: {dataset.sha256}", soft_wrap=True)
    return 1 if failed else 0


def _claims(dataset: Dataset) -> Iterator[tuple[str, bool | None]]:
    """(what is claimed, whether it holds; None: it cannot be known)."""
    for source in dataset.sources:
        if source.digest is None:
            yield f"{source.path}: a folder, of which no checksum is known", None
        elif source.official is None:
            yield f"{source.path}: {source.digest}, no published checksum is known", None
        else:
            yield f"{source.path}: {source.digest} is the published checksum", source.official
    layout = dataset.layout
    for split in SPLITS:
        images = dataset.split(split).numpy()
        shape = (layout.channels, layout.height, layout.width)
        yield f"{split}: {len(images)} images of {shape}, {images.dtype}", tuple(images.shape[1:]) == shape
        if split in dataset.published:
            count = dataset.published[split]
            yield f"{split}: the published whole has {count} images", len(images) == count
        low, high = _range(images)
        yield f"{split}: values {low} .. {high} lie in 0 .. {layout.categories - 1}", high < layout.categories
    if dataset.recorded_sha256 is not None:
        yield "the converted pixels have the recorded sha256", dataset.pixels_sha256() == dataset.recorded_sha256


def _range(images: np.ndarray) -> tuple[int, int]:
    parts = [images[start : start + 4096] for start in range(0, len(images), 4096)]
    return min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)


def fetch_data(name: str, root: Path | None, options: DataOptions, mirrors: tuple[str, ...]) -> int:
    """Bring the files of a published dataset, one after the other; returns the exit code."""
    cls = DATASETS.resolve(name) if name in DATASETS.entries else None
    known = [entry for entry in DATASETS.names() if issubclass(DATASETS.resolve(entry), Published)]
    if cls is None:
        raise suggest("dataset to fetch", name, known)
    if not issubclass(cls, Published):
        raise InputError(
            f"{name} is not fetched, a package ships it: pip install 'arm-sampling[samples]'. "
            f"These are fetched: {', '.join(known)}"
        )
    place = data_root(root)
    archives = cls.archives(options)
    with progress_bar() as on_progress:
        for archive in archives:
            target = fetch(archive, place, mirrors=mirrors, progress=on_progress)
            CONSOLE.print(f"{target}: {archive.digest}", soft_wrap=True)
    more = f" --binarise {options.binarise}" if options.binarise else ""
    CONSOLE.print(f"All of {name} is there. Check it with: harness data verify {name}{more}", soft_wrap=True)
    return 0


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar for whatever takes long; nothing where nobody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    with Progress(
        *columns, TimeRemainingColumn(), console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal
    ) as bar:
        tasks: dict[str, Any] = {}

        def on_progress(done: int, total: int, what: str) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield on_progress
