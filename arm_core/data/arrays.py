"""NumPy arrays on disk: `.npy` files as streams, members of `.npz` files as streams, and `npz:PATH` as a dataset.

Nothing is ever unpickled: an array of objects is refused.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from arm_core.data.archives import check_member, readable
from arm_core.data.base import SPLITS, DataOptions, Dataset, Images
from arm_core.data.files import MissingDataError, checked
from arm_core.data.prepare import TENTHS, Rows, preparation, refuse, tenths
from arm_core.data.store import CHUNK
from arm_core.errors import InputError

_MOST = 1 << 30
"""The most bytes of a batch inside a zip."""
Shape = tuple[int, int, int]


BESIDE = ("arm_calls", "seed", "latents")
"""What `harness sample` writes beside images and categories."""


class ArrayStream:
    """A `.npy` file of uint8 images, (n, C, H, W) or (n, H, W, C), memory-mapped."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.array = _channels_first(_load(path), shape, str(path))
        self.count = len(self.array)

    def chunks(self, start: int) -> Iterator[Images]:
        """See `ImageStream`."""
        for at in range(start, self.count, CHUNK):
            yield np.ascontiguousarray(self.array[at : at + CHUNK])


class BatchStream:
    """The array `data`, (n, C * H * W) uint8 planar, of a `.npz` file, which may itself lie in a zip.

    Args:
        path: of the `.npz`, or of the zip that holds it.
        shape: (channels, height, width) of an image.
        member: of the zip; None: `path` is the `.npz`.
        scratch: folder for the member while it is read.
    """

    def __init__(self, path: Path, shape: Shape, *, member: str | None = None, scratch: Path | None = None) -> None:
        self.path, self.shape, self.member, self.scratch = path, shape, member, scratch
        self.name = str(path if member is None else path / member)
        with self._open() as (_, count):
            self.count = count

    def chunks(self, start: int) -> Iterator[Images]:
        """See `ImageStream`."""
        width = int(np.prod(self.shape))
        with readable(self.path), self._open() as (file, count):
            file.seek(file.tell() + start * width)
            for at in range(start, count, CHUNK):
                size = min(CHUNK, count - at) * width
                data = file.read(size)
                if len(data) < size:
                    raise InputError(f"{self.name} is cut off after {at} of {count} images; fetch it anew")
                yield np.frombuffer(data, np.uint8).reshape(-1, *self.shape)
            file.read(1)  # the end, where the checksum is

    @contextmanager
    def _open(self) -> Iterator[tuple[zipfile.ZipExtFile, int]]:
        """The file at the first byte of its array, and the number of images."""
        with readable(self.path), self._npz() as source, zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                check_member(self.path, name)
            if "data.npy" not in archive.namelist():
                raise InputError(f"{self.name} must hold an array 'data', it has {', '.join(archive.namelist())}")
            with cast(zipfile.ZipExtFile, archive.open("data.npy")) as file:
                count = self._count(file, archive.getinfo("data.npy").file_size)
                yield file, count

    @contextmanager
    def _npz(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with self.path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as outer, tempfile.TemporaryFile(dir=self.scratch) as copy:
            with outer.open(self.member) as inner:
                shutil.copyfileobj(inner, copy)
            copy.seek(0)
            yield copy

    def _count(self, file: zipfile.ZipExtFile, stated: int) -> int:
        width = int(np.prod(self.shape))
        shape, fortran, dtype = _header(file, self.name)
        if dtype != np.uint8:
            raise InputError(f"{self.name}: 'data' must have the dtype uint8, got {dtype}; nothing is unpickled")
        if len(shape) != 2 or shape[1] != width or fortran:
            order = " in Fortran order" if fortran else ""
            raise InputError(f"{self.name}: 'data' must have the shape (n, {width}), got {shape}{order}")
        if stated != file.tell() + shape[0] * width:
            rule = f"{shape[0]} images take {shape[0] * width} bytes"
            raise InputError(f"{self.name}: {rule}, the archive states {stated - file.tell()}; fetch it anew")
        return shape[0]


def zip_members(path: Path, wanted: list[str]) -> list[str]:
    """The members of a zip that have these file names, in their order.

    Raises:
        InputError: it is damaged, lacks one, has a name that leaves its folder, or a member larger than any batch.
    """
    found = {}
    with readable(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            check_member(path, info.filename)
            found[info.filename.rpartition("/")[2]] = info
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}; fetch it anew")
    for name in wanted:
        if found[name].file_size > _MOST:
            raise InputError(f"{path}: {name} must have at most {_MOST} bytes, it states {found[name].file_size}")
    return [found[name].filename for name in wanted]


class ArrayFile(Dataset):
    """`npz:PATH`: uint8 arrays of yours.

    Either three arrays `train`, `valid` and `test`, or one array `images`, of which a tenth each becomes validation
    and test (drawn, seed 0); what `harness sample` writes beside it is not read. Images are (n, H, W), or (n, H, W, C)
    if only the last axis has 1 or 3 entries, otherwise (n, C, H, W). An array `categories` (one number) says how many
    values a pixel can take; without it there are 256.
    """

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        if root is None:
            raise InputError("npz: must be followed by the path of a file, as in npz:my_images.npz")
        path = root
        if not path.is_file():
            raise MissingDataError(f"npz: there is no file {path.absolute()}; give another path", [path])
        arrays = _read_npz(path)
        name, categories = f"npz:{path}", 256
        if "categories" in arrays:
            categories = _categories(arrays.pop("categories"), path)
        if categories != 256:
            reason = f"the images have {categories} categories already; leave it out"
            refuse(name, config, binarise=reason, bits=reason, downscale=reason)
        if config.binarise == "fixed":
            refuse(name, config, binarise="that draw is one of MNIST; use dynamic, static or threshold")
        cuts: dict[str, tuple[int, Rows]]
        if set(arrays) == set(SPLITS):
            parts = [_guessed(arrays[split], f"{path}, {split}") for split in SPLITS]
            cuts = {split: (index, slice(None)) for index, split in enumerate(SPLITS)}
            rule = "as given"
        elif "images" in arrays and not set(arrays) - {"images", *BESIDE}:
            parts = [_guessed(arrays["images"], f"{path}, images")]
            rows = tenths(len(parts[0]))
            cuts = {split: (0, rows[split]) for split in SPLITS}
            rule = TENTHS
        else:
            has = ", ".join(arrays) or "none"
            raise InputError(
                f"{path} must hold train, valid and test, or images; it has {has}; rename or remove arrays"
            )
        for split, (index, chosen) in cuts.items():
            _check_values(parts[index][chosen], parts[0].shape[1:], categories, f"{path}, {split}")
        prepared = preparation(name, config, parts[0].shape[1:])
        content = prepared.build(parts, cuts)
        if categories != 256:
            content |= {"categories": categories, "variant": prepared.variant.replace("8-bit", f"{categories} levels")}
        super().__init__(name=name, status="unverified", rule=rule, sources=[checked(path, None)], **content)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with readable(path), np.load(path, allow_pickle=False) as content:
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(f"{path} must be a .npz archive, got a single array; write it with numpy.savez")
            for name in content.files:
                check_member(path, name)
            return {name: content[name] for name in content.files}
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as arrays ({error}); nothing was unpickled") from None


def _categories(array: np.ndarray, path: Path) -> int:
    if array.ndim != 0 or array.dtype.kind not in "iu" or not 2 <= array <= 256:
        raise InputError(f"{path}: categories must be one whole number in [2, 256], got {array!r}")
    return int(array)


def _guessed(array: np.ndarray, name: str) -> Images:
    """(n, C, H, W), from any of the shapes that `ArrayFile` takes."""
    if array.dtype != np.uint8:
        raise InputError(f"{name} must have the dtype uint8, got {array.dtype}; {_as_bytes(array)}")
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise InputError(f"{name} must have the shape (n, H, W), (n, C, H, W) or (n, H, W, C), got {array.shape}")
    last, second = array.shape[-1], array.shape[1]
    if array.ndim == 3 and last < 4:
        why = "which looks like one colour image: stack images, or give grey ones as (n, 1, H, W)"
        raise InputError(f"{name} has the shape {array.shape}, {why}")
    if array.ndim == 3:
        return array[:, None]
    if last in (2, 4) and second > 4:
        why = "which looks like alpha after colours: leave it out ([..., :-1]), or give channels first"
        raise InputError(f"{name} has the shape {array.shape}, {why}")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if last in (1, 3) and second not in (1, 3) else array


def _as_bytes(array: np.ndarray) -> str:
    """How values of another dtype become bytes."""
    if array.size == 0 or array.dtype.kind not in "biuf":
        return "give numbers from 0 to 255"
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return "its values lie in [0, 1]: numpy.rint(images * 255).astype(numpy.uint8)"
    if array.min() >= 0 and array.max() <= 255:
        return "numpy.rint(images).astype(numpy.uint8)" if array.dtype.kind == "f" else "images.astype(numpy.uint8)"
    if array.dtype.kind == "u" or (array.min() >= 0 and array.max() <= 65535 and array.dtype.kind == "i"):
        return "of 16 bits keep the highest 8: (images // 256).astype(numpy.uint8)"
    return f"its values lie in [{array.min():g}, {array.max():g}]: scale them to [0, 255], round, and convert"


def _check_values(images: Images, shape: tuple[int, ...], categories: int, name: str) -> None:
    if len(images) == 0:
        raise InputError(f"{name} has no image; there must be at least one, of 10 if they are split by themselves")
    if images.shape[1:] != shape:
        raise InputError(f"{name} must have images of the shape {shape} as train has, got {images.shape[1:]}")
    if images.max() >= categories:
        raise InputError(f"{name} must have values below its {categories} categories, got {images.max()}")


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}); nothing was unpickled") from None


def _channels_first(array: np.ndarray, shape: Shape, name: str) -> Images:
    channels, height, width = shape
    if array.dtype != np.uint8:
        raise InputError(f"{name} must have the dtype uint8, got {array.dtype}")
    if array.ndim == 4 and array.shape[1:] == (height, width, channels):
        return array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1:] != shape:
        raise InputError(f"{name} must have the shape (n, {channels}, {height}, {width}), got {array.shape}")
    return array


def _header(file: zipfile.ZipExtFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of the array that begins here."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)
    except ValueError as error:
        raise InputError(f"{name} is no array ({error}); fetch it anew") from None
