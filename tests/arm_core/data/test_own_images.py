"""`npz:PATH` and `folder:PATH`: images of one's own without a line of code."""

import numpy as np
import pytest
import torch

from arm_core import InputError
from arm_core.data import MissingDataError, load_dataset
from arm_core.data.base import SPLITS
from arm_core.testing import check_dataset
from tests.arm_core.data.true_layouts import pixels, png_bytes


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("ARM_DATA", str(tmp_path / "data"))


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def save_images(folder, images, kind="PNG"):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:03d}.{kind.lower()}").write_bytes(png_bytes(image, kind))


def test_three_arrays_are_the_three_splits(tmp_path):
    arrays = {split: pixels(5, 3, 8, 8, seed=seed) for seed, split in enumerate(SPLITS)}
    name = save(tmp_path / "mine.npz", **arrays)
    dataset = load_dataset(name)
    check_dataset(dataset)
    assert (dataset.name, dataset.status, dataset.variant) == (name, "unverified", "8-bit")
    for split in SPLITS:
        assert np.array_equal(dataset.split(split).numpy(), arrays[split])


def test_one_array_is_split_by_tenths(tmp_path):
    dataset = load_dataset(save(tmp_path / "mine.npz", images=pixels(50, 8, 8)))
    assert [len(dataset.split(split)) for split in SPLITS] == [40, 5, 5]
    assert dataset.layout.channels == 1


@pytest.mark.parametrize(
    ("shape", "found"),
    [((8, 12), (1, 8, 12)), ((8, 12, 3), (3, 8, 12)), ((3, 8, 12), (3, 8, 12)), ((4, 8, 8), (4, 8, 8))],
)
def test_channels_are_found_where_they_are(shape, found, tmp_path):
    layout = load_dataset(save(tmp_path / "mine.npz", images=pixels(20, *shape))).layout
    assert (layout.channels, layout.height, layout.width) == found


def test_the_number_of_categories_can_be_given(tmp_path):
    dataset = load_dataset(save(tmp_path / "mine.npz", images=pixels(20, 8, 8) % 5, categories=np.array(5)), crop=4)
    assert (dataset.layout.categories, dataset.variant) == (5, "4x4 5 levels")


def test_options_prepare_images_of_ones_own_too(tmp_path):
    name = save(tmp_path / "mine.npz", images=pixels(20, 8, 8))
    assert load_dataset(name, binarise="threshold").layout.categories == 2
    assert load_dataset(name, bits=3, downscale=2).variant == "4x4 3-bit 1/2"


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"images": np.zeros((20, 8, 8))}, {}, "must have the dtype uint8, got float64"),
        ({"images": np.zeros((20, 64), np.uint8)}, {}, "must have the shape (n, H, W), (n, C, H, W) or (n, H, W, C), got (20, 64)"),
        ({"images": np.zeros((5, 8, 8), np.uint8)}, {}, "valid has no image"),
        ({"train": np.zeros((5, 8, 8), np.uint8)}, {}, "must hold train, valid and test, or images; it has train"),
        ({"images": np.full((20, 8, 8), 5, np.uint8), "categories": np.array(5)}, {}, "values below its 5 categories, got 5"),
        ({"images": np.zeros((20, 8, 8), np.uint8), "categories": np.array(1)}, {}, "categories must be one whole number in [2, 256]"),
        ({"images": np.zeros((20, 8, 8), np.uint8), "categories": np.array(5)}, {"bits": 2}, "the images have 5 categories already"),
        ({"images": np.zeros((20, 8, 8), np.uint8)}, {"binarise": "fixed"}, "that draw is one of MNIST"),
        ({"images": np.array([{}] * 20, dtype=object)}, {}, "cannot be read as arrays"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_are_refused(arrays, options, message, tmp_path):
    with pytest.raises(InputError) as caught:
        load_dataset(save(tmp_path / "mine.npz", **arrays), **options)
    assert message in str(caught.value)


def test_splits_of_different_sizes_of_image_are_refused(tmp_path):
    arrays = {"train": pixels(5, 8, 8), "valid": pixels(5, 8, 8), "test": pixels(5, 8, 4)}
    with pytest.raises(
        InputError, match=r"test must have images of the shape \(1, 8, 8\) as train has, got \(1, 8, 4\)"
    ):
        load_dataset(save(tmp_path / "mine.npz", **arrays))


@pytest.mark.parametrize("name", ["npz:", "folder:", "npz:missing.npz", "folder:missing"])
def test_a_path_that_is_not_there_is_named(name):
    with pytest.raises(InputError, match="missing" if "missing" in name else "must be followed by the path"):
        load_dataset(name)


def test_a_root_beside_a_path_is_refused(tmp_path):
    with pytest.raises(InputError, match="would be ignored; leave it out"):
        load_dataset("npz:a.npz", tmp_path)


@pytest.mark.parametrize(("channels", "kind"), [(1, "PNG"), (3, "PNG"), (3, "BMP")])
def test_a_folder_of_images_is_split_by_tenths(channels, kind, tmp_path):
    images = pixels(30, channels, 8, 12)
    save_images(tmp_path / "mine", images, kind)
    dataset = load_dataset(f"folder:{tmp_path / 'mine'}")
    check_dataset(dataset)
    assert (dataset.name, dataset.status) == (f"folder:{tmp_path / 'mine'}", "unverified")
    assert [len(dataset.split(split)) for split in SPLITS] == [24, 3, 3]
    found = torch.cat([dataset.split(split) for split in SPLITS]).numpy()
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in images)


