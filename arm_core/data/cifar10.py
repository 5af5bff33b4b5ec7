"""CIFAR-10 (Krizhevsky 2009): its Python batches, its binary batches, or one of the two archives, unopened."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arm_core.data.archives import tar_members
from arm_core.data.base import DataOptions, Images, Source, status_of
from arm_core.data.files import Archive, checked, data_root, fetch_remedy, find
from arm_core.data.prepare import drawn_split, preparation
from arm_core.data.published import Published
from arm_core.data.unpickling import read_byte_array
from arm_core.errors import InputError

PUBLISHED = {"train": 45_000, "valid": 5_000, "test": 10_000}
_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_BINARY = [f"{name}.bin" for name in _MD5]
_HOST = "https://www.cs.toronto.edu/~kriz/"
PYTHON_ARCHIVE = Archive(
    "cifar-10-python.tar.gz",
    "md5:c58f30108f718f92721af3b95e74349a",
    170_498_071,
    (f"{_HOST}cifar-10-python.tar.gz",),
)
BINARY_ARCHIVE = Archive(
    "cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    170_052_171,
    (f"{_HOST}cifar-10-binary.tar.gz",),
)
_LAYOUTS = [
    [f"cifar-10-batches-py/{name}" for name in _MD5],
    [f"cifar-10-batches-bin/{name}" for name in _BINARY],
    [PYTHON_ARCHIVE.path],
    [BINARY_ARCHIVE.path],
    list(_MD5),
    _BINARY,
]
_BATCH = 33 << 20  # bytes; a published batch has 31 million
_INFLATED = 256 << 20  # bytes; the published archives have 187 million


class CIFAR10(Published):
    """32x32 colour photos: 45,000 for training, 5,000 for validation (drawn from the training batches), 10,000 test."""

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        prepared = preparation("cifar10", config, (3, 32, 32))
        paths = self.locate(root, config)
        sources = self.check(paths, config)  # before anything is unpickled
        batches = _read(paths)
        train = np.concatenate(batches[:-1])
        rows = drawn_split(len(train), {"valid": len(train) // 10})
        super().__init__(
            name="cifar10",
            status=status_of(sources),
            rule="valid: a tenth of the training batches, drawn, seed 0",
            sources=sources,
            published=PUBLISHED,
            **prepared.build(
                [train, batches[-1]],
                {"train": (0, rows["train"]), "valid": (0, rows["valid"]), "test": (1, slice(None))},
            ),
        )

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files that are read; see `files.find`."""
        return find("cifar10", [data_root(root)], _LAYOUTS, remedy=fetch_remedy("cifar10"))

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        return (PYTHON_ARCHIVE,)

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions) -> list[Source]:
        """See `Published`; of the binary batches no checksum is known, of their archive it is."""
        known = {name: f"md5:{md5}" for name, md5 in _MD5.items()}
        known |= {archive.path: archive.digest for archive in (PYTHON_ARCHIVE, BINARY_ARCHIVE)}
        return [checked(path, known.get(path.name)) for path in paths]


def _read(paths: list[Path]) -> list[Images]:
    """The six batches in their order, the test batch last."""
    if len(paths) == 1:
        folder, names = ("py", list(_MD5)) if paths[0].name == PYTHON_ARCHIVE.path else ("bin", _BINARY)
        members = [f"cifar-10-batches-{folder}/{name}" for name in names]
        content = tar_members(paths[0], dict.fromkeys(members, _BATCH), limit=_INFLATED)
        return [_batch(content[member], paths[0] / member) for member in members]
    return [_batch(_whole(path), path) for path in paths]


def _whole(path: Path) -> bytes:
    if path.stat().st_size > _BATCH:
        raise InputError(f"{path} must have at most {_BATCH} bytes, got {path.stat().st_size}; fetch it anew")
    return path.read_bytes()


def _batch(data: bytes, path: Path) -> Images:
    if path.suffix != ".bin":
        pixels = read_byte_array(data, "data", path)
        if pixels.ndim != 2 or pixels.shape[1] != 3072 or len(pixels) == 0:
            raise InputError(f"{path}: 'data' must have the shape (n, 3072), got {pixels.shape}; fetch it anew")
        return pixels.reshape(-1, 3, 32, 32)
    if len(data) == 0 or len(data) % 3073:
        raise InputError(
            f"{path} must hold records of 3073 bytes, got {len(data)} bytes: {len(data) // 3073} whole records and "
            f"{len(data) % 3073} bytes; fetch it anew"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    if records[:, 0].max() > 9:
        raise InputError(f"{path}: labels must be in [0, 9], got {records[:, 0].max()}; this is no CIFAR-10 batch")
    return records[:, 1:].reshape(-1, 3, 32, 32)
