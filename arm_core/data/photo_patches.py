"""Colour patches cut at run time from seven photos that packages ship, at three scales.

Photos: china and flower (scikit-learn, CC BY 2.0), astronaut, coffee, chelsea and rocket (scikit-image, CC0
or public domain), grace_hopper (matplotlib, public domain). Patches of downscaled photos are easier than
CIFAR images: their figures do not stand beside those of CIFAR.
"""

import io
from pathlib import Path

import numpy as np

from arm_core.data.base import DataOptions, Dataset, Images
from arm_core.data.prepare import downscale, refuse
from arm_core.data.shipped import Shipped, no_root
from arm_core.errors import InputError

PHOTOS = {
    "china": Shipped(
        "scikit-learn",
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    "flower": Shipped(
        "scikit-learn",
        "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    "astronaut": Shipped(
        "scikit-image",
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "coffee": Shipped(
        "scikit-image",
        "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    "chelsea": Shipped(
        "scikit-image",
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "rocket": Shipped(
        "scikit-image",
        "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    "grace_hopper": Shipped(
        "matplotlib",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    ),
}
SPLIT_PHOTOS = {
    "train": ("china", "flower", "astronaut", "coffee", "rocket"),
    "valid": ("chelsea",),
    "test": ("grace_hopper",),
}
"""Whole photos, so that no patch of a held-out split has a neighbour in training."""
SCALES = (1, 2, 4)


class PhotoPatches(Dataset):
    """Square patches, side by side, from each photo at scales 1, 1/2 and 1/4 (area averages).

    `crop` is the side of a patch, 32 unless told: a smaller one gives more patches, none of them overlapping
    another of its scale. `downscale` shrinks the photos first.
    """

    SHIPPED = tuple(PHOTOS.values())

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        no_root("photo_patches", "the packages scikit-learn, scikit-image and matplotlib", root)
        refuse("photo_patches", config, binarise="these are colour photos; use bits for fewer levels")
        side = config.crop if config.crop is not None else 32
        bits = config.bits if config.bits is not None else 8
        splits = {}
        for split, names in SPLIT_PHOTOS.items():
            patches = [_patches(_photo(name), config.downscale, side) for name in names]
            splits[split] = np.concatenate(patches) >> (8 - bits)
        scale = f" 1/{config.downscale}" if config.downscale > 1 else ""
        super().__init__(
            name="photo_patches",
            variant=f"{side}x{side} {bits}-bit{scale}",
            status="sample",
            categories=2**bits,
            splits=splits,
            rule="by whole photo",
            sources=[photo.source() for photo in PHOTOS.values()],
        )


def _photo(name: str) -> Images:
    data = PHOTOS[name].read()
    try:
        from PIL import Image  # only this reader needs it
    except ModuleNotFoundError:
        raise InputError(
            "photo_patches: the package 'pillow', which reads photos, is not installed; "
            "install it with: pip install 'arm-sampling[samples]'"
        ) from None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None]


def _patches(photo: Images, first: int, side: int) -> Images:
    """All whole patches of the photo at every scale, (n, 3, side, side)."""
    room = min(photo.shape[2:]) // first
    if side > room:
        raise InputError(
            f"photo_patches: patches of {side}x{side} pixels do not fit a photo that has {room} rows "
            f"or columns at downscale={first}; use a smaller crop or downscale"
        )
    found = []
    for scale in SCALES:
        image = downscale(photo, first * scale)[0]
        rows, columns = image.shape[1] // side, image.shape[2] // side
        grid = image[:, : rows * side, : columns * side].reshape(3, rows, side, columns, side)
        found.append(grid.transpose(1, 3, 0, 2, 4).reshape(-1, 3, side, side))
    return np.concatenate(found)
