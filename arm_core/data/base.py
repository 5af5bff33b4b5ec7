"""What a dataset is, the options that the registered ones share, and what those options do to pixels.

A dataset's status says what its figures may be compared with: `official` (checksum known and equal), `unverified`, or
`sample` (a shipped subset, or patches). Nothing is ever downloaded here.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from arm_core.errors import InputError
from arm_core.layout import Layout

Images = UInt8[np.ndarray, "count channels height width"]
SPLITS = ("train", "valid", "test")
BINARISATIONS = ("fixed", "dynamic", "static", "threshold")
_STATIC_SEED = 0


@dataclass(frozen=True)
class DataOptions:
    """How the images of a registered dataset are prepared.

    Attributes:
        binarise: `threshold` (value >= 128) or `static` (one seeded draw with probability value / 255); `fixed` is the
            field's published draw of MNIST, `dynamic` a fresh draw at every step: no dataset here offers those yet.
        bits: keep that many of the 8 bits of a value, in [1, 8].
        crop: side of the squares that are cut, a multiple of 4.
        downscale: average blocks of that many pixels a side first.
    """

    binarise: Literal["fixed", "dynamic", "static", "threshold"] | None = None
    bits: int | None = None
    crop: int | None = None
    downscale: int = 1

    def __post_init__(self) -> None:
        if self.binarise is not None and self.binarise not in BINARISATIONS:
            raise InputError(f"binarise must be one of {', '.join(BINARISATIONS)}, got {self.binarise!r}")
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise InputError(f"bits must be in [1, 8], got {self.bits}")
        if self.bits is not None and self.binarise is not None:
            raise InputError(f"bits={self.bits} and binarise={self.binarise!r} exclude each other; leave one out")
        if self.crop is not None and (self.crop < 4 or self.crop % 4):
            raise InputError(f"crop must be a positive multiple of 4, got {self.crop}")
        if self.downscale < 1:
            raise InputError(f"downscale must be at least 1, got {self.downscale}")


class Dataset:
    """Images in three splits.

    Attributes:
        name, variant: what it is, and what was done to it.
        status: `official`, `unverified` or `sample`.
        layout: of its images.
    """

    def __init__(self, *, name: str, variant: str, status: str, categories: int, splits: Mapping[str, Images]) -> None:
        self.name, self.variant, self.status = name, variant, status
        self._splits = dict(splits)
        channels, height, width = self._splits["train"].shape[1:]
        self.layout = Layout(channels, height, width, categories)

    def split(self, name: str) -> UInt8[Tensor, "count channels height width"]:
        """The images of `train`, `valid` or `test`, values 0 .. categories - 1."""
        if name not in self._splits:
            raise InputError(f"split must be one of {', '.join(self._splits)}, got {name!r}")
        return torch.from_numpy(self._splits[name])

    @cached_property
    def sha256(self) -> str:
        """Of the pixels and shapes of all splits."""
        digest = hashlib.sha256()
        for name in SPLITS:
            images = np.ascontiguousarray(self._splits[name])
            digest.update(f"{name} {images.shape} ".encode())
            digest.update(images.data)
        return digest.hexdigest()


def refuse(name: str, options: DataOptions, **reasons: str) -> None:
    """Raise an InputError for the first option that is set and that the dataset cannot serve."""
    for option, reason in reasons.items():
        value = getattr(options, option)
        if value != getattr(DataOptions(), option):
            raise InputError(f"{name}: {option}={value!r} is not possible: {reason}")


def no_root(name: str, package: str, root: Path | None) -> None:
    """Sample data lie in a package: a root would be ignored, so it is refused."""
    if root is not None:
        raise InputError(f"{name}: its images come from the package {package!r}, not from {root}; leave root out")


def binarise(images: Images, how: str) -> Images:
    """0 or 1 for every value, by `threshold` or one `static` draw."""
    if how == "threshold":
        return (images >= 128).astype(np.uint8)
    draw = np.random.Generator(np.random.Philox(_STATIC_SEED)).random(images.shape)
    return (draw * 255 < images).astype(np.uint8)


def downscale(images: Images, factor: int) -> Images:
    """Average blocks of factor x factor pixels; what does not fill a block is cut off."""
    count, channels, height, width = images.shape
    rows, columns = height // factor, width // factor
    blocks = images[:, :, : rows * factor, : columns * factor].reshape(count, channels, rows, factor, columns, factor)
    return np.rint(blocks.mean(axis=(3, 5))).astype(np.uint8)


def crop_centre(images: Images, side: int) -> Images:
    """The central square of `side` pixels."""
    height, width = images.shape[2:]
    if side > min(height, width):
        raise InputError(f"crop must be at most {min(height, width)} for these images, got {side}")
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(images[:, :, top : top + side, left : left + side])


def stratified_split(labels: np.ndarray, sizes: Mapping[str, int], *, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, shuffled, every label in the same proportion (up to one image) in all of them."""
    generator = np.random.Generator(np.random.Philox(seed))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[generator.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.argsort(place + generator.random(len(labels)) * 1e-9, kind="stable")
    bounds = np.cumsum(list(sizes.values()))[:-1]
    return {name: generator.permutation(rows) for name, rows in zip(sizes, np.split(order, bounds), strict=True)}


def shipped_file(package: str, path: str, sha256: str) -> bytes:
    """The bytes of a file that an installed package ships; the package itself is not imported.

    Raises:
        InputError: the package is not installed, or its file is missing or another one.
    """
    remedy = "install the sample data with: pip install 'arm-sampling[samples]'"
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise InputError(f"the package {package!r}, which ships {path}, is not installed; {remedy}") from None
    place = next((Path(str(file.locate())) for file in files if file.as_posix() == path), None)
    if place is None or not place.is_file():
        raise InputError(f"the package {package!r} is installed without {path}; {remedy}")
    data = place.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InputError(f"{place} has sha256 {found}, expected {sha256}; {remedy} (the tested version)")
    return data


def gzipped_integers(data: bytes) -> np.ndarray:
    """A gzipped table of comma-separated integers, as (rows, columns) uint8."""
    text = gzip.decompress(data).decode()
    columns = text.partition("\n")[0].count(",") + 1
    return np.array(text.replace("\n", ",").rstrip(",").split(","), dtype=np.float32).astype(np.uint8).reshape(-1, columns)
