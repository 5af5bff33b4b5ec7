"""Bad files: one clear message each, nothing of them executed, and nothing left behind."""

import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from arm_core import InputError
from arm_core.data import MissingDataError, fashion_mnist, load_dataset
from arm_core.data.archives import tar_members
from tests.arm_core.data import true_layouts as write


@pytest.fixture(autouse=True)
def no_debian_package(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path_factory.mktemp("no-debian") / "none")


def refused(tmp_path, name, *messages, **options):
    """Loading says all of that, and nothing new lies in the folder afterwards."""
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    with pytest.raises(InputError) as caught:
        load_dataset(name, tmp_path, **options)
    for message in messages:
        assert message in str(caught.value)
    after = {path: path.stat().st_size for path in tmp_path.rglob("*") if not path.name.endswith(".lock")}
    after = {path: size for path, size in after.items() if path.name != "converted"}
    assert after == before


def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


# truncated

TRUNCATED = {
    "mnist": (lambda root: write.write_mnist(root, zipped=False), "train-images-idx3-ubyte", 10, "is cut off: 60 images take 47040 bytes"),
    "mnist gzipped": (write.write_mnist, "train-images-idx3-ubyte.gz", 100, "is damaged or cut off"),
    "mnist fixed": (write.write_binary_mnist, "binarized_mnist_train.amat", 100, "whole lines and 1468 bytes"),
    "cifar10 python": (lambda root: write.write_cifar10(root, "py"), "cifar-10-batches-py/data_batch_2", 100, "is no whole pickle"),
    "cifar10 binary": (lambda root: write.write_cifar10(root, "bin"), "cifar-10-batches-bin/data_batch_2.bin", 100, "19 whole records and 2973 bytes"),
    "cifar10 archive": (lambda root: write.write_cifar10(root, "py.tar.gz"), "cifar-10-python.tar.gz", 10, "is damaged or cut off"),
    "svhn": (write.write_svhn, "train_32x32.mat", 100, "is no whole MATLAB file"),
    "imagenet32 png": (lambda root: write.write_imagenet32(root, "png"), "train_32x32/0000007.png", 100, "0000007.png is no whole image file"),
    "imagenet32 tar": (lambda root: write.write_imagenet32(root, "tar"), "train_32x32.tar", 40_000, "is damaged or cut off"),
    "imagenet32 npy": (lambda root: write.write_imagenet32(root, "npy"), "train_32x32.npy", 100, "cannot be read as an array"),
    "imagenet32_new": (lambda root: write.write_imagenet32_new(root, zipped=False), "train_data_batch_4.npz", 100, "is damaged or cut off"),
    "imagenet32_new zip": (lambda root: write.write_imagenet32_new(root, zipped=True), "Imagenet32_train_npz.zip", 100, "is damaged or cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", TRUNCATED)
def test_a_truncated_file_is_named(case, tmp_path):
    write_files, name, cut, message = TRUNCATED[case]
    write_files(tmp_path)
    rewrite(tmp_path / name, lambda data: data[:-cut])
    options = {"binarise": "fixed"} if case == "mnist fixed" else {}
    refused(tmp_path, case.split()[0], str(tmp_path / name.split("/")[0]), message, **options)


# wrong shape, dtype or content


def test_idx_files_of_labels_or_of_another_size_are_refused(tmp_path):
    write.write_mnist(tmp_path, zipped=False)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">II", 0x00000801, 60) + bytes(60))
    refused(tmp_path, "mnist", f"{path} is no idx file of images: it starts with 00 00 08 01, not 00 00 08 03")
    path.write_bytes(write.idx_bytes(write.pixels(60, 8, 8)))
    refused(tmp_path, "mnist", f"{path} must hold images of 28x28 pixels, got 8x8")


