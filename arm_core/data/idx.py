"""Images in the idx format of MNIST and Fashion-MNIST, plain or gzipped."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arm_core.data.archives import Limited, Readable, inflated, readable
from arm_core.data.base import Images, Source
from arm_core.errors import InputError

PUBLISHED = {
    "6bbc9ace898e44ae57da46a324031adb": "the training images of MNIST",
    "2646ac647ad5339dbf082846283269ea": "the test images of MNIST",
    "f4a8712d7a061bf5bd6d2ca38dc4d50a": "the training images of Fashion-MNIST",
    "8181f5470baa50b63fa0f6fddb340f0a": "the test images of Fashion-MNIST",
}
"""md5 of the content, gzip taken off -> what it is."""
_MAGIC = b"\x00\x00\x08\x03"  # unsigned bytes in three dimensions


def layouts(folder: str) -> list[list[tuple[str, ...]]]:
    """Where the two files of images may lie below a root, in torchvision's folder or right there."""
    return [[_names(f"{place}{part}-images") for part in ("train", "t10k")] for place in (f"{folder}/raw/", "")]


def _names(start: str) -> tuple[str, ...]:
    """What a file may be called: some unpackers put it in a folder of its name, some copies have a dot in it."""
    stems = [f"{start}-idx3-ubyte", f"{start}.idx3-ubyte"]
    folders = [f"{stem}/{stem.rpartition('/')[2]}" for stem in stems]
    return tuple(f"{name}{end}" for name in (*stems, *folders) for end in ("", ".gz"))


def read_images(paths: Sequence[Path], name: str) -> tuple[tuple[Images, Images], list[Source]]:
    """28x28 grey images for training and for test, and the files that they come from.

    Args:
        paths: of the two files.
        name: of the set: `MNIST` or `Fashion-MNIST`.

    Raises:
        InputError: the file is damaged, too short or too long, of another shape, or a published file of another set.
    """
    (train, from_train), (test, from_test) = (
        _read(path, f"the {part} images of {name}") for path, part in zip(paths, ("training", "test"), strict=True)
    )
    return (train, test), [from_train, from_test]


def check_images(paths: Sequence[Path], name: str) -> list[Source]:
    """The two files, held to their checksums."""
    return read_images(paths, name)[1]


def _read(path: Path, expected: str) -> tuple[Images, Source]:
    with readable(path), inflated(path) as stream:
        header = _read_all(stream, 16)
        if len(header) < 16 or header[:4] != _MAGIC:
            raise InputError(f"{path} is no idx file of images: it starts with {header[:4].hex(' ')}, not 00 00 08 03")
        count, rows, columns = (int.from_bytes(header[at : at + 4], "big") for at in (4, 8, 12))
        if (rows, columns) != (28, 28):
            raise InputError(f"{path} must hold images of 28x28 pixels, got {rows}x{columns}")
        size = count * rows * columns
        data = _read_all(Limited(stream, size, path), size + 1)
    if len(data) < size:
        raise InputError(f"{path} is cut off: {count} images take {size} bytes, it has {len(data)}; fetch it anew")
    md5 = hashlib.md5(header + data).hexdigest()
    known = PUBLISHED.get(md5)
    if known is not None and known != expected:
        raise InputError(f"{path} holds {known}, but {expected} are asked for; give the folder of the right set")
    images = np.frombuffer(data, np.uint8).reshape(count, 1, rows, columns)
    return images, Source(path, f"md5:{md5}", known == expected)


def _read_all(stream: Readable, size: int) -> bytes:
    """Up to `size` bytes, however small the pieces in which they come; memory follows what is there, not `size`."""
    parts, left = [], size
    while left and (part := stream.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
