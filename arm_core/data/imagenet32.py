"""ImageNet at 32x32 as van den Oord et al. (2016) made it: the paper's, called `old` here.

Two tars of PNG files, which need not be unpacked; or the folders that they unpack to; or two .npy arrays. Other
pixels than those of `imagenet32_new`, which was resampled otherwise: bits/dim of the two are never compared.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arm_core.data.arrays import ArrayStream
from arm_core.data.base import SPLITS, DataOptions, Progress, Source, status_of
from arm_core.data.files import Archive, MissingDataError, checked, data_root, fetch_remedy, find
from arm_core.data.image_files import FolderStream, TarStream, image_names
from arm_core.data.prepare import drawn_split, preparation
from arm_core.data.published import Published
from arm_core.data.store import Conversion, ImageStream, marks_of, open_store, place_of, stored

SHAPE = (3, 32, 32)
VALID = 10_000
PUBLISHED = {"train": 1_271_149, "valid": VALID, "test": 49_999}
ARCHIVES = tuple(
    Archive(f"{part}_32x32.tar", f"sha256:{sha256}", size, (f"http://image-net.org/small/{part}_32x32.tar",))
    for part, sha256, size in (
        ("train", "244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5", 4_113_018_880),
        ("valid", "862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7", 161_474_560),
    )
)
_LAYOUTS = [
    [f"{folder}train_32x32{end}", f"{folder}valid_32x32{end}"]
    for end in (".tar", "", ".npy")
    for folder in ("", "imagenet32/")
]


class ImageNet32(Published):
    """32x32 colour photos: 1,271,149 for training, 10,000 for validation, 49,999 test; memory-mapped.

    The first use of each preparation converts the files, which takes minutes; later ones open at once.
    """

    NAME, PREFIX = "imagenet32", "old "
    PUBLISHED = PUBLISHED
    ARCHIVES = ARCHIVES
    LAYOUTS = _LAYOUTS

    def __init__(self, root: Path | None, config: DataOptions, progress: Progress | None = None) -> None:
        prepared = preparation(self.NAME, config, SHAPE, prefix=self.PREFIX)
        place = place_of(data_root(root), self.NAME, prepared.variant)
        try:
            paths = self.locate(root, config)
        except MissingDataError:
            if open_store(place) is None:
                raise
            paths = None  # converted once, and the originals deleted since

        def make() -> Conversion:
            found = paths or []
            sources, streams = self.check(found, config, progress), self.streams(found, place, progress)
            count = sum(stream.count for stream in streams[:-1])
            route = np.zeros(count + streams[-1].count, np.uint8)
            route[drawn_split(count, {"valid": min(VALID, count // 10)})["valid"]] = SPLITS.index("valid")
            route[count:] = SPLITS.index("test")
            about = {
                "name": self.NAME,
                "status": status_of(sources),
                "rule": "test: the published validation images; valid: drawn from the training images, seed 0",
                "sources": sources,
                "published": self.PUBLISHED,
            }
            return Conversion(about, prepared, streams, route)

        super().__init__(**stored(place, marks_of(paths) if paths is not None else None, make, progress))

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files and folders that are read; see `files.find`."""
        return find(cls.NAME, [data_root(root)], cls.LAYOUTS, remedy=fetch_remedy(cls.NAME))

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        return cls.ARCHIVES

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions, progress: Progress | None = None) -> list[Source]:
        """See `Published`; of unpacked files no checksum is known."""
        if paths[0].is_dir():
            return [Source(path) for path in paths]
        known = {archive.path: archive.digest for archive in cls.ARCHIVES}
        return [checked(path, known.get(path.name), progress) for path in paths]

    def streams(self, paths: Sequence[Path], place: Path, progress: Progress | None) -> list[ImageStream]:
        """The training images, in one stream or several, and last the test images."""
        kind = paths[0].suffix
        if kind == ".tar":
            return [TarStream(path, SHAPE, progress) for path in paths]
        if kind == ".npy":
            return [ArrayStream(path, SHAPE) for path in paths]
        return [FolderStream(path, image_names(path)[0], SHAPE) for path in paths]
