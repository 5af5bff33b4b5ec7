"""Street View House Numbers (Netzer et al. 2011), cropped digits, in MATLAB files."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arm_core.data.base import DataOptions, Images, Source, status_of
from arm_core.data.files import Archive, checked, data_root, fetch_remedy, find
from arm_core.data.prepare import drawn_split, preparation
from arm_core.data.published import Published
from arm_core.errors import InputError

_HOST = "http://ufldl.stanford.edu/housenumbers/"
ARCHIVES = {
    part: Archive(f"{part}_32x32.mat", f"md5:{md5}", size, (f"{_HOST}{part}_32x32.mat",))
    for part, md5, size in (
        ("train", "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
        ("extra", "a93ce644f1a588dc4d68dda5feec44a7", 1_329_278_602),
        ("test", "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
    )
}


class SVHN(Published):
    """32x32 colour digits: 65,932 for training, 7,325 for validation (drawn from the training file), 26,032 test."""

    PARTS: Sequence[str] = ("train", "test")
    NAME = "svhn"
    PREFIX = ""
    PUBLISHED = {"train": 65_932, "valid": 7_325, "test": 26_032}  # noqa: RUF012

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        prepared = preparation(self.NAME, config, (3, 32, 32), prefix=self.PREFIX)
        paths = self.locate(root, config)
        sources = self.check(paths, config)
        *training, test = (_read(path) for path in paths)
        rows = drawn_split(len(training[0]), {"valid": len(training[0]) // 10})
        train = np.concatenate(training) if len(training) > 1 else training[0]
        more = np.arange(len(training[0]), len(train))
        super().__init__(
            name=self.NAME,
            status=status_of(sources),
            rule="valid: a tenth of the training file, drawn, seed 0",
            sources=sources,
            published=self.PUBLISHED,
            **prepared.build(
                [train, test],
                {
                    "train": (0, np.concatenate([rows["train"], more])),
                    "valid": (0, rows["valid"]),
                    "test": (1, slice(None)),
                },
            ),
        )

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files that are read; see `files.find`."""
        names = [f"{part}_32x32.mat" for part in cls.PARTS]
        layouts = [[f"{folder}{name}" for name in names] for folder in ("", "SVHN/", "svhn/")]
        return find(cls.NAME, [data_root(root)], layouts, remedy=fetch_remedy(cls.NAME))

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        return tuple(ARCHIVES[part] for part in cls.PARTS)

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions) -> list[Source]:
        """See `Published`."""
        return [checked(path, ARCHIVES[part].digest) for part, path in zip(cls.PARTS, paths, strict=True)]


class SVHNExtra(SVHN):
    """SVHN with its 531,131 extra, easier images added to the training split; validation and test are those of SVHN."""

    PARTS = ("train", "extra", "test")
    NAME = "svhn_extra"
    PREFIX = "with extra "
    PUBLISHED = {"train": 597_063, "valid": 7_325, "test": 26_032}  # noqa: RUF012


def _read(path: Path) -> Images:
    """(n, 3, 32, 32): the file holds X as (32, 32, 3, n), and labels y that nothing here needs."""
    try:
        from scipy.io import loadmat  # only this reader needs it
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError:
        raise InputError("svhn: the package 'scipy', which reads .mat files, is not installed; install it") from None
    try:
        content = loadmat(path, variable_names=["X"])
    except (MatReadError, ValueError, TypeError, OSError, EOFError, KeyError, NotImplementedError, MemoryError,
            OverflowError, zlib.error, struct.error) as error:  # fmt: skip
        raise InputError(f"{path} is no whole MATLAB file ({type(error).__name__}: {error}); fetch it anew") from None
    pixels = content.get("X")
    if pixels is None:
        raise InputError(f"{path} must hold an array X, it has {sorted(k for k in content if k[0] != '_')}")
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: X must have the dtype uint8, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise InputError(f"{path}: X must have the shape (32, 32, 3, n), got {pixels.shape}")
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
