"""1,797 handwritten digits of 8x8 pixels and 17 grey levels, as scikit-learn ships them.

The small case of many levels.
"""

from pathlib import Path

from arm_core.data.base import DataOptions, Dataset
from arm_core.data.prepare import refuse, stratified_split
from arm_core.data.shipped import Shipped, gzipped_integers, no_root

FILE = Shipped(
    "scikit-learn",
    "sklearn/datasets/data/digits.csv.gz",
    "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
)
SIZES = {"train": 1397, "valid": 200, "test": 200}


class Digits(Dataset):
    """8x8 digits, values 0 .. 16, split 1,397 / 200 / 200 with every class in proportion (seeded, fixed)."""

    SHIPPED = (FILE,)

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        no_root("digits", "the package scikit-learn", root)
        small = "the images have only 8x8 pixels and 17 levels; leave it out"
        refuse("digits", config, binarise=small, bits=small, crop=small, downscale=small)
        table = gzipped_integers(FILE.read())
        images, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]
        rows = stratified_split(labels, SIZES, seed=0)
        super().__init__(
            name="digits",
            variant="17 levels",
            status="sample",
            categories=17,
            splits={name: images[index] for name, index in rows.items()},
            labels={name: labels[index] for name, index in rows.items()},
            rule="drawn by class, seed 0",
            sources=[FILE.source()],
            published=SIZES,
        )
