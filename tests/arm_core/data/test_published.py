"""The published datasets, read from small synthetic files in their true layouts."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from arm_core import InputError
from arm_core.data import MissingDataError, fashion_mnist, load_dataset
from arm_core.data import cifar10 as cifar10_module
from arm_core.data.base import SPLITS
from arm_core.registry import DATASETS
from arm_core.testing import check_dataset
from tests.arm_core.data import true_layouts as write

PUBLISHED = sorted(name for name in DATASETS.names() if hasattr(DATASETS.resolve(name), "archives"))
EVERY_LAYOUT = {
    "mnist gzipped, torchvision's folder": ("mnist", {}, lambda root: write.write_mnist(root / "MNIST" / "raw")),
    "mnist plain": ("mnist", {}, lambda root: write.write_mnist(root, zipped=False)),
    "mnist fixed": ("mnist", {"binarise": "fixed"}, lambda root: write.write_binary_mnist(root / "binarized_mnist")),
    "mnist fixed, flat": ("mnist", {"binarise": "fixed"}, lambda root: write.write_binary_mnist(root)),
    "fashion_mnist": ("fashion_mnist", {}, lambda root: write.write_mnist(root / "FashionMNIST" / "raw")),
    "cifar10 python": ("cifar10", {}, lambda root: write.write_cifar10(root, "py")),
    "cifar10 binary": ("cifar10", {}, lambda root: write.write_cifar10(root, "bin")),
    "cifar10 python archive": ("cifar10", {}, lambda root: write.write_cifar10(root, "py.tar.gz")),
    "cifar10 binary archive": ("cifar10", {}, lambda root: write.write_cifar10(root, "bin.tar.gz")),
    "svhn": ("svhn", {}, write.write_svhn),
    "svhn_extra": ("svhn_extra", {}, write.write_svhn),
    "imagenet32 folders": ("imagenet32", {}, lambda root: write.write_imagenet32(root, "png")),
    "imagenet32 tars": ("imagenet32", {}, lambda root: write.write_imagenet32(root, "tar")),
    "imagenet32 arrays": ("imagenet32", {}, lambda root: write.write_imagenet32(root, "npy")),
    "imagenet32_new files": ("imagenet32_new", {}, lambda root: write.write_imagenet32_new(root, zipped=False)),
    "imagenet32_new zips": ("imagenet32_new", {}, lambda root: write.write_imagenet32_new(root, zipped=True)),
}
every_layout = pytest.mark.parametrize("layout", EVERY_LAYOUT.values(), ids=EVERY_LAYOUT)


@pytest.fixture(autouse=True)
def no_debian_package(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-such-folder")


def test_every_published_dataset_has_a_layout_here():
    assert {name for name, _, _ in EVERY_LAYOUT.values()} == set(PUBLISHED)


@every_layout
def test_synthetic_files_in_a_true_layout_are_read_and_called_unverified(layout, tmp_path):
    name, options, write_files = layout
    write_files(tmp_path)
    dataset = load_dataset(name, tmp_path, **options)
    check_dataset(dataset)
    assert (dataset.name, dataset.status) == (name, "unverified")
    assert dataset.sha256 == load_dataset(name, tmp_path, **options).sha256 == dataset.pixels_sha256()
    assert dataset.sources


@every_layout
def test_every_published_training_image_is_in_exactly_one_split_and_the_test_set_is_whole(layout, tmp_path):
    name, options, write_files = layout
    written = write_files(tmp_path)
    dataset = load_dataset(name, tmp_path, **options)
    if isinstance(written, dict):
        parts = [written[part] for part in ("train", "extra", "valid", "test") if part in written]
        if name == "svhn":
            del parts[1]
        *training, test = parts
        train = np.concatenate(training)
    else:
        train, test = np.concatenate(written[:-1]), written[-1]
    found = torch.cat([dataset.split("train"), dataset.split("valid")])
    assert sorted(image.tobytes() for image in found.numpy()) == sorted(image.tobytes() for image in train)
    assert np.array_equal(dataset.split("test").numpy().reshape(test.shape), test)


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_data_name_every_path_and_the_command_that_brings_them(name, tmp_path):
    with pytest.raises(MissingDataError) as caught:
        load_dataset(name, tmp_path)
    message = str(caught.value)
    assert f"{name}: nothing of it is there" in message
    assert f"harness data fetch {name}" in message
    assert all(str(path) in message and path.is_relative_to(tmp_path) for path in caught.value.looked)


def test_a_folder_that_lacks_one_file_is_told_which(tmp_path):
    write.write_cifar10(tmp_path, "py")
    missing = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    missing.unlink()
    with pytest.raises(MissingDataError, match=f"incomplete: {missing} is missing"):
        load_dataset("cifar10", tmp_path)


def test_the_root_is_given_by_the_environment_if_not_by_the_caller(tmp_path, monkeypatch):
    write.write_svhn(tmp_path)
    monkeypatch.setenv("ARM_DATA", str(tmp_path))
    assert len(load_dataset("svhn").split("test")) == 11


def test_mnist_holds_out_the_last_sixth_of_the_training_file(tmp_path):
    train, _ = write.write_mnist(tmp_path)
    dataset = load_dataset("mnist", tmp_path)
    assert np.array_equal(dataset.split("train").numpy()[:, 0], train[:50])
    assert np.array_equal(dataset.split("valid").numpy()[:, 0], train[50:])


def test_the_fixed_binarisation_has_the_splits_of_its_files(tmp_path):
    written = write.write_binary_mnist(tmp_path)
    dataset = load_dataset("mnist", tmp_path, binarise="fixed")
    assert (dataset.variant, dataset.layout.categories) == ("fixed", 2)
    for split, images in written.items():
        assert np.array_equal(dataset.split(split).numpy()[:, 0], images)


@pytest.mark.parametrize("how", ["dynamic", "static", "threshold"])
def test_mnist_is_binarised_in_the_other_ways_from_its_grey_images(how, tmp_path):
    write.write_mnist(tmp_path)
    dataset = load_dataset("mnist", tmp_path, binarise=how)
    assert (dataset.variant, dataset.layout.categories) == (how, 2)
    if how == "threshold":
        grey = load_dataset("mnist", tmp_path).split("test")
        assert torch.equal(dataset.split("test"), (grey >= 128).to(torch.uint8))


def test_cifar10_in_five_bits_is_value_divided_by_eight(tmp_path):
    write.write_cifar10(tmp_path, "py")
    full, five = load_dataset("cifar10", tmp_path), load_dataset("cifar10", tmp_path, bits=5)
    assert five.layout.categories == 32 and five.variant == "5-bit"
    assert torch.equal(five.split("train"), full.split("train") // 8)


def test_both_layouts_of_cifar10_hold_the_same_pixels(tmp_path):
    digests = set()
    for kind in ("py", "bin", "py.tar.gz", "bin.tar.gz"):
        (tmp_path / kind).mkdir()
        write.write_cifar10(tmp_path / kind, kind)
        digests.add(load_dataset("cifar10", tmp_path / kind).sha256)
    assert len(digests) == 1


def test_all_layouts_of_the_old_imagenet32_hold_the_same_pixels(tmp_path):
    digests = set()
    for kind in ("png", "tar", "npy"):
        (tmp_path / kind).mkdir()
        write.write_imagenet32(tmp_path / kind, kind)
        digests.add(load_dataset("imagenet32", tmp_path / kind).sha256)
    assert len(digests) == 1


def test_the_old_and_the_new_imagenet32_differ_in_name_and_variant(tmp_path):
    write.write_imagenet32(tmp_path, "png")
    write.write_imagenet32_new(tmp_path, zipped=False)
    old, new = load_dataset("imagenet32", tmp_path), load_dataset("imagenet32_new", tmp_path)
    assert (old.name, old.variant) == ("imagenet32", "old 8-bit")
    assert (new.name, new.variant) == ("imagenet32_new", "new 8-bit")


def test_extra_images_of_svhn_change_training_alone(tmp_path):
    write.write_svhn(tmp_path)
    plain, extra = load_dataset("svhn", tmp_path), load_dataset("svhn_extra", tmp_path)
    assert len(extra.split("train")) == len(plain.split("train")) + 25
    for split in ("valid", "test"):
        assert torch.equal(plain.split(split), extra.split(split))
    assert plain.variant != extra.variant


def test_the_published_checksum_makes_a_dataset_official_and_one_other_byte_unmakes_it(tmp_path, monkeypatch):
    write.write_cifar10(tmp_path, "py.tar.gz")
    path = tmp_path / "cifar-10-python.tar.gz"
    known = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10_module, "PYTHON_ARCHIVE", replace(cifar10_module.PYTHON_ARCHIVE, digest=known))
    assert load_dataset("cifar10", tmp_path).status == "official"
    data = bytearray(path.read_bytes())
    data[4] ^= 1  # the time in the header of gzip: the pixels stay
    path.write_bytes(data)
    assert load_dataset("cifar10", tmp_path).status == "unverified"


def test_fashion_mnist_is_never_taken_for_mnist(tmp_path, debian_fashion_mnist):
    folder = tmp_path / "MNIST" / "raw"
    folder.parent.mkdir()
    folder.symlink_to(debian_fashion_mnist)
    with pytest.raises(
        InputError, match="holds the training images of Fashion-MNIST, but the training images of MNIST are"
    ):
        load_dataset("mnist", tmp_path)


def test_the_real_fashion_mnist_of_debians_package_is_official_and_whole(debian_fashion_mnist, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", debian_fashion_mnist)
    monkeypatch.setenv("ARM_DATA", "/no/such/folder")
    dataset = load_dataset("fashion_mnist")
    assert dataset.status == "official"
    assert {split: len(dataset.split(split)) for split in SPLITS} == fashion_mnist.PUBLISHED == dataset.published
    assert dataset.sha256 == "d97df8fb745f7575cd8176063a5147e1846da2b678aee18b080b5cfa709b78b1"