def test_a_line_that_is_not_binary_is_named_by_its_number(tmp_path):
    write.write_binary_mnist(tmp_path)
    path = tmp_path / "binarized_mnist_valid.amat"
    rewrite(path, lambda data: data[: 1568 * 3 + 20] + b"2" + data[1568 * 3 + 21 :])
    refused(tmp_path, "mnist", f"{path}: line 4 is not 784 digits 0 or 1", binarise="fixed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 4))}, "X must have the dtype uint8, got float64"),
        ({"X": np.zeros((4, 3, 32, 32), np.uint8)}, "X must have the shape (32, 32, 3, n), got (4, 3, 32, 32)"),
        ({"Y": np.zeros(3)}, "must hold an array X"),
    ],
)
def test_matlab_files_of_another_dtype_or_shape_are_refused(content, message, tmp_path):
    write.write_svhn(tmp_path)
    savemat(tmp_path / "train_32x32.mat", content)
    refused(tmp_path, "svhn", str(tmp_path / "train_32x32.mat"), message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((4, 3072))}, "'data' must have the dtype uint8, got float64"),
        ({"data": np.zeros((4, 3, 32, 32), np.uint8)}, "'data' must have the shape (n, 3072), got (4, 3, 32, 32)"),
        ({"images": np.zeros((4, 3072), np.uint8)}, "must hold an array 'data'"),
        ({"data": np.array([{}], dtype=object)}, "'data' must have the dtype uint8, got object; nothing is unpickled"),
    ],
)
def test_batches_of_another_dtype_or_shape_are_refused(arrays, message, tmp_path):
    write.write_imagenet32_new(tmp_path, zipped=False)
    (tmp_path / "train_data_batch_3.npz").write_bytes(write.npz_bytes(**arrays))
    refused(tmp_path, "imagenet32_new", "train_data_batch_3.npz", message)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 32, 32, 3)), "must have the dtype uint8, got float64"),
        (np.zeros((4, 8, 8, 3), np.uint8), "must have the shape (n, 3, 32, 32), got (4, 8, 8, 3)"),
    ],
)
def test_arrays_of_another_dtype_or_shape_are_refused(array, message, tmp_path):
    write.write_imagenet32(tmp_path, "npy")
    np.save(tmp_path / "train_32x32.npy", array)
    refused(tmp_path, "imagenet32", str(tmp_path / "train_32x32.npy"), message)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 32, 16), np.uint8), "must be an RGB image of 32x32 pixels, got RGB of 32x16"),
        (np.zeros((1, 32, 32), np.uint8), "must be an RGB image of 32x32 pixels, got L of 32x32"),
    ],
)
def test_an_image_of_another_size_or_kind_is_named(image, message, tmp_path):
    write.write_imagenet32(tmp_path, "png")
    (tmp_path / "train_32x32" / "0000020.png").write_bytes(write.png_bytes(image))
    refused(tmp_path, "imagenet32", "0000020.png", message)


