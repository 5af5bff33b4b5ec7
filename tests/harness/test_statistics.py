"""The derived numbers against closed forms, scipy and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.report.selection import _hit_rates, _of_histograms, _repetitions
from harness.report.statistics import (
    DISTANCES,
    MEASURES,
    RATIOS,
    few_repetitions,
    mean_interval,
    paired_speedup,
    speedup,
)
from harness.store import Ragged
from tests.harness.rows import FIXED_POINT, timing_row


def repetitions(*rows):
    frame = pd.DataFrame(list(rows))
    frame = frame.assign(
        batch_calls=[max(calls) for calls in frame["arm_calls"]],
        work=[np.mean(work) for work in frame["arm_work"]],
        repaired=np.nan,
        **_of_histograms(ragged(frame["dims_per_call"])),
        **_hit_rates(ragged(frame["dims_per_call"]), ragged(frame["mistaken_per_call"])),
    )
    names = {"sweep": "q", "profile": None, "dataset": "digits", "variant": "default"}
    runs = frame.drop_duplicates("job").assign(kind="explicit", data_status="sample", **names)
    return _repetitions(frame, runs)


def ragged(lists):
    return Ragged(np.concatenate([np.array(each, float) for each in lists]), np.array([len(each) for each in lists]))


def test_a_histogram_has_the_mean_and_the_percentiles_of_the_calls_that_it_counts():
    lists = [[0, 5, 3, 3], [], [2, 0, 0, 0, 1], [0, 100]]
    found = _of_histograms(ragged(lists))
    for row, counts in enumerate(lists):
        calls = np.repeat(np.arange(len(counts)), counts)
        for name, value in found.items():
            if not counts:
                assert np.isnan(value[row])
            elif name == "dims_per_call":
                assert value[row] == pytest.approx(calls.mean())
            else:
                share = int(name.rpartition("_p")[2])
                assert value[row] == np.percentile(calls, share, method="inverted_cdf")


def test_a_hit_rate_is_of_the_forecasts_before_which_all_were_right():
    """Calls as they went: how many forecasts were right in a row, and whether a wrong one ended them."""
    generator = np.random.default_rng(0)
    pairs = zip(generator.geometric(0.2, 400) - 1, generator.random(400) < 0.8, strict=True)
    calls = [(int(right), bool(wrong)) for right, wrong in pairs if right or wrong]
    dims = np.bincount([right + wrong for right, wrong in calls])
    mistaken = np.bincount([right + 1 for right, wrong in calls if wrong])
    found = _hit_rates(ragged([dims, [], [0, 7], [1, 3]]), ragged([mistaken, [], [], [0, 2]]))
    for distance in DISTANCES:
        tested = [right >= distance for right, wrong in calls if right >= distance or (wrong and right == distance - 1)]
        rate, *others = found[f"hit_rate_{distance}"]
        assert rate == pytest.approx(np.mean(tested)) and np.isnan(others[:2]).all()
    assert found["hit_rate_1"][3] == pytest.approx(1 / 3) and np.isnan(found["hit_rate_2"][3])


def test_joules_are_of_a_sample_and_none_where_nobody_counts():
    rows = [timing_row(seed=seed, energy_j=joules) for seed, joules in enumerate([3.0, 5.0])]
    assert speedup(repetitions(*rows)).iloc[0].joules == 2.0
    assert np.isnan(speedup(repetitions(timing_row())).iloc[0].joules)


def test_the_interval_of_student_and_the_variation_stand_beside_the_bootstrap():
    rows = [timing_row(seed=seed, wall_s=wall) for seed, wall in enumerate([2.0, 3.0, 4.0, 5.0, 9.0])]
    row = speedup(repetitions(*rows)).iloc[0]
    seconds = np.array([1.0, 1.5, 2.0, 2.5, 4.5])
    low, high = stats.t.interval(0.95, 4, seconds.mean(), stats.sem(seconds))
    assert (row.seconds_t_low, row.seconds_t_high) == (pytest.approx(low), pytest.approx(high))
    assert row.seconds_cv == pytest.approx(seconds.std(ddof=1) / seconds.mean()) and row.peak_mem_bytes == 2**26


def pair(seed, slow, fast, **changes):
    return [
        timing_row(seed=seed, wall_s=slow, arm_calls=[10, 10], arm_work=[10.0, 10.0], run_order=2 * seed, **changes),
        timing_row(
            seed=seed, wall_s=fast, sampler=FIXED_POINT, run_order=2 * seed + 1,
            arm_calls=[2, 3 + seed], arm_work=[2.0, 4.0], **changes,
        ),
    ]  # fmt: skip


def of_fixed_point(*rows):
    table = speedup(repetitions(*rows))
    return table[table["sampler"] == "fixed point"].iloc[0]


def test_a_speed_up_is_the_geometric_mean_of_the_ratios_within_a_repetition():
    row = of_fixed_point(*pair(0, 4.0, 1.0), *pair(1, 30.0, 3.0), *pair(2, 6.0, 1.0))
    ratios = np.array([4.0, 10.0, 6.0])
    assert row.speedup == pytest.approx(stats.gmean(ratios))  # the ratio of the means would be 8
    low, high = np.exp(stats.t.interval(0.95, 2, np.log(ratios).mean(), stats.sem(np.log(ratios))))
    assert (row.speedup_low, row.speedup_high) == (pytest.approx(low), pytest.approx(high))
    assert row.repetitions == 3 and row.trainings == 1
    assert row.seconds == pytest.approx(5 / 6), "of a sample, two were drawn"
    assert row.seconds_std == pytest.approx(np.std([0.5, 1.5, 0.5], ddof=1))
    assert row.calls_percent == pytest.approx(np.mean([30, 40, 50]))  # the slowest of each batch, of 10 dimensions
    assert row.calls_percent_std == pytest.approx(10.0)
    assert row.work == 3.0 and row.equal


def test_the_reference_comes_first():
    assert speedup(repetitions(*pair(0, 4.0, 1.0)))["sampler"].tolist() == ["ancestral", "fixed point"]


def test_one_seed_gives_no_spread():
    row = of_fixed_point(*pair(0, 4.0, 1.0))
    assert row[[f"{name}{end}" for name in MEASURES for end in ("_low", "_high")]].isna().all()
    assert row[[f"{name}_std" for name in MEASURES if name not in RATIOS]].isna().all()


def test_one_sample_that_differs_makes_a_row_unequal():
    rows = [*pair(0, 4.0, 1.0), *pair(1, 4.0, 1.0)]
    rows[-1]["exact_fraction"] = 0.5
    assert speedup(repetitions(*rows))["equal"].tolist() == [True, False]


def test_of_several_trainings_each_counts_once_with_the_mean_over_its_seeds():
    rows = [*pair(0, 4.0, 1.0), *pair(1, 9.0, 1.0), *pair(0, 80.0, 10.0, job="b", train_seed=1)]
    row = of_fixed_point(*rows, *pair(0, 27.0, 1.0, job="c", train_seed=2))
    assert row.trainings == 3 and row.repetitions == 4
    units = np.log([6.0, 8.0, 27.0])  # 6 is the geometric mean of 4 and 9
    assert row.speedup == pytest.approx(np.exp(units.mean()))
    low, high = stats.t.interval(0.95, 2, units.mean(), stats.sem(units))
    assert np.log([row.speedup_low, row.speedup_high]) == pytest.approx([low, high])


def test_a_sampler_that_was_listed_twice_in_a_run_counts_once():
    again = [{**row, "wall_s": 3.0} for row in pair(0, 6.0, 1.0)[1:]]
    row = of_fixed_point(*pair(0, 6.0, 1.0), *again)
    assert row.repetitions == 1 and row.seconds == 1.0 and row.speedup == pytest.approx(3.0)


def test_there_is_no_ratio_without_an_ancestral_twin():
    assert np.isnan(paired_speedup(repetitions(*pair(0, 4.0, 1.0)[1:]), "ancestral")).all()


def test_samples_through_slots_are_compared_by_the_sample():
    rows = pair(0, 4.0, 2.0)
    rows[1] |= {
        "arm_calls": [3] * 8,
        "arm_work": [3.0] * 8,
        "samples": 8,
    }  # 8 samples through 2 slots, against a batch of 2
    row = of_fixed_point(*rows)
    assert row.speedup == pytest.approx(8.0) and row.samples == 8 and row.over_paper == 1


def test_no_rows_give_an_empty_table_with_all_columns():
    table = speedup(repetitions(timing_row()).iloc[:0])
    assert table.empty and {"speedup_low", "query", "sampler"} <= set(table.columns)


def test_an_interval_is_within_what_is_possible():
    rows = [row for seed, fast in enumerate((1.0, 4.0, 9.0)) for row in pair(seed, 10.0, fast)]
    for row, calls in zip(rows[1::2], (1, 9, 10), strict=True):
        row["arm_calls"] = [calls, calls]
    row = of_fixed_point(*rows)
    assert row.calls_percent_high == 100 and row.calls_percent_low == 0 and row.seconds_low == 0


def test_the_bootstrap_agrees_with_that_of_scipy():
    values = np.random.default_rng(3).exponential(size=20)
    tail = stats.norm.cdf(np.sqrt(20 / 19) * stats.t.ppf(0.025, 19))  # the percentile that the expansion asks for
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=1 - 2 * tail, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    low, high = mean_interval(values[:, None])
    reach = theirs.high - theirs.low
    assert abs(low[0] - theirs.low) < 0.05 * reach and abs(high[0] - theirs.high) < 0.05 * reach


def test_of_many_values_the_interval_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(size=(400, 3))
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std(axis=0, ddof=1) / 20, rel=0.08)


@pytest.mark.parametrize("count", [3, 4, 5, 7, 10, 30])
def test_the_interval_covers_the_mean_about_as_often_as_it_says(count):
    truth = np.exp(0.02)
    values = np.random.default_rng(count).lognormal(sigma=0.2, size=(count, 4000))  # as skewed as seconds are
    low, high = mean_interval(values)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.91 <= covered <= 0.97  # the standard error of the estimate is 0.0035


def test_two_values_have_no_interval_and_equal_ones_an_interval_of_no_width():
    assert all(np.isnan(end).all() for end in mean_interval(np.ones((2, 1))))
    for count in (3, 6):
        low, high = mean_interval(np.full((count, 1), 2.0))
        assert low[0] == high[0] == 2.0


def test_too_few_repetitions_are_said():
    rows = [row for seed in range(5) for row in pair(seed, 4.0, 1.0)]
    assert few_repetitions(speedup(repetitions(*rows))) == []
    (said,) = few_repetitions(speedup(repetitions(*rows[:8])))
    assert said.startswith("1 of 2 rows have fewer than 5 repetitions")
