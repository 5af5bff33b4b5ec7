"""Patches as categories."""

import numpy as np
import pytest
import torch

from arm_core import InputError, Layout
from arm_core.data import load_dataset
from arm_core.data.patches import pixel_layout, pixels_of, token_layout, tokens_of


@pytest.mark.parametrize(("side", "categories"), [(1, 256), (2, 2), (2, 4), (1, 17)])
def test_patches_give_their_pixels_back(side, categories):
    images = np.random.default_rng(0).integers(categories, size=(5, 3, 4 * side, 2 * side)).astype(np.uint8)
    tokens = tokens_of(images, side, categories)
    assert tokens.shape == (5, 3, 4, 2)
    assert tokens.max() < categories**side**2
    assert np.array_equal(pixels_of(tokens, side, categories), images)


def test_a_patch_counts_its_pixels_in_raster_order_the_first_one_most():
    assert tokens_of(np.array([[[[1, 0], [1, 1]]]], np.uint8), 2, 2).tolist() == [[[[0b1011]]]]


@pytest.mark.usefixtures("sample_packages")
def test_a_dataset_in_patches_has_the_same_pixels_splits_and_labels():
    whole, cut = (load_dataset("mnist5k", binarise="threshold", patches=side) for side in (1, 2))
    assert cut.layout == Layout(1, 14, 14, 16) == token_layout(whole.layout, 2)
    assert pixel_layout(cut.layout, 2) == whole.layout
    assert cut.variant == "threshold in 2x2 patches"
    assert cut.sha256 != whole.sha256
    for split in ("train", "valid", "test"):
        assert np.array_equal(pixels_of(cut.split(split).numpy(), 2, 2), whole.split(split).numpy())
        assert torch.equal(cut.labels(split), whole.labels(split))


@pytest.mark.usefixtures("sample_packages")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binarise": "threshold", "patches": 3}, "patches=3 must divide height and width, got 28 and 28"),
        ({"patches": 2}, "patches=2 of 256 values a pixel have 4294967296 values, and there may be 256"),
        ({"binarise": "dynamic", "patches": 2}, "patches are cut once; use binarise: static, threshold or fixed"),
        ({"patches": 0}, "patches must be at least 1, got 0"),
    ],
)
def test_patches_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_dataset("mnist5k", **options)
