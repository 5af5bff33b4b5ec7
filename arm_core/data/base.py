"""What a dataset is, and the options that the registered ones share.

A dataset's status says what its figures may be compared with: `official` (checksum known and equal),
`unverified`, or `sample` (a shipped subset, or patches). Nothing is ever downloaded here.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from arm_core.errors import InputError
from arm_core.layout import Layout

Images = UInt8[np.ndarray, "_ _ _ _"]  # (count, channels, height, width)
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done) while something takes long."""
SPLITS = ("train", "valid", "test")
BINARISATIONS = ("fixed", "dynamic", "static", "threshold")


@dataclass(frozen=True)
class DataOptions:
    """How the images of a registered dataset are prepared.

    Attributes:
        binarise: of grey images: `threshold` (value >= 128), `static` (one seeded draw with probability
            value / 255), `dynamic` (such a draw anew at every training step; validation and test keep one seeded
            draw) or `fixed` (the field's published draw of MNIST, the only one whose figures stand beside papers).
        bits: keep that many of the 8 bits of a value, the highest ones, in [1, 8].
        crop: side of the squares that are cut, a multiple of 4 (as PixelCNN needs).
        downscale: average blocks of that many pixels a side, before anything else.
        patches: side of the patches that become one token each, after everything else; 1: pixels.
    """

    binarise: Literal["fixed", "dynamic", "static", "threshold"] | None = None
    bits: int | None = None
    crop: int | None = None
    downscale: int = 1
    patches: int = 1

    def __post_init__(self) -> None:
        for name in ("bits", "crop", "downscale", "patches"):
            value = getattr(self, name)
            unset = value is None and name in ("bits", "crop")
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
        for name in ("downscale", "patches"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Source:
    """A file or folder that a dataset was read from.

    Attributes:
        path: of it.
        digest: `md5:...` or `sha256:...` of its bytes (of its content, if it is gzipped idx); None for a folder.
        official: whether that is the published one; None: none is known.
    """

    path: Path
    digest: str | None = None
    official: bool | None = None


def status_of(sources: Sequence[Source]) -> str:
    """`official` if every source is known to be the published one, otherwise `unverified`."""
    return "official" if sources and all(source.official for source in sources) else "unverified"


class DynamicImages:
    """Grey images that are binarised anew whenever they are drawn: 1 with probability value / 255."""

    def __init__(self, grey: Images) -> None:
        self.grey = grey

    def __len__(self) -> int:
        return len(self.grey)

    def draw(
        self, rows: Int64[Tensor, " batch"], generator: torch.Generator
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images of these rows, drawn from the generator alone."""
        grey = torch.from_numpy(self.grey[rows.numpy()])
        return (torch.randint(0, 255, grey.shape, generator=generator) < grey).to(torch.uint8)


class MappedImages:
    """Images of a memory-mapped file, read row by row: a mapping would keep every page that was ever looked at."""

    def __init__(self, images: np.memmap) -> None:
        self.path, self.shape, self.offset = str(images.filename), images.shape, images.offset

    def __len__(self) -> int:
        return self.shape[0]

    def draw(
        self, rows: Int64[Tensor, " batch"], generator: torch.Generator
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images of these rows; the generator is left alone."""
        size = math.prod(self.shape[1:])
        images = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        with open(self.path, "rb", buffering=0) as file:
            for image, row in zip(images.numpy(), rows.tolist(), strict=True):
                data = os.pread(file.fileno(), size, self.offset + row * size)
                image.ravel()[:] = np.frombuffer(data, np.uint8)
        return images


class Dataset:
    """Images in three splits.

    Attributes:
        name, variant: what it is, and what was done to it.
        status: `official`, `unverified` or `sample`.
        layout: of its images.
        rule: how the splits were cut.
        sources: the files that it was read from.
        published: images a split of the published whole; empty if there is no such number.
        read: of a folder, which files were read and which left out; empty for all else.
        recorded_sha256: of the pixels when they were converted; None: they were not.
    """

    read = ""

    def __init__(
        self,
        *,
        name: str,
        variant: str,
        status: str,
        categories: int,
        splits: Mapping[str, Images],
        rule: str = "as given",
        sources: Sequence[Source] = (),
        published: Mapping[str, int] | None = None,
        grey: Images | None = None,
        sha256: str | None = None,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.name, self.variant, self.status, self.rule = name, variant, status, rule
        self.sources, self.published = tuple(sources), dict(published or {})
        # tensors over bytes that must not be written would warn
        self._splits = {name: images if images.flags.writeable else images.copy() for name, images in splits.items()}
        self._grey, self.recorded_sha256, self._labels = grey, sha256, labels
        channels, height, width = self._splits["train"].shape[1:]
        self.layout = Layout(channels, height, width, categories)

    def split(self, name: str) -> UInt8[Tensor, "count channels height width"]:
        """The images of `train`, `valid` or `test`, values 0 .. categories - 1; may be memory-mapped."""
        if name not in self._splits:
            raise InputError(f"split must be one of {', '.join(self._splits)}, got {name!r}")
        return torch.from_numpy(self._splits[name])

    def labels(self, name: str) -> Int64[Tensor, " count"] | None:
        """The class of each image of `split(name)`, from 0 on; None: this dataset has none."""
        return None if self._labels is None else torch.from_numpy(self._labels[name].astype(np.int64))

    @property
    def is_dynamic(self) -> bool:
        """Whether training images are binarised anew whenever they are drawn."""
        return self._grey is not None

    def training_images(self) -> UInt8[Tensor, "count channels height width"] | DynamicImages | MappedImages:
        """What training draws its batches from: the `train` split, or its grey images if binarised dynamically."""
        if self._grey is not None:
            return DynamicImages(self._grey)
        train = self._splits["train"]
        return MappedImages(train) if isinstance(train, np.memmap) else self.split("train")

    @cached_property
    def sha256(self) -> str:
        """Of the pixels and shapes of all splits; of grey pixels where training draws from those."""
        return self.recorded_sha256 or self.pixels_sha256()

    def pixels_sha256(self) -> str:
        """The same, read from the pixels as they are now, whatever was recorded of them."""
        digest = hashlib.sha256()
        for name in SPLITS:
            images = self._grey if name == "train" and self._grey is not None else self._splits[name]
            digest.update(f"{name} {images.shape} ".encode())
            for start in range(0, len(images), 4096):
                digest.update(np.ascontiguousarray(images[start : start + 4096]).data)
        return digest.hexdigest()
