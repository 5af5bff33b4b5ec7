"""How patches are cut from photos."""

import numpy as np
import pytest
import torch

from arm_core.data import load_dataset
from arm_core.data.photo_patches import PHOTOS, SPLIT_PHOTOS, _patches


def test_every_photo_belongs_to_exactly_one_split():
    used = [photo for photos in SPLIT_PHOTOS.values() for photo in photos]
    assert sorted(used) == sorted(PHOTOS)
    assert all(SPLIT_PHOTOS.values())


def test_the_photo_that_may_not_be_redistributed_is_not_used():
    assert not any("motorcycle" in photo.path for photo in PHOTOS.values())


def test_patches_lie_side_by_side_at_three_scales():
    photo = np.random.Generator(np.random.Philox(3)).integers(0, 256, (1, 3, 17, 24), dtype=np.uint8)
    patches = _patches(photo, 1, 4)
    assert patches.shape == (4 * 6 + 2 * 3 + 1, 3, 4, 4)
    assert np.array_equal(patches[7], photo[0, :, 4:8, 4:8])  # second row, second column
    half = photo[0, :, :16].reshape(3, 8, 2, 12, 2).mean(axis=(2, 4)).round().astype(np.uint8)
    assert np.array_equal(patches[24 + 4], half[:, 4:8, 4:8])
    quarter = photo[0, :, :16].reshape(3, 4, 4, 6, 4).mean(axis=(2, 4)).round().astype(np.uint8)
    assert np.array_equal(patches[-1], quarter[:, :4, :4])


@pytest.mark.usefixtures("sample_packages")
def test_a_smaller_crop_cuts_the_same_photos_into_more_patches():
    large, small = (load_dataset("photo_patches", crop=side).split("valid") for side in (32, 16))
    assert len(small) > 3.5 * len(large)
    assert torch.equal(small[0], large[0][:, :16, :16])
