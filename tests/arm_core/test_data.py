import subprocess
import sys

import pytest
import torch

from arm_core import InputError
from arm_core.data import load_dataset
from arm_core.data.base import shipped_file
from arm_core.registry import DATASETS
from arm_core.testing import check_dataset

pytestmark = pytest.mark.usefixtures("sample_data")
CASES = {
    "mnist5k": [
        {"binarise": "threshold"},
        {"binarise": "static"},
        {},
        {"bits": 3, "crop": 20},
        {"downscale": 2, "bits": 1},
    ],
    "digits": [{}],
    "photo_patches": [{"crop": 8, "bits": 3}, {}, {"downscale": 2, "bits": 5}],
}
ALL = [(name, options) for name, cases in CASES.items() for options in cases]
GOLDEN = {"mnist5k": "8a772718781f3f65", "digits": "73ea480600823b51"}


def test_every_registered_dataset_is_tested_here():
    assert sorted(CASES) == DATASETS.names()


@pytest.mark.parametrize(("name", "options"), ALL, ids=str)
def test_every_dataset_keeps_its_contract(name, options):
    dataset = load_dataset(name, **options)
    check_dataset(dataset)
    assert dataset.name == name
    assert dataset.status == "sample"
    assert int(dataset.split("train").max()) == dataset.layout.categories - 1


@pytest.mark.parametrize(("name", "options"), ALL, ids=str)
def test_variants_tell_options_apart(name, options):
    others = [load_dataset(name, **other).variant for other in CASES[name] if other != options]
    assert load_dataset(name, **options).variant not in others


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_pixels_and_splits_are_pinned_and_the_same_in_another_process(name):
    code = f"from arm_core.data import load_dataset; print(load_dataset({name!r}).sha256)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == load_dataset(name).sha256
    assert found.startswith(GOLDEN[name])


def test_mnist5k_splits_are_disjoint_and_binary():
    dataset = load_dataset("mnist5k")
    sizes = {split: len(dataset.split(split)) for split in ("train", "valid", "test")}
    assert sizes == {"train": 4000, "valid": 500, "test": 500}
    everything = torch.cat([dataset.split(split) for split in sizes]).flatten(1)
    assert len(everything.unique(dim=0)) == 5000
    binary = load_dataset("mnist5k", binarise="threshold")
    assert torch.equal(binary.split("test"), (dataset.split("test") >= 128).to(torch.uint8))


def test_photo_patches_of_held_out_splits_come_from_other_photos():
    from arm_core.data.photo_patches import PHOTOS, SPLIT_PHOTOS

    used = [photo for photos in SPLIT_PHOTOS.values() for photo in photos]
    assert sorted(used) == sorted(PHOTOS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist5", {}, "unknown dataset 'mnist5'. Did you mean 'mnist5k'"),
        ("mnist5k", {"binarise": "fixed"}, "cannot be rebuilt from MNIST"),
        ("mnist5k", {"binarise": "dynamic"}, "draws anew at every step"),
        ("mnist5k", {"bits": 9}, r"bits must be in \[1, 8\], got 9"),
        ("mnist5k", {"bits": 2, "binarise": "threshold"}, "exclude each other"),
        ("mnist5k", {"crop": 32}, "crop must be at most 28"),
        ("mnist5k", {"colour": 1}, "unknown option of dataset mnist5k 'colour'"),
        ("mnist5k", {"root": "/data"}, "leave root out"),
        ("digits", {"bits": 3}, "digits: bits=3 is not possible"),
        ("photo_patches", {"binarise": "static"}, "not possible"),
        ("photo_patches", {"crop": 6}, "multiple of 4, got 6"),
    ],
)
def test_what_cannot_be_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        load_dataset(name, **options)


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="split must be one of train, valid, test, got 'all'"):
        load_dataset("digits").split("all")


def test_a_missing_package_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"'no-such-package'.*not installed"):
        shipped_file("no-such-package", "a/b.csv", "")


def test_another_version_of_a_file_is_refused():
    with pytest.raises(InputError, match="expected 0000"):
        shipped_file("scikit-learn", "sklearn/datasets/data/digits.csv.gz", "0000")


def test_a_dataset_of_ones_own_is_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from arm_core import Layout\n"
        "@dataclass(frozen=True)\n"
        "class Options:\n"
        "    count: int = 4\n"
        "class Mine:\n"
        "    layout = Layout(1, 4, 4, 2)\n"
        "    def __init__(self, root, config: Options):\n"
        "        self.count = config.count\n"
        "    def split(self, name):\n"
        "        return torch.ones(self.count, 1, 4, 4, dtype=torch.uint8)\n"
    )
    dataset = load_dataset(f"{file}:Mine", count=7)
    check_dataset(dataset)
    assert len(dataset.split("train")) == 7
    with pytest.raises(InputError, match="Did you mean 'count'"):
        load_dataset(f"{file}:Mine", coun=7)
