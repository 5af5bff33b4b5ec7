"""What a dataset is, the options that the registered ones share, and what those options do to pixels.

A dataset's status says what its figures may be compared with: `official` (checksum known and equal),
`unverified`, or `sample` (a shipped subset, or patches). Nothing is ever downloaded here.

Random draws are the raw bits of Philox: NumPy promises that these never change, which it does not for the
methods of its generators. So a split stays the same split under every version.
"""

import gzip
import hashlib
import sys
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

Images = UInt8[np.ndarray, "_ _ _ _"]  # (count, channels, height, width)
SPLITS = ("train", "valid", "test")
BINARISATIONS = ("fixed", "dynamic", "static", "threshold")
_STATIC_SEED = 1  # not that of a split: the draws would be the same
_REMEDY = "install the sample data with: pip install 'arm-sampling[samples]'"


@dataclass(frozen=True)
class DataOptions:
    """How the images of a registered dataset are prepared.

    Attributes:
        binarise: `threshold` (value >= 128) or `static` (one seeded draw with probability value / 255);
            `fixed` is the field's published draw of MNIST, `dynamic` a fresh draw at every step: no dataset
            here offers those yet.
        bits: keep that many of the 8 bits of a value, the highest ones, in [1, 8].
        crop: side of the squares that are cut, a multiple of 4 (as PixelCNN needs).
        downscale: average blocks of that many pixels a side, before anything else.
    """

    binarise: Literal["fixed", "dynamic", "static", "threshold"] | None = None
    bits: int | None = None
    crop: int | None = None
    downscale: int = 1

    def __post_init__(self) -> None:
        for name in ("bits", "crop", "downscale"):
            value = getattr(self, name)
            unset = value is None and name != "downscale"
            if not unset and (not isinstance(value, int) or isinstance(value, bool)):
                raise InputError(f"{name} must be a whole number, got {value!r}")
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
        raise InputError(f"{name}: its images come from {package}, not from {root}; leave root out")


def binarise(images: Images, how: str) -> Images:
    """0 or 1 for every value, by `threshold` or one `static` draw."""
    if how == "threshold":
        return (images >= 128).astype(np.uint8)
    draw = _draws(images.size, seed=_STATIC_SEED).reshape(images.shape) % 255  # uniform on 0 .. 254
    return (draw < images).astype(np.uint8)


def downscale(images: Images, factor: int) -> Images:
    """Average blocks of factor x factor pixels; what does not fill a block is cut off."""
    count, channels, height, width = images.shape
    rows, columns = height // factor, width // factor
    whole = images[:, :, : rows * factor, : columns * factor]
    blocks = whole.reshape(count, channels, rows, factor, columns, factor)
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
    key = _draws(len(labels), seed=seed)
    quantile = np.empty(len(labels))  # of each row among the rows of its label
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        quantile[rows[np.argsort(key[rows])]] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.lexsort((key, quantile))  # labels interleaved, so that a cut anywhere cuts each in proportion
    parts = np.split(order, np.cumsum(list(sizes.values()))[:-1])
    return {name: part[np.argsort(key[part])] for name, part in zip(sizes, parts, strict=True)}


def _draws(count: int, *, seed: int) -> np.ndarray:
    """Uniform 64-bit integers."""
    return np.random.Philox(key=seed).random_raw(count)


def shipped_file(package: str, path: str, sha256: str) -> bytes:
    """The bytes of a file that an installed package ships; the package itself is not imported.

    Raises:
        InputError: the package is not installed, or its file is missing or another one; the message names
            every path that was looked for.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        looked = ", ".join(f"{folder}/{path}" for folder in sys.path if folder.endswith("-packages"))
        problem = f"the package {package!r} is not installed (looked for {looked})"
        raise InputError(f"{problem}; {_REMEDY}") from None
    place = next((Path(str(file.locate())) for file in files if file.as_posix() == path), None)
    if place is None or not place.is_file():
        raise InputError(f"the package {package!r} is installed without {place or path}; {_REMEDY}")
    data = place.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        version = metadata.version(package)
        raise InputError(
            f"{place} has sha256 {found}, expected {sha256}: {package} {version} ships another file than the "
            "tested one, or it is damaged; install the package anew, or another version of it"
        )
    return data


def gzipped_integers(data: bytes) -> np.ndarray:
    """A gzipped table of comma-separated integers, as (rows, columns) uint8."""
    return np.loadtxt(gzip.decompress(data).decode().splitlines(), delimiter=",", dtype=np.uint8)
