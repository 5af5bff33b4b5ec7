"""The images that `harness sample --prefix` completes: read from a file, and cut to their first rows."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arm_core import Checkpoint, InputError, Layout
from arm_core.data.image_files import SUFFIXES, decode
from harness.jobs.latents import sequences, shown_layout


def read_prefix(file: Path, checkpoint: Checkpoint, *, keep: int | None) -> Tensor:
    """The leading dims of the images in a file, integers (images, known).

    Args:
        file: .npz (the array `images`, or its only one), .npy, or a picture.
        checkpoint: whose ARM shall complete them.
        keep: rows of each image; None: the upper half.

    Raises:
        InputError: the file holds no images of this ARM, or so many rows cannot be kept.
    """
    pixels, layout = shown_layout(checkpoint), checkpoint.arm.layout
    side = pixels.height // layout.height  # rows of an image that one row of tokens stands for
    rows = pixels.height // 2 // side * side if keep is None else keep
    if layout.height == 1:
        raise InputError(f"--prefix keeps rows, and {layout} has only one; in Python: sample_many(..., prefix=x)")
    if not 0 < rows < pixels.height or rows % side:
        rule = f"in [{side}, {pixels.height - side}]" + (f", a multiple of {side}" if side > 1 else "")
        raise InputError(f"--keep must be a number of rows {rule}, got {rows}")
    if file.suffix.lower() in SUFFIXES:
        x = sequences(checkpoint, torch.from_numpy(_picture(file, pixels)))
    else:
        arrays = _arrays(file)
        if checkpoint.autoencoder is not None and "latents" in arrays:  # of samples: they are the images' own
            x = layout.flatten(torch.from_numpy(_fitting(arrays["latents"], layout, file))).long()
        else:
            x = sequences(checkpoint, torch.from_numpy(_fitting(_images_of(arrays, file), pixels, file)))
    return x[:, : rows // side * layout.width * layout.channels]


def _picture(file: Path, layout: Layout) -> np.ndarray:
    """The one image of a picture, its 256 levels brought to the categories of the layout."""
    if layout.categories > 256:
        raise InputError(f"{file}: a picture has 256 levels, the model {layout.categories} categories; give a .npz")
    found = decode(file.read_bytes(), str(file))
    wanted = (layout.channels, layout.height, layout.width)
    if found.shape != wanted:
        mode = "L" if layout.channels == 1 else "RGB"
        raise InputError(
            f"{file} must have (channels, height, width) = {wanted} as the samples do, got {found.shape}; "
            f'with Pillow: image.convert("{mode}").resize(({layout.width}, {layout.height}))'
        )
    levels, most = found[None].astype(np.int64), layout.categories - 1
    if layout.categories & most:  # no power of 2: as `harness sample` shows them
        return np.rint(levels * most / 255).astype(np.uint8)
    return (levels * layout.categories // 256).astype(np.uint8)  # as the readers of data sets cut them


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        content = np.load(file, allow_pickle=False)
        return {name: content[name] for name in content.files} if hasattr(content, "files") else {"images": content}
    except (ValueError, EOFError) as error:
        raise InputError(f"{file} must be a .npz, a .npy or a picture; it cannot be read ({error})") from None


def _images_of(arrays: dict[str, np.ndarray], file: Path) -> np.ndarray:
    if "images" not in arrays and len(arrays) != 1:
        raise InputError(f"{file} must hold an array `images`, it has {', '.join(arrays) or 'none'}; rename one")
    return arrays.get("images", next(iter(arrays.values())))


def _fitting(images: np.ndarray, layout: Layout, file: Path) -> np.ndarray:
    """(n, C, H, W), whole numbers below the categories of the layout."""
    if images.dtype.kind not in "iub":
        most = layout.categories - 1
        raise InputError(
            f"{file} must hold whole numbers in [0, {most}], got {images.dtype}; from values in [0, 1]: "
            f"numpy.rint(images * {most}).astype(int)"
        )
    found = _channels_first(images, layout)
    if found is None or not len(found):
        wanted = (layout.channels, layout.height, layout.width)
        raise InputError(f"{file} must hold images of (channels, height, width) = {wanted}, got {images.shape}")
    if not 0 <= int(found.min()) <= int(found.max()) < layout.categories:
        raise InputError(
            f"{file} must hold values in [0, {layout.categories - 1}], as the model was trained on, got {found.min()} "
            f"to {found.max()}; from 256 levels: images.astype(int) * {layout.categories} // 256"
        )
    return np.ascontiguousarray(found.astype(np.uint8 if layout.categories <= 256 else np.int32))


def _channels_first(images: np.ndarray, layout: Layout) -> np.ndarray | None:
    """(n, C, H, W), from arrays with channels first, last, or left out if there is one; also of a single image."""
    channels, height, width = layout.channels, layout.height, layout.width
    for single in (images, images[None]):
        if single.ndim == 4 and single.shape[1:] == (channels, height, width):
            return single
        if single.ndim == 4 and single.shape[1:] == (height, width, channels):
            return single.transpose(0, 3, 1, 2)
        if single.ndim == 3 and channels == 1 and single.shape[1:] == (height, width):
            return single[:, None]
    return None
