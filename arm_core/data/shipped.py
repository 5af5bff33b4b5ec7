"""Sample images that installed Python packages ship, read as files and held to their checksum."""

import gzip
import hashlib
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arm_core.data.base import Source
from arm_core.errors import InputError

_REMEDY = "install the sample data with: pip install 'arm-sampling[samples]'"


class Shipped(NamedTuple):
    """A file that a package ships; the package itself is never imported."""

    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Where it is.

        Raises:
            InputError: the package is not installed, or without the file; the message names every path.
        """
        try:
            files = metadata.files(self.package) or []
        except metadata.PackageNotFoundError:
            looked = ", ".join(f"{folder}/{self.path}" for folder in sys.path if folder.endswith("-packages"))
            problem = f"the package {self.package!r} is not installed (looked for {looked})"
            raise InputError(f"{problem}; {_REMEDY}") from None
        place = next((Path(str(file.locate())) for file in files if file.as_posix() == self.path), None)
        if place is None or not place.is_file():
            raise InputError(f"the package {self.package!r} is installed without {place or self.path}; {_REMEDY}")
        return place

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            InputError: it is not there, or is another file than the tested one.
        """
        place = self.locate()
        data = place.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            version = metadata.version(self.package)
            raise InputError(
                f"{place} has sha256 {found}, expected {self.sha256}: {self.package} {version} ships another file "
                "than the tested one, or it is damaged; install the package anew, or another version of it"
            )
        return data

    def source(self) -> Source:
        """The record of it, once it has been read."""
        return Source(self.locate(), f"sha256:{self.sha256}", True)


def no_root(name: str, package: str, root: Path | None) -> None:
    """Sample data lie in a package: a root would be ignored, so it is refused."""
    if root is not None:
        raise InputError(f"{name}: its images come from {package}, not from {root}; leave root out")


def gzipped_integers(data: bytes) -> np.ndarray:
    """A gzipped table of comma-separated integers, as (rows, columns) uint8."""
    return np.loadtxt(gzip.decompress(data).decode().splitlines(), delimiter=",", dtype=np.uint8)
