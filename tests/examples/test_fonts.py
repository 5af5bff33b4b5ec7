"""The dataset of the examples."""

import shutil
from pathlib import Path

import matplotlib
import pytest
import torch

from arm_core import InputError
from arm_core.data import load_dataset
from arm_core.testing import check_dataset

FONTS = "examples/fonts.py:Fonts"


def test_glyphs_of_the_shipped_fonts_are_split_without_overlap(at_the_root):
    data = load_dataset(FONTS)
    check_dataset(data)
    assert data.status == "unverified" and data.variant == "default" and data.layout.categories == 2
    splits = [data.split(name) for name in ("train", "valid", "test")]
    images = torch.cat(splits).flatten(1)
    assert len(images) > 1000 and len(images.unique(dim=0)) == len(images)
    assert len(splits[0]) > 7 * len(splits[1])
    assert 0.02 < images.double().mean() < 0.5


def test_options_and_a_folder_of_ones_own(at_the_root, tmp_path):
    shipped = load_dataset(FONTS, size=12, levels=5)
    assert shipped.variant == "size=12 levels=5"
    assert (shipped.layout.height, shipped.split("train").max().item()) == (12, 4)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", tmp_path)
    own = load_dataset(FONTS, tmp_path)
    assert sum(len(own.split(name)) for name in ("train", "valid", "test")) <= 62
    with pytest.raises(InputError, match=r"there is no \.ttf file in"):
        load_dataset(FONTS, tmp_path / "empty")
    with pytest.raises(InputError, match="size must be a multiple of 4"):
        load_dataset(FONTS, size=10)
