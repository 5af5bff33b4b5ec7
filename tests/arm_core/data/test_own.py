"""A dataset that users bring: one class in one file."""

import pytest

from arm_core import InputError
from arm_core.data import load_dataset
from arm_core.testing import check_dataset


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
