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


SOURCE = """
from dataclasses import dataclass
import torch
from arm_core import Layout

@dataclass(frozen=True)
class Options:
    count: int = 4
    value: int = 1

@dataclass(frozen=True)
class Needy:
    folder: str

class Mine:
    layout = Layout(1, 4, 4, 2)

    def __init__(self, root, config: Options):
        self.root, self.config = root, config

    def split(self, name):
        return torch.full((self.config.count, 1, 4, 4), self.config.value, dtype=torch.uint8)

class Plain(Mine):
    def __init__(self, root):
        super().__init__(root, Options())

class Wide(Plain):
    layout = Layout(1, 4, 8, 2)

class Signed(Plain):
    def split(self, name):
        return super().split(name).long()

class Listed(Plain):
    def split(self, name):
        return super().split(name).tolist()

class Demanding(Mine):
    def __init__(self, root, config: Needy):
        super().__init__(root, Options())

class Loose(Mine):
    def __init__(self, root, config: dict):
        super().__init__(root, Options())

class Named(Mine):
    def split(self, name):
        return {name: super(Named, self).split(name) for name in ("train", "val", "test")}[name]


class NoLayout:
    def __init__(self, root):
        pass

constant = 3
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    return file


def test_a_dataset_of_ones_own_is_never_taken_for_an_official_one(mine):
    dataset = load_dataset(f"{mine}:Mine")
    assert (dataset.name, dataset.status) == (f"{mine}:Mine", "unverified")


def test_the_digest_of_a_dataset_of_ones_own_follows_its_pixels(mine):
    ones, again, zeros = (load_dataset(f"{mine}:Mine", value=value).sha256 for value in (1, 1, 0))
    assert ones == again != zeros


def test_the_variant_names_changed_options_and_does_not_care_whether_defaults_were_spelled_out(mine):
    assert load_dataset(f"{mine}:Mine").variant == "default"
    assert load_dataset(f"{mine}:Mine", count=4, value=1).variant == "default"
    assert load_dataset(f"{mine}:Mine", count=7, value=0).variant == "count=7 value=0"


@pytest.mark.parametrize(
    ("attribute", "options", "message"),
    [
        ("Mine", {"value": 2}, "split 'train' must have values below its layout's 2 categories, got 2"),
        ("Wide", {}, "must have the shape of its layout, (n, 1, 4, 8), got (4, 1, 4, 4)"),
        ("Signed", {}, "must be a torch.uint8 tensor, got torch.int64"),
        ("Listed", {}, "must be a torch.uint8 tensor, got list"),
        ("Named", {}, "split('valid') raises KeyError: 'valid'; it is asked for train, valid, test"),
        ("NoLayout", {}, "must have .layout, but NoLayout has none"),
        ("Plain", {"count": 3}, "takes no options, got count; leave them out"),
        ("Demanding", {}, "needs the option 'folder'; give it a value"),
        ("Loose", {}, "the type of its config must be a dataclass, got dict"),
        ("constant", {}, "must be a class, got 3"),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_which_rule(mine, attribute, options, message):
    with pytest.raises(InputError) as caught:
        load_dataset(f"{mine}:{attribute}", **options)
    assert message in str(caught.value)
