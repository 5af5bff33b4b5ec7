"""What the datasets that are published as files have in common: where they lie, and whether they are the ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from arm_core.data.base import DataOptions, Dataset, Source
from arm_core.data.files import Archive


class Published(Dataset):
    """A dataset that users bring or fetch.

    Attributes:
        KINDS: the options that need other files than the rest.
    """

    KINDS: ClassVar[Sequence[DataOptions]] = (DataOptions(),)

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files and folders that are read; see `files.find`."""
        raise NotImplementedError(f"{cls.__name__} must say where its files lie")

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        raise NotImplementedError(f"{cls.__name__} must say what to fetch")

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions) -> list[Source]:
        """What `locate` found, each held to its published checksum."""
        raise NotImplementedError(f"{cls.__name__} must say what its files are held to")
