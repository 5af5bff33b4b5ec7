"""ImageNet at 32x32 as Chrabaszcz et al. (2017) made it, by the box filter: what image-net.org offers today.

Ten training batches and one of validation images in `.npz` files, or the two zips that hold them. Other pixels than
those of `imagenet32`: bits/dim of the two are never compared.
"""

from collections.abc import Sequence
from pathlib import Path

from arm_core.data.arrays import BatchStream, zip_members
from arm_core.data.base import DataOptions, Progress, Source
from arm_core.data.files import Archive, checked
from arm_core.data.imagenet32 import SHAPE, VALID, ImageNet32
from arm_core.data.store import ImageStream

_TRAIN = [f"train_data_batch_{number}.npz" for number in range(1, 11)]
_TEST = "val_data.npz"
_MD5 = dict(
    zip(
        [*_TRAIN, _TEST],
        [
            "md5:464fde20de6eb44c28cc1a8c11544bb1",
            "md5:bdb56e71882c3fd91619d789d5dd7c79",
            "md5:83ff36d76ea26867491a281ea6e1d03b",
            "md5:98ff184fe109d5c2a0f6da63843880c7",
            "md5:62b8803e13c3e6de9498da7aaaae57c8",
            "md5:e0b06665f890b029f1d8d0a0db26e119",
            "md5:9731f469aac1622477813c132c5a847a",
            "md5:60aed934b9d26b7ee83a1a83bdcfbe0f",
            "md5:b96328e6affd718660c2561a6fe8c14c",
            "md5:1dc618d544c554220dd118f72975470c",
            "md5:a8c04a389f2649841fb7a01720da9dd9",
        ],
        strict=True,
    )
)

_ARCHIVES = tuple(
    Archive(name, f"md5:{md5}", None, (f"https://image-net.org/data/downsample/{name}",))
    for name, md5 in (
        ("Imagenet32_train_npz.zip", "3e3d1b7ddb901d59d1fbcba69b3676fa"),
        ("Imagenet32_val_npz.zip", "0300f7a8c5de0c82fb6fc6092b4858ed"),
    )
)


class ImageNet32New(ImageNet32):
    """32x32 colour photos: 1,271,167 for training, 10,000 for validation, 50,000 test; memory-mapped."""

    NAME, PREFIX = "imagenet32_new", "new "
    PUBLISHED = {"train": 1_271_167, "valid": VALID, "test": 50_000}  # noqa: RUF012
    ARCHIVES = _ARCHIVES
    LAYOUTS = [  # noqa: RUF012
        *([f"{folder}{archive.path}" for archive in _ARCHIVES] for folder in ("", "imagenet32_new/")),
        [*(f"Imagenet32_train_npz/{name}" for name in _TRAIN), f"Imagenet32_val_npz/{_TEST}"],
        *([f"{folder}{name}" for name in [*_TRAIN, _TEST]] for folder in ("imagenet32_new/", "")),
    ]

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions, progress: Progress | None = None) -> list[Source]:
        """See `Published`."""
        known = {archive.path: archive.digest for archive in cls.ARCHIVES} | _MD5
        return [checked(path, known[path.name], progress) for path in paths]

    def streams(self, paths: Sequence[Path], place: Path, progress: Progress | None) -> list[ImageStream]:
        """The ten training batches, and last the validation images, which are the test split."""
        if paths[0].suffix != ".zip":
            return [BatchStream(path, SHAPE) for path in paths]
        found = [
            (path, member)
            for path, names in zip(paths, (_TRAIN, [_TEST]), strict=True)
            for member in zip_members(path, names)
        ]
        return [BatchStream(path, SHAPE, member=member, scratch=place.parent) for path, member in found]
