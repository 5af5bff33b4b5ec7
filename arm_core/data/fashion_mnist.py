"""Fashion-MNIST (Xiao et al. 2017), in the files of MNIST's format; also where Debian's package puts them."""

from collections.abc import Sequence
from pathlib import Path

from arm_core.data.base import DataOptions, Source, status_of
from arm_core.data.files import Archive, data_root, find
from arm_core.data.idx import check_images, layouts, read_images
from arm_core.data.prepare import drawn_split, preparation, refuse
from arm_core.data.published import Published

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PUBLISHED = {"train": 50_000, "valid": 10_000, "test": 10_000}
_MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
ARCHIVES = tuple(
    Archive(f"FashionMNIST/raw/{name}.gz", f"md5:{md5}", size, (f"{_MIRROR}{name}.gz",))
    for name, md5, size in (
        ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
        ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    )
)
_REMEDY = (
    "apt-get install dataset-fashion-mnist, harness data fetch fashion_mnist, or give the folder that holds it "
    "(root, or ARM_DATA)"
)


class FashionMNIST(Published):
    """28x28 grey clothes: 50,000 for training, 10,000 for validation (drawn from the training file), 10,000 test."""

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        if config.binarise == "fixed":
            refuse("fashion_mnist", config, binarise="that draw is one of MNIST; use dynamic, static or threshold")
        prepared = preparation("fashion_mnist", config, (1, 28, 28))
        paths = self.locate(root, config)
        (train, test), sources = read_images(paths, "Fashion-MNIST")
        rows = drawn_split(len(train), {"valid": len(train) // 6})
        super().__init__(
            name="fashion_mnist",
            status=status_of(sources),
            rule="valid: a sixth of the training file, drawn, seed 0",
            sources=sources,
            published=PUBLISHED,
            **prepared.build(
                [train, test], {"train": (0, rows["train"]), "valid": (0, rows["valid"]), "test": (1, slice(None))}
            ),
        )

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files that are read; see `files.find`. Debian's folder is looked at last, and only without a root."""
        roots = [data_root(root)] + ([DEBIAN] if root is None else [])
        return find("fashion_mnist", roots, layouts("FashionMNIST"), remedy=_REMEDY)

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        return ARCHIVES

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions) -> list[Source]:
        """See `Published`."""
        return check_images(paths, "Fashion-MNIST")
