"""What got faster or slower between two stores."""

import numpy as np
import pytest
from scipy import stats

from harness.report import write_report
from harness.report.comparison import compare
from harness.report.selection import select
from harness.store import Store
from tests.harness.rows import FIXED_POINT, timing_row, write_named

FACTORS = (1.9, 2.0, 2.2)


def fill(root, factors=(1.0, 1.0, 1.0), **changes):
    """Fixed point takes a second times the factor of the seed; ancestral sampling takes four."""
    rows = []
    for seed, factor in enumerate(factors):
        rows.append(timing_row(seed=seed, wall_s=4.0, **changes))
        rows.append(timing_row(seed=seed, wall_s=factor, sampler=FIXED_POINT, **changes))
    store = Store(root)
    write_named(store, "a", {"timings": rows})
    return store


def compared(before, now, mix=()):
    comparison = compare(select(before), select(now), mix)
    return comparison, comparison.frame.set_index("sampler")


def test_a_slow_down_is_the_geometric_mean_of_paired_ratios_with_its_interval(tmp_path):
    _, frame = compared(fill(tmp_path / "a"), fill(tmp_path / "b", FACTORS))
    row = frame.loc["fixed point"]
    assert row["seconds_ratio"] == pytest.approx(stats.gmean(FACTORS)) and row["pairs"] == 3
    logs = np.log(FACTORS)
    interval = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert [row["seconds_low"], row["seconds_high"]] == pytest.approx(interval)
    assert row["speedup_ratio"] == pytest.approx(1 / stats.gmean(FACTORS))
    assert row["verdict"] == "slower" and frame.loc["ancestral", "verdict"] == "no difference shown"


def test_the_other_way_round_it_got_faster(tmp_path):
    _, frame = compared(fill(tmp_path / "a", FACTORS), fill(tmp_path / "b"))
    assert frame.loc["fixed point", "verdict"] == "faster"


def test_seconds_of_another_device_are_not_compared_but_speed_ups_are(tmp_path):
    before, now = fill(tmp_path / "a", device="V100"), fill(tmp_path / "b", FACTORS)
    comparison, frame = compared(before, now)
    row = frame.loc["fixed point"]
    assert np.isnan(row["seconds_ratio"]) and row["verdict"] == "not compared"
    assert row["speedup_ratio"] == pytest.approx(1 / stats.gmean(FACTORS))
    assert "different devices (CPU, c, 2 and V100, c, 2)" in comparison.notes[0]
    comparison, frame = compared(before, now, ["device"])
    assert frame.loc["fixed point", "verdict"] == "slower" and "--mix device" in comparison.notes[0]


def test_what_one_store_alone_has_is_counted(tmp_path):
    comparison, _ = compared(fill(tmp_path / "a", batch_size=8), fill(tmp_path / "b"))
    assert comparison.frame.empty
    assert {
        "2 samplers and batch sizes are in this store alone.",
        "2 samplers and batch sizes are in the other store alone.",
    } <= set(comparison.notes)


def test_one_pair_gives_a_ratio_and_no_verdict(tmp_path):
    _, frame = compared(fill(tmp_path / "a", (1.0,)), fill(tmp_path / "b", (2.0,)))
    assert frame.loc["fixed point", "seconds_ratio"] == 2.0 and frame.loc["fixed point", "verdict"] == "too few pairs"


@pytest.mark.parametrize("empty", ["before", "now"])
def test_an_empty_store_has_nothing_to_compare(tmp_path, empty):
    stores = {"before": fill(tmp_path / "a"), "now": fill(tmp_path / "b")}
    (tmp_path / "empty").mkdir()
    stores[empty] = Store(tmp_path / "empty")
    assert compared(stores["before"], stores["now"])[1].empty


def test_the_report_writes_the_comparison(tmp_path):
    out = tmp_path / "out"
    write_report(fill(tmp_path / "b", FACTORS), out, other=fill(tmp_path / "a"), figures=0)
    assert "| slower" in (out / "diff.md").read_text() and r"\toprule" in (out / "diff.tex").read_text()
    assert "slower" in (out / "index.html").read_text() and (out / "diff.csv").exists()
