"""The bench of datasets, small; nothing here asserts a duration."""

import pytest

from arm_core.data.imagenet32 import PUBLISHED
from benchmarks.data import conversion_rate, open_sparse, write_sparse


def test_the_bench_converts_what_it_writes(tmp_path):
    assert conversion_rate(tmp_path, 200) > 0
    assert (tmp_path / "converted" / "imagenet32-old-8-bit" / "store.json").exists()


@pytest.mark.slow
def test_imagenet32_at_its_full_size_opens_within_its_memory(tmp_path):
    write_sparse(tmp_path)
    found = open_sparse(tmp_path, batches=100)
    assert found.images == PUBLISHED["train"]
    assert found.opened.resident < 2**30 and found.read.resident < 2**30
    assert found.read.anonymous < 2**28
