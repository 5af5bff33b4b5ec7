"""Joules: from a tree of files as RAPL's, since few machines show theirs."""

import pytest
import torch

from harness.jobs.energy import Counter, counters, joules_between

CPU = torch.device("cpu")


def zone(root, name, *, called, used, most=262_143_328_850):
    folder = root / name
    folder.mkdir(exist_ok=True)
    for file, text in {"name": called, "energy_uj": used, "max_energy_range_uj": most}.items():
        (folder / file).write_text(f"{text}\n")


def test_packages_count_and_their_parts_do_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", called="package-0", used=5_000_000)
    zone(tmp_path, "intel-rapl:0:0", called="core", used=3_000_000)
    zone(tmp_path, "intel-rapl:1", called="package-1", used=1_000_000)
    before = counters(CPU, tmp_path)
    assert set(before) == {"intel-rapl:0", "intel-rapl:1"}
    zone(tmp_path, "intel-rapl:0", called="package-0", used=7_500_000)
    assert joules_between(before, counters(CPU, tmp_path)) == pytest.approx(2.5)


def test_a_counter_that_started_again_is_seen_through():
    assert joules_between({"a": Counter(9.0, 10.0)}, {"a": Counter(1.5, 10.0)}) == pytest.approx(2.5)
    assert joules_between({"gpu": Counter(9.0, float("inf"))}, {"gpu": Counter(11.0, float("inf"))}) == 2.0


@pytest.mark.parametrize("used", ["", "secret"])
def test_where_nobody_answers_there_is_no_number_and_no_error(tmp_path, used):
    assert counters(CPU, tmp_path / "none") == {} and joules_between({}, {}) is None
    zone(tmp_path, "intel-rapl:0", called="package-0", used=used)
    assert counters(CPU, tmp_path) == {}
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert counters(CPU, tmp_path) == {}
    assert joules_between({"a": Counter(1.0, 2.0)}, {}) is None
