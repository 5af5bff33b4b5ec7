"""Image files as streams: those of a folder, or those inside a tar that is not unpacked."""

import io
import os
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np

from arm_core.data.archives import check_member, readable
from arm_core.data.base import Images, Progress
from arm_core.data.store import CHUNK
from arm_core.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_MODES = {"L": 1, "RGB": 3}
_THREADS = 2  # Pillow decodes without Python's lock; more than two wait for it
Shape = tuple[int, int, int]


class FolderStream:
    """The image files of a folder.

    Args:
        folder: that holds them.
        names: of the files, relative to it, in the order that counts.
        shape: (channels, height, width) that each must have.
    """

    def __init__(self, folder: Path, names: Sequence[str], shape: Shape) -> None:
        self.folder, self.names, self.shape, self.count = folder, names, shape, len(names)

    def chunks(self, start: int) -> Iterator[Images]:
        """See `ImageStream`."""
        folder, shape = os.fspath(self.folder), self.shape

        def read(name: str) -> np.ndarray:
            path = f"{folder}/{name}"
            with open(path, "rb") as file:  # pathlib takes longer than reading
                return decode(file.read(), path, shape)

        yield from _decoded(read, self.names[start:])


class TarStream:
    """The PNG files of an uncompressed tar, sorted by name as those of a folder are.

    Raises:
        InputError: the tar is damaged, compressed, or has a name that leaves its folder.
    """

    def __init__(self, path: Path, shape: Shape, progress: Progress | None = None) -> None:
        self.path, self.shape = path, shape
        names, places, total = [], [], path.stat().st_size
        with readable(path), tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # or they would fill the memory
                check_member(path, member.name)
                base = member.name.rpartition("/")[2]
                if member.isfile() and base.endswith(".png") and not base.startswith("."):
                    names.append(member.name.encode())
                    places.append((member.offset_data, member.size))
                if progress is not None and len(names) % CHUNK == 0:
                    progress(member.offset_data, total, f"listing {path.name}")
        if not names:
            raise InputError(f"{path} holds no .png file; give the archive of the right set")
        self.places = np.array(places, np.int64)[np.argsort(np.array(names), kind="stable")]
        self.count = len(self.places)

    def chunks(self, start: int) -> Iterator[Images]:
        """See `ImageStream`."""
        with self.path.open("rb") as file:

            def read(place: np.ndarray) -> np.ndarray:
                offset, size = int(place[0]), int(place[1])
                return decode(os.pread(file.fileno(), size, offset), f"{self.path} at byte {offset}", self.shape)

            yield from _decoded(read, self.places[start:])


def image_names(folder: Path) -> list[str]:
    """The image files below a folder, relative to it, sorted; hidden ones are left out.

    Raises:
        InputError: there is none.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = os.path.relpath(place, folder) + "/" if Path(place) != folder else ""
        found += [prefix + name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise InputError(f"{folder} holds no image file ({', '.join(SUFFIXES)}); give the folder that does")
    return sorted(found)


def shape_of(path: Path) -> Shape:
    """(channels, height, width) of an image file; 1 channel if it is grey, otherwise 3."""
    image_module = _pillow()
    try:
        with image_module.open(path, formats=_FORMATS) as image:
            return 1 if image.mode in ("1", "L") else 3, image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is no whole image file ({error})") from None


def decode(data: bytes, name: str, shape: Shape) -> np.ndarray:
    """The pixels of an image file, (C, H, W).

    Raises:
        InputError: it is damaged, or has another size or other channels.
    """
    image_module = _pillow()
    channels, height, width = shape
    try:
        with image_module.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.size != (width, height) or _MODES.get(image.mode) != channels:
                kind = "grey (L)" if channels == 1 else "RGB"
                raise InputError(
                    f"{name} must be a {kind} image of {height}x{width} pixels, got {image.mode} of "
                    f"{image.height}x{image.width}; all images of a set have one size and kind"
                )
            pixels = np.asarray(image)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{name} is no whole image file ({error})") from None
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _decoded(read: Callable[..., np.ndarray], items: Sequence[object] | np.ndarray) -> Iterator[Images]:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            batches = [chunk[at : at + 128] for at in range(0, len(chunk), 128)]  # a task each: fewer hand-overs
            yield np.concatenate(list(pool.map(lambda batch: np.stack([read(item) for item in batch]), batches)))


def _pillow() -> ModuleType:
    try:
        from PIL import Image  # only readers of image files need it
    except ModuleNotFoundError:
        raise InputError(
            "the package 'pillow', which reads image files, is not installed; install it with: "
            "pip install 'arm-sampling[samples]'"
        ) from None
    return Image
