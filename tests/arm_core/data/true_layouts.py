"""Writes small datasets byte for byte in the layouts that the published ones have.

The pixels are random, so all of them are synthetic: they prove readers, never figures.
"""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (count, *shape), dtype=np.uint8)


def idx_bytes(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 0x00000803, *images.shape) + images.tobytes()


def write_mnist(folder: Path, *, zipped: bool = True, train: int = 60, test: int = 10) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    parts = pixels(train, 28, 28, seed=1), pixels(test, 28, 28, seed=2)
    for stem, images in zip(("train", "t10k"), parts, strict=True):
        data = idx_bytes(images)
        name = f"{stem}-images-idx3-ubyte"
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return parts


def write_binary_mnist(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for seed, (split, count) in enumerate({"train": 50, "valid": 10, "test": 12}.items()):
        splits[split] = pixels(count, 28, 28, seed=seed) & 1
        lines = [" ".join(map(str, image.ravel().tolist())) + "\n" for image in splits[split]]
        (folder / f"binarized_mnist_{split}.amat").write_text("".join(lines))
    return splits


def python2_pickle(data: np.ndarray) -> bytes:
    """A batch as Python 2 with NumPy 1 pickled it: protocol 2, text as byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    count, width = (b"M" + struct.pack("<H", size) for size in data.shape)
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + count + width + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<I", data.nbytes) + data.tobytes() + b"tb"
    labels = b"](" + b"K\x03" * len(data) + b"e"
    return b"\x80\x02}(" + text(b"labels") + labels + text(b"data") + array + b"u."


def write_cifar10(folder: Path, kind: str, *, each: int = 20) -> list[np.ndarray]:
    """`py` or `bin` files, or `py.tar.gz` and `bin.tar.gz` archives of them."""
    batches = [pixels(each, 3072, seed=seed) for seed in range(6)]
    content = {}
    for name, batch in zip(BATCHES, batches, strict=True):
        if kind.startswith("py"):
            content[f"cifar-10-batches-py/{name}"] = python2_pickle(batch)
        else:
            records = np.concatenate([np.full((each, 1), 7, np.uint8), batch], axis=1)
            content[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    if kind.endswith(".tar.gz"):
        archive = folder / f"cifar-10-{'python' if kind.startswith('py') else 'binary'}.tar.gz"
        write_tar(archive, content, mode="w:gz")
    else:
        for name, data in content.items():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(data)
    return [batch.reshape(-1, 3, 32, 32) for batch in batches]


def write_tar(path: Path, content: dict[str, bytes], *, mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_svhn(folder: Path) -> dict[str, np.ndarray]:
    parts = {}
    for seed, (part, count) in enumerate({"train": 30, "extra": 25, "test": 11}.items()):
        parts[part] = pixels(count, 3, 32, 32, seed=seed)
        content = {"X": parts[part].transpose(2, 3, 1, 0), "y": np.full((count, 1), 10, np.uint8)}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
    return parts


def png_bytes(image: np.ndarray, kind: str = "PNG") -> bytes:
    """Of an image (C, H, W)."""
    file = io.BytesIO()
    shown = image.transpose(1, 2, 0)
    Image.fromarray(shown[:, :, 0] if shown.shape[2] == 1 else shown).save(file, kind)
    return file.getvalue()


def write_imagenet32(folder: Path, kind: str, *, train: int = 40, valid: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """`png`, `tar` (members in another order than their names) or `npy`."""
    parts = pixels(train, 3, 32, 32, seed=1), pixels(valid, 3, 32, 32, seed=2)
    for part, images in zip(("train_32x32", "valid_32x32"), parts, strict=True):
        files = {f"{part}/{number:07d}.png": png_bytes(image) for number, image in enumerate(images, 1)}
        if kind == "npy":
            np.save(folder / f"{part}.npy", images.transpose(0, 2, 3, 1))
        elif kind == "tar":
            write_tar(folder / f"{part}.tar", dict(reversed(files.items())))
        else:
            (folder / part).mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
    return parts


def npz_bytes(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def write_imagenet32_new(folder: Path, *, zipped: bool) -> tuple[np.ndarray, np.ndarray]:
    batches = [pixels(6, 3072, seed=seed) for seed in range(11)]
    names = [*(f"train_data_batch_{number}.npz" for number in range(1, 11)), "val_data.npz"]
    files = {
        name: npz_bytes(data=batch, labels=np.ones(6, np.int64), mean=np.zeros(3072))
        for name, batch in zip(names, batches, strict=True)
    }
    if zipped:
        for archive, part in (("train", names[:-1]), ("val", names[-1:])):
            with zipfile.ZipFile(folder / f"Imagenet32_{archive}_npz.zip", "w", zipfile.ZIP_DEFLATED) as file:
                for name in part:
                    file.writestr(f"Imagenet32_{archive}_npz/{name}", files[name])
    else:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    images = [batch.reshape(-1, 3, 32, 32) for batch in batches]
    return np.concatenate(images[:-1]), images[-1]