def test_folders_named_after_the_splits_are_the_splits(tmp_path):
    images = {split: pixels(4, 3, 8, 8, seed=seed) for seed, split in enumerate(SPLITS)}
    for split in SPLITS:
        save_images(tmp_path / "mine" / split / "cats", images[split])
    dataset = load_dataset(f"folder:{tmp_path / 'mine'}")
    for split in SPLITS:
        assert np.array_equal(dataset.split(split).numpy(), images[split])


def test_nothing_is_written_into_a_folder_of_ones_own(tmp_path):
    save_images(tmp_path / "mine", pixels(20, 1, 8, 8))
    before = sorted(tmp_path.joinpath("mine").iterdir())
    load_dataset(f"folder:{tmp_path / 'mine'}", binarise="threshold")
    assert sorted(tmp_path.joinpath("mine").iterdir()) == before
    assert (tmp_path / "data" / "converted").is_dir()


def test_a_changed_file_is_noticed(tmp_path):
    save_images(tmp_path / "mine", pixels(20, 1, 8, 8))
    before = load_dataset(f"folder:{tmp_path / 'mine'}").sha256
    (tmp_path / "mine" / "003.png").write_bytes(png_bytes(pixels(1, 1, 8, 8, seed=9)[0]))
    assert load_dataset(f"folder:{tmp_path / 'mine'}").sha256 != before


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "holds no image file"), (["train", "test"], "has folders for train, test but not for valid; add them")],
)
def test_folders_without_the_images_are_refused(names, message, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in names:
        save_images(tmp_path / "mine" / name, pixels(3, 1, 8, 8))
    with pytest.raises(InputError, match=message):
        load_dataset(f"folder:{tmp_path / 'mine'}")


def test_draws_are_refused_for_image_files(tmp_path):
    save_images(tmp_path / "mine", pixels(20, 1, 8, 8))
    with pytest.raises(InputError, match="can be binarised by threshold only"):
        load_dataset(f"folder:{tmp_path / 'mine'}", binarise="static")


def test_missing_paths_say_where_they_were_looked_for(tmp_path):
    with pytest.raises(MissingDataError) as caught:
        load_dataset(f"folder:{tmp_path / 'none'}")
    assert caught.value.looked == [tmp_path / "none"]
