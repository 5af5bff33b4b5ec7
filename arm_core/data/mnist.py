"""MNIST (LeCun et al. 1998), grey or binarised in any of the field's ways."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arm_core.data import binary_mnist
from arm_core.data.base import DataOptions, Source, status_of
from arm_core.data.files import Archive, data_root, fetch_remedy, find
from arm_core.data.idx import check_images, layouts, read_images
from arm_core.data.prepare import preparation, refuse
from arm_core.data.published import Published

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
ARCHIVES = tuple(
    Archive(f"MNIST/raw/{name}.gz", f"md5:{md5}", size, tuple(f"{mirror}{name}.gz" for mirror in _MIRRORS))
    for name, md5, size in (
        ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    )
)


class MNIST(Published):
    """28x28 digits: 50,000 for training (the first ones of the training file), 10,000 (its last), 10,000 test.

    `binarise="fixed"` reads the published draw instead, which has the same sizes and its own files.
    """

    KINDS = (DataOptions(), DataOptions(binarise="fixed"))

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        prepared = preparation("mnist", config, (1, 28, 28))
        paths = self.locate(root, config)
        if config.binarise == "fixed":
            other = "the fixed binarisation is one of whole images; leave it out, or choose static or threshold"
            refuse("mnist", DataOptions(crop=config.crop, downscale=config.downscale), crop=other, downscale=other)
            splits, sources = binary_mnist.read_splits(paths), self.check(paths, config)
            content: dict[str, Any] = {"variant": "fixed", "categories": 2, "splits": splits}
            rule = "as published"
        else:
            (train, test), sources = read_images(paths, "MNIST")
            cut = len(train) - len(train) // 6
            cuts = {"train": (0, slice(cut)), "valid": (0, slice(cut, None)), "test": (1, slice(None))}
            content, rule = prepared.build([train, test], cuts), "valid: the last sixth of the training file"
        super().__init__(
            name="mnist",
            status=status_of(sources),
            rule=rule,
            sources=sources,
            published=binary_mnist.PUBLISHED,
            **content,
        )

    @classmethod
    def locate(cls, root: Path | None, config: DataOptions) -> list[Path]:
        """The files that are read; see `files.find`."""
        fixed = config.binarise == "fixed"
        name = "mnist --binarise fixed" if fixed else "mnist"
        places = binary_mnist.LAYOUTS if fixed else layouts("MNIST")
        return find(name, [data_root(root)], places, remedy=fetch_remedy(name))

    @classmethod
    def archives(cls, config: DataOptions) -> tuple[Archive, ...]:
        """What to fetch."""
        return binary_mnist.ARCHIVES if config.binarise == "fixed" else ARCHIVES

    @classmethod
    def check(cls, paths: Sequence[Path], config: DataOptions) -> list[Source]:
        """See `Published`."""
        return binary_mnist.check(paths) if config.binarise == "fixed" else check_images(paths, "MNIST")
