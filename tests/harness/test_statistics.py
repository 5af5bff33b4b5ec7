"""The derived numbers against closed forms."""

import numpy as np
import pandas as pd
import pytest

from arm_core import InputError
from harness.report.statistics import interval, label, per_repetition, speedup, usable
from tests.harness.rows import timing_row

NAMES = {None: "ancestral", "fixed_point": "fixed point"}


def frame(*rows):
    return pd.DataFrame(list(rows))


def pair(seed, slow, fast, **changes):
    return [
        timing_row(seed=seed, wall_s=slow, arm_calls=[10, 10], arm_work=[10.0, 10.0], run_order=2 * seed, **changes),
        timing_row(
            seed=seed, wall_s=fast, sampler="predictive", forecaster="fixed_point", run_order=2 * seed + 1,
            arm_calls=[2, 3 + seed], arm_work=[2.0, 4.0], **changes,
        ),
    ]  # fmt: skip


def test_a_speed_up_is_the_median_of_ratios_within_a_repetition():
    table = speedup(frame(*pair(0, 4.0, 1.0), *pair(1, 30.0, 3.0), *pair(2, 6.0, 1.0)))
    row = table[table["sampler"] == "fixed point"].iloc[0]
    assert row.speedup == 6.0  # of 4, 10, 6; the ratio of the means would be 8
    assert row.repetitions == 3
    assert row.seconds == pytest.approx(5 / 3)
    assert row.seconds_std == pytest.approx(np.std([1.0, 3.0, 1.0], ddof=1))
    assert row.calls_percent == pytest.approx(np.mean([30, 40, 50]))  # the slowest of each batch, of 10 dimensions
    assert row.calls_percent_std == pytest.approx(10.0)
    assert row.work == 3.0
    assert 4.0 <= row.speedup_low <= 6.0 <= row.speedup_high <= 10.0
    assert row.equal and table["sampler"].tolist() == ["ancestral", "fixed point"]


def test_warm_ups_and_failures_do_not_count():
    rows = [
        *pair(0, 4.0, 1.0),
        timing_row(is_warmup=True, wall_s=1e9),
        timing_row(job="b", status="failed", wall_s=None),
    ]
    table = speedup(frame(*rows))
    assert table["repetitions"].tolist() == [1, 1]
    assert table["seconds"].tolist() == [4.0, 1.0]


def test_one_seed_gives_no_spread():
    table = speedup(frame(*pair(0, 4.0, 1.0)))
    assert table[["seconds_std", "calls_percent_std", "speedup_low"]].isna().all().all()


def test_one_sample_that_differs_makes_a_row_unequal():
    rows = [*pair(0, 4.0, 1.0), *pair(1, 4.0, 1.0)]
    rows[-1]["exact_fraction"] = 0.5
    assert speedup(frame(*rows))["equal"].tolist() == [True, False]


def test_seeds_of_training_are_averaged_each_against_its_own_run():
    rows = [*pair(0, 4.0, 1.0), *pair(0, 80.0, 10.0, job="b", train_seed=1, train_job="u")]
    table = speedup(frame(*rows))
    assert table["speedup"].tolist() == [1.0, 6.0]


def test_of_two_runs_on_one_training_the_newer_counts_and_a_note_says_so():
    newer = pd.Timestamp("2026-03-01", tz="UTC")
    rows = frame(*pair(0, 4.0, 1.0), *pair(0, 9.0, 1.0, job="b", started_at=newer))
    assert speedup(rows)["speedup"].tolist() == [1.0, 9.0]
    assert usable(rows)[1] == ["Timing job a is left out: a newer run timed the same training."]


@pytest.mark.parametrize(
    ("column", "other"), [("device", "V100"), ("torch", "2.10"), ("threads", 1), ("dtype", "float64")]
)
def test_runs_that_are_not_comparable_are_refused(column, other):
    rows = [*pair(0, 4.0, 1.0), *pair(0, 4.0, 1.0, **{"job": "b", "train_seed": 1, column: other})]
    with pytest.raises(InputError, match=f"different {column}: .*{other}"):
        speedup(frame(*rows))


def test_no_rows_give_an_empty_table_with_all_columns():
    table = speedup(frame(timing_row(status="failed")))
    assert table.empty and "speedup" in table.columns


def test_per_repetition_has_no_ratio_without_an_ancestral_twin():
    rows, _ = usable(frame(*pair(0, 4.0, 1.0)[1:]))
    assert per_repetition(rows)["speedup"].isna().all()


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (("ancestral", None, None), "ancestral"),
        (("predictive", "zeros", None), "forecast zeros"),
        (("predictive", "learned", 4), "learned, T=4"),
        (("predictive", "my.py:copy", None), "my.py:copy"),
    ],
)
def test_samplers_are_named_for_people(sampler, expected):
    assert label(*sampler) == expected


def test_the_interval_covers_the_median_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = interval(generator.normal(size=25))
        hits += low <= 0 <= high
    assert 178 <= hits <= 200  # 95 % of 200 is 190; below 178 in fewer than one run in 10^4, at coverage 0.95


def test_the_interval_of_one_value_thrice_is_that_value():
    assert interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0)
    assert all(np.isnan(interval(np.array([2.0, 3.0]))))
