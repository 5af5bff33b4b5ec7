"""Image files as streams: those of a folder, or those inside a tar that is not unpacked."""

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from arm_core.data.archives import check_member, readable
from arm_core.data.base import Images, Progress
from arm_core.data.store import CHUNK
from arm_core.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".ppm", ".pgm", ".webp", ".gif", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "GIF", "TIFF")
_CHANNELS = {"L": 1, "RGB": 3}
_DEEP = "has more than 8 bits a channel; save it with 8: (pixels // 256).astype(numpy.uint8)"
_DEEP_PPM = re.compile(rb"P[2356](\s+(#[^\n]*\n\s*)*\d+){2}\s+(\d{4,}|[3-9]\d\d|2[6-9]\d|25[6-9])\s")
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


def image_names(folder: Path) -> tuple[list[str], list[str]]:
    """(the image files, all others) below a folder and what it links to, relative to it, sorted.

    Hidden files are among the others, hidden folders are left out.

    Raises:
        InputError: there is no image file.
    """
    found: list[str] = []
    others: list[str] = []
    for name in _below(os.fspath(folder)):
        base = name.rpartition("/")[2]
        (found if base.lower().endswith(SUFFIXES) and not base.startswith(".") else others).append(name)
    if not found:
        raise InputError(f"{folder} holds no image file ({', '.join(SUFFIXES)}); give the folder that does")
    return sorted(found), sorted(others)


def _below(folder: str, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """All files; a folder that links to one above it is not entered again."""
    if (real := os.path.realpath(folder)) in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield prefix + entry.name
            elif not entry.name.startswith("."):
                yield from _below(entry.path, f"{prefix}{entry.name}/", (*above, real))


def shape_of(path: Path) -> Shape:
    """(channels, height, width) of an image file; 1 channel if it is grey, otherwise 3."""
    channels, height, width = decode(path.read_bytes(), str(path)).shape
    return channels, height, width


def decode(data: bytes, name: str, shape: Shape | None = None) -> np.ndarray:
    """The pixels of an image file, (C, H, W), upright as its EXIF orientation says.

    Palettes, bits and alpha that hides nothing become RGB or grey, which loses nothing; what would is refused.

    Raises:
        InputError: it is damaged, or has another size or other channels than `shape`, or cannot be had without loss.
    """
    image_module, ops = _pillow()
    try:
        with image_module.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if why := _loses(opened, data):
                raise InputError(f"{name} {why}")
            ops.exif_transpose(opened, in_place=True)
            image = _plain(opened)
            pixels = np.asarray(image)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # decoders raise anything for a damaged file; and too many pixels are an error of Pillow's
        raise InputError(f"{name} is no whole image file ({error}); mend it, or move it away") from None
    channels = _CHANNELS.get(image.mode)
    if channels is None:
        what = "has transparent pixels" if image.mode == "RGBA" else f"is {image.mode}, not grey or RGB"
        raise InputError(f'{name} {what}; convert it with Pillow: image.convert("RGB").save(...)')
    if shape is not None and (channels, image.height, image.width) != shape:
        kind = "a grey (L)" if shape[0] == 1 else "an RGB"
        raise InputError(
            f"{name} must be {kind} image of {shape[1]}x{shape[2]} pixels, got {image.mode} of "
            f"{image.height}x{image.width}; all images of a set have one size and kind: convert it, or move it away "
            "(docs/datasets.md has the lines that bring a folder of photos to one size)"
        )
    return pixels.reshape(image.height, image.width, channels).transpose(2, 0, 1)


def _loses(image: Any, data: bytes) -> str | None:
    """Why Pillow would not give all of an image; it halves the bits of colours without a word."""
    deep = image.mode.startswith(("I", "F"))
    deep |= image.format == "PNG" and data[24] > 8
    deep |= image.format == "TIFF" and max(image.tag_v2.get(258, (8,))) > 8
    deep |= image.format == "PPM" and _DEEP_PPM.match(data) is not None
    if deep:
        return _DEEP
    frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    return f"has {frames} pictures in one file; save each as a file of its own" if frames > 1 else None


def _plain(image: Any) -> Any:
    """Grey or RGB, if that loses nothing; otherwise the image, or one that shows its transparency."""
    if "A" in image.getbands() or "transparency" in image.info:
        shown = image.convert("RGBA")
        if shown.getchannel("A").getextrema()[0] < 255:
            return shown
        return shown.convert("L" if image.mode in ("L", "LA") else "RGB")
    return image.convert({"1": "L", "P": "RGB"}[image.mode]) if image.mode in ("1", "P") else image


def _decoded(read: Callable[..., np.ndarray], items: Sequence[object] | np.ndarray) -> Iterator[Images]:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            batches = [chunk[at : at + 128] for at in range(0, len(chunk), 128)]  # a task each: fewer hand-overs
            yield np.concatenate(list(pool.map(lambda batch: np.stack([read(item) for item in batch]), batches)))


def _pillow() -> tuple[ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageOps  # only readers of image files need it
    except ModuleNotFoundError:
        raise InputError(
            "the package 'pillow', which reads image files, is not installed; install it with: "
            "pip install 'arm-sampling[samples]'"
        ) from None
    return Image, ImageOps
