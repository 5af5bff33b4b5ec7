"""How fast images are converted, and what ImageNet32 at its full size takes to open: time and memory.

The images are synthetic, the full-size arrays sparse files: figures of reading, never of data.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from arm_core.data import DataOptions, load_dataset
from arm_core.data.base import SPLITS
from arm_core.data.imagenet32 import PUBLISHED, SHAPE
from arm_core.data.prepare import preparation
from arm_core.data.store import FORMAT, place_of
from benchmarks.command import ROOT, Benchmark
from harness.console import CONSOLE

_OPEN = """
import json, sys, time, torch
from pathlib import Path
from arm_core.data import load_dataset
from benchmarks.data import memory
before, started = memory(), time.perf_counter()
dataset = load_dataset("imagenet32", sys.argv[1])
dataset.split("train")
images = dataset.training_images()
opened, after = time.perf_counter() - started, memory()
generator = torch.Generator().manual_seed(0)
for _ in range(int(sys.argv[2])):
    images.draw(torch.randint(len(images), (64,), generator=generator), generator).long()
print(json.dumps([len(images), opened, before, after, memory()]))
"""


class Memory(NamedTuple):
    """Bytes of a process: all that is resident, and the part of it that is not pages of files."""

    resident: int
    anonymous: int


def memory() -> Memory:
    """Of this process (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Memory(*(int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")))


def conversion_rate(root: Path, count: int) -> float:
    """Images a second, of `count` training and `count` / 100 validation PNG files, everything included."""
    draw = np.random.Generator(np.random.Philox(0))
    for part, number in (("train_32x32", count), ("valid_32x32", max(1, count // 100))):
        folder = root / part
        folder.mkdir(parents=True)
        for index in range(number):
            (folder / f"{index:07d}.png").write_bytes(_png(draw))
    started = time.perf_counter()
    dataset = load_dataset("imagenet32", root)
    seconds = time.perf_counter() - started
    return sum(len(dataset.split(split)) for split in SPLITS) / seconds


def _png(draw: np.random.Generator) -> bytes:
    """A smooth colour image with a little noise: about as long as a photo of its size."""
    from PIL import Image

    corners = draw.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(corners).resize((32, 32), Image.Resampling.BILINEAR)).astype(np.int64)
    file = io.BytesIO()
    noisy = np.clip(smooth + draw.integers(-12, 13, (32, 32, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(file, "PNG")
    return file.getvalue()


def write_sparse(root: Path) -> None:
    """A conversion of ImageNet32 at its full size, all zeros and without taking room."""
    prepared = preparation("imagenet32", DataOptions(), SHAPE, prefix="old ")
    place = place_of(root, "imagenet32", prepared.variant)
    place.mkdir(parents=True)
    for split in SPLITS:
        shape = (PUBLISHED[split], *SHAPE)
        with (place / f"{split}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape)))
    about = {
        "format": FORMAT,
        "name": "imagenet32",
        "variant": prepared.variant,
        "status": "unverified",
        "categories": prepared.categories,
        "rule": "synthetic",
        "published": PUBLISHED,
        "shape": SHAPE,
        "counts": PUBLISHED,
        "sources": [],
        "read_from": [],
        "sha256": "0" * 64,
    }
    (place / "store.json").write_text(json.dumps(about))


class Opened(NamedTuple):
    """What opening took in a process of its own; memory is what it added."""

    images: int
    seconds: float
    opened: Memory
    read: Memory


def open_sparse(root: Path, batches: int = 500) -> Opened:
    """Open what `write_sparse` wrote in a fresh process, and read random batches of 64 from it."""
    command = [sys.executable, "-c", _OPEN, str(root), str(batches)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    images, seconds, before, *later = json.loads(run.stdout)
    added = [Memory(*(now - then for now, then in zip(after, before, strict=True))) for after in later]
    return Opened(images, seconds, *added)


@click.command(cls=Benchmark)
@click.option("--images", default=20_000, show_default=True, type=click.IntRange(min=100), help="PNG files to convert.")
def main(images: int) -> None:
    """Measure on synthetic files: the rate of conversion, and opening ImageNet32 at its full size.

    Works in a temporary folder; the full size is a sparse file, which takes no room.

    \b
    Example:
      python -m benchmarks.data --images 2000
    """
    with tempfile.TemporaryDirectory() as folder:
        with CONSOLE.status(f"Writing and converting {images} PNG files ..."):
            rate = conversion_rate(Path(folder) / "png", images)
        whole = sum(PUBLISHED.values())
        CONSOLE.print(
            f"Conversion: {rate:.0f} images/s of {images} PNG files (synthetic); all {whole} of ImageNet32 would take "
            f"{whole / rate / 60:.1f} minutes",
            soft_wrap=True,
        )
        write_sparse(Path(folder) / "sparse")
        found = open_sparse(Path(folder) / "sparse")
    mib = [f"{part.resident / 2**20:.0f} MiB ({part.anonymous / 2**20:.0f} not of files)" for part in found[2:]]
    CONSOLE.print(
        f"Opening {found.images} training images (sparse): {found.seconds * 1000:.0f} ms, memory grows by {mib[0]}; "
        f"after 500 random batches of 64 by {mib[1]}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