def test_labels_that_cifar10_has_not_are_refused(tmp_path):
    write.write_cifar10(tmp_path, "bin")
    rewrite(tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin", lambda data: b"\x0a" + data[1:])
    refused(tmp_path, "cifar10", "labels must be in [0, 9], got 10")


# wrong checksum


def test_one_changed_pixel_of_the_real_fashion_mnist_makes_it_unverified(debian_fashion_mnist, tmp_path):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        data = bytearray(gzip.decompress((debian_fashion_mnist / f"{name}.gz").read_bytes()))
        data[-1] ^= 1
        (tmp_path / name).write_bytes(data)
    assert load_dataset("fashion_mnist", tmp_path).status == "unverified"


# pickles


class Bomb:
    """What a hostile pickle holds: it runs a command when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", ["py", "py.tar.gz"])
def test_a_pickle_with_a_foreign_class_is_refused_and_never_executed(kind, tmp_path):
    target = tmp_path / "executed"
    hostile = pickle.dumps({b"data": Bomb(target)})
    write.write_cifar10(tmp_path, kind)
    if kind == "py":
        (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(hostile)
    else:
        content = {f"cifar-10-batches-py/{name}": hostile for name in write.BATCHES}
        write.write_tar(tmp_path / "cifar-10-python.tar.gz", content, mode="w:gz")
    refused(tmp_path, "cifar10", "is a pickle that asks for posix.system", "nothing of it was run")
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary, got list"),
        ({b"labels": [1]}, "must hold an array under 'data', got NoneType"),
        ({b"data": np.zeros((3, 3072), np.float32)}, "must have the dtype uint8 (u1), got 'f4'"),
        ({b"data": np.zeros((3, 100), np.uint8)}, "'data' must have the shape (n, 3072), got (3, 100)"),
    ],
)
def test_pickles_of_something_else_are_refused(content, message, tmp_path):
    write.write_cifar10(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    refused(tmp_path, "cifar10", "test_batch", message)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_pickled_by_todays_numpy_are_read_too(protocol, tmp_path):
    batches = write.write_cifar10(tmp_path, "py")
    again = {"data": np.asfortranarray(batches[-1].reshape(-1, 3072)), "labels": [0] * 20}
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(again, protocol=protocol))
    assert np.array_equal(load_dataset("cifar10", tmp_path).split("test").numpy(), batches[-1])


# archives


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_with_a_name_that_leaves_its_folder_is_refused(name, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write.write_imagenet32_new(root, zipped=True)
    with zipfile.ZipFile(root / "Imagenet32_val_npz.zip", "a") as archive:
        archive.writestr(name, b"evil")
    refused(root, "imagenet32_new", "which leaves its folder; do not use this archive")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("kind", ["cifar10", "imagenet32", "imagenet32_new"])
def test_so_are_a_tar_and_a_npz_with_such_names(kind, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    if kind == "cifar10":
        write.write_tar(root / "cifar-10-python.tar.gz", {"../../evil": b"evil"}, mode="w:gz")
    elif kind == "imagenet32":
        write.write_imagenet32(root, "tar")
        write.write_tar(root / "valid_32x32.tar", {"../valid_32x32/1.png": b"evil"})
    else:
        write.write_imagenet32_new(root, zipped=False)
        with zipfile.ZipFile(root / "val_data.npz", "a") as archive:
            archive.writestr("../evil.npy", b"evil")
    refused(root, kind, "which leaves its folder; do not use this archive")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_gzip_ten_times_its_stated_size_is_not_read_to_its_end(tmp_path):
    write.write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(write.idx_bytes(write.pixels(60, 28, 28)) + bytes(10 * 60 * 784)))
    refused(tmp_path, "mnist", f"{path} holds more than the 47040 bytes that it may have")


def test_a_zip_ten_times_its_stated_size_is_refused(tmp_path):
    write.write_imagenet32_new(tmp_path, zipped=False)
    honest = io.BytesIO()
    np.lib.format.write_array(honest, write.pixels(60, 3072))
    path = tmp_path / "val_data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", honest.getvalue())
    stated = struct.pack("<I", len(honest.getvalue()))
    assert path.read_bytes().count(stated) == 2
    header = 128
    rewrite(path, lambda data: data.replace(stated, struct.pack("<I", header + 6 * 3072)))
    refused(tmp_path, "imagenet32_new", "60 images take 184320 bytes, the archive states 18432; fetch it anew")


def test_a_zip_whose_array_hides_more_than_it_states_is_refused_by_its_checksum(tmp_path):
    write.write_imagenet32_new(tmp_path, zipped=False)
    shown = io.BytesIO()
    np.lib.format.write_array(shown, write.pixels(6, 3072))
    path = tmp_path / "val_data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", shown.getvalue() + bytes(10 * 6 * 3072))
    larger = struct.pack("<I", len(shown.getvalue()) + 10 * 6 * 3072)
    rewrite(path, lambda data: data.replace(larger, struct.pack("<I", len(shown.getvalue()))))
    refused(tmp_path, "imagenet32_new", "val_data.npz is damaged or cut off (Bad CRC-32")


def test_a_tar_that_inflates_beyond_its_limit_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "a.tar.gz"
    write.write_tar(path, {"large": bytes(10_000_000), "wanted": b"x"}, mode="w:gz")
    with pytest.raises(InputError, match="holds more than the 1000000 bytes that it may have"):
        tar_members(path, {"wanted": 10}, limit=1_000_000)


def test_a_member_larger_than_it_may_be_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    write.write_tar(path, {"wanted": bytes(100)}, mode="w:gz")
    with pytest.raises(InputError, match="wanted must be a file of at most 10 bytes, got 100"):
        tar_members(path, {"wanted": 10}, limit=1_000_000)


def test_an_archive_that_lacks_a_batch_is_told_which(tmp_path):
    write.write_tar(tmp_path / "cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": b"x"}, mode="w:gz")
    refused(tmp_path, "cifar10", "lacks cifar-10-batches-py/data_batch_2, ")


# empty


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "svhn", "imagenet32", "imagenet32_new"])
def test_an_empty_folder_is_missing_data(name, tmp_path):
    with pytest.raises(MissingDataError):
        load_dataset(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_empty_folders_of_images_are_refused(tmp_path):
    for part in ("train_32x32", "valid_32x32"):
        (tmp_path / part).mkdir()
    refused(tmp_path, "imagenet32", f"{tmp_path / 'train_32x32'} holds no image file")


def test_empty_files_are_refused(tmp_path):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).touch()
    refused(tmp_path, "mnist", "is no idx file of images")
