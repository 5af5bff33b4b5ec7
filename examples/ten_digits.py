"""Ten rows of digits, one class a row, under guidance: `python examples/ten_digits.py CHECKPOINT out.png`.

CHECKPOINT is a class-conditional PixelCNN (`arm: {classes: 10}`). Columns of the same number share their noise over all
scales, so that what guidance does can be seen: 0 follows no class, 1 the class, more exaggerates it.
"""

import sys

import torch
from PIL import Image

from arm_core import AutoregressiveModel, load_arm, sample_many
from arm_core.arms import Guided

CLASSES, EACH, SEED = 10, 6, 10
SCALES = (0.0, 1.0, 3.0)


def drawn(arm: AutoregressiveModel, scale: float) -> torch.Tensor:
    """(10 rows, EACH columns, height, width): the samples of every class at one scale of guidance."""
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    guided = Guided(arm, scale=scale, null_context=-1)
    x = sample_many(guided, count=len(labels), seed=SEED, slots=20, context=labels).x
    return guided.layout.unflatten(x)[:, 0].unflatten(0, (CLASSES, EACH))


def picture(blocks: list[torch.Tensor], categories: int, gap: int = 4) -> Image.Image:
    """Blocks of images side by side, dark on light."""
    parts = []
    for block in blocks:
        rows = block.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (10 height, EACH width)
        parts += [rows, torch.zeros(len(rows), gap * 3, dtype=rows.dtype)]
    whole = torch.cat(parts[:-1], dim=1)
    grey = (255 - whole * 255 // (categories - 1)).to(torch.uint8)
    return Image.fromarray(grey.numpy()).resize((2 * grey.shape[1], 2 * grey.shape[0]), Image.Resampling.NEAREST)


def main(checkpoint: str, out: str) -> None:
    arm = load_arm(checkpoint)
    picture([drawn(arm, scale) for scale in SCALES], arm.layout.categories).save(out)
    print(f"{out}: rows are the classes 0 to 9, blocks the scales {', '.join(map(str, SCALES))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
