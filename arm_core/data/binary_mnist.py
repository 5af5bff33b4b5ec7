"""MNIST in the fixed binarisation of Larochelle & Murray (2011): the one that papers compare on.

A text file a split, a line an image: 784 digits 0 or 1, a blank between two. It cannot be made from MNIST.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arm_core.data.base import SPLITS, Images, Source
from arm_core.data.files import Archive, checked
from arm_core.errors import InputError

_LINE = 2 * 784
_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
PUBLISHED = {"train": 50_000, "valid": 10_000, "test": 10_000}
_SHA256 = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
_NAMES = [f"binarized_mnist_{split}.amat" for split in SPLITS]
ARCHIVES = tuple(
    Archive(f"binarized_mnist/{name}", f"sha256:{_SHA256[split]}", PUBLISHED[split] * _LINE, (_URL + name,))
    for split, name in zip(SPLITS, _NAMES, strict=True)
)
LAYOUTS = [[f"{folder}{name}" for name in _NAMES] for folder in ("binarized_mnist/", "BinaryMNIST/", "")]


def check(paths: Sequence[Path]) -> list[Source]:
    """The three files, held to their checksums."""
    return [checked(path, archive.digest) for path, archive in zip(paths, ARCHIVES, strict=True)]


def read_splits(paths: Sequence[Path]) -> dict[str, Images]:
    """The images of the three splits.

    Raises:
        InputError: a file is cut off or holds anything but lines of 784 digits.
    """
    return {split: _read(path) for split, path in zip(SPLITS, paths, strict=True)}


def _read(path: Path) -> Images:
    data = np.fromfile(path, np.uint8)
    if len(data) == 0 or len(data) % _LINE:
        raise InputError(
            f"{path} must hold lines of {_LINE} bytes (784 digits), got {len(data)} bytes: "
            f"{len(data) // _LINE} whole lines and {len(data) % _LINE} bytes; fetch it anew"
        )
    lines = data.reshape(-1, _LINE)
    gaps = np.frombuffer(b" " * 783 + b"\n", np.uint8)
    wrong = ((lines[:, 1::2] != gaps) | (lines[:, ::2] >> 1 != ord("0") >> 1)).any(axis=1)
    if wrong.any():
        raise InputError(f"{path}: line {int(wrong.argmax()) + 1} is not 784 digits 0 or 1 with blanks between them")
    return (lines[:, ::2] & 1).reshape(-1, 1, 28, 28)
