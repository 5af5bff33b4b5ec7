"""The first screen of a report: families side by side at one width, by the lower end of an interval."""

import numpy as np

from harness.report.lead import headline, leads
from harness.report.statistics import speedup
from tests.harness.rows import FIXED_POINT, timing_row
from tests.harness.test_statistics import repetitions

OURS = '{"forecaster": "fixed_point_above", "stream": true, "window": "auto"}'
RISKY = '{"forecaster": "fixed_point", "stream": true}'
CACHED = '{"sampler": "cached_sequential"}'


def rows(width, seconds, seeds=6):
    """Seconds of a repetition by sampler; a list: by seed."""
    made = []
    for sampler, each in seconds.items():
        for seed in range(seeds):
            took = each[seed % len(each)] if isinstance(each, list) else each
            calls = {"arm_calls": [4] * width, "arm_work": [4.0] * width, "samples": width}
            made.append(timing_row(sampler=sampler, seed=seed, batch_size=width, wall_s=took + seed / 1e3, **calls))
    return made


ANCESTRAL = timing_row()["sampler"]


def lead_of(*made):
    (found,) = leads(speedup(repetitions(*[row for part in made for row in part])))
    return found


def test_each_family_stands_once_at_the_largest_width_that_has_them_all():
    small = rows(2, {ANCESTRAL: 8.0, FIXED_POINT: 2.0, CACHED: 1.0, OURS: 0.5})
    large = rows(8, {FIXED_POINT: 4.0, CACHED: 3.0, OURS: 1.0})  # no ancestral run: it took too long
    found = lead_of(small, large)
    assert found.width == 2 and [row[1].text for row in found.rows] == [
        "ancestral", "fixed point", "cached sequential", "fixed point above, auto window, slots",
    ]  # fmt: skip
    assert found.sure and 3.9 < found.factor < 4.0
    assert "at least 4.0 times faster than the paper's algorithm, at least 15.9 times faster than anc" in found.claim


def test_the_fastest_is_the_one_that_is_surely_fast():
    wild = [0.1, 3.0, 0.1, 3.0, 0.1, 0.1]
    found = lead_of(rows(2, {ANCESTRAL: 8.0, FIXED_POINT: 2.0, OURS: 1.2, RISKY: wild}))
    assert np.mean(wild) < 1.2 and found.rows[-1][1].text.startswith("fixed point above")


def test_without_an_interval_the_claim_says_so():
    found = lead_of(rows(2, {ANCESTRAL: 8.0, FIXED_POINT: 2.0, OURS: 0.5}, seeds=2))
    assert not found.sure and "about 4.0 times faster" in found.claim
    assert not any(cell.interval for row in found.rows for cell in row)


def test_samples_that_differ_do_not_lead():
    made = rows(2, {ANCESTRAL: 8.0, FIXED_POINT: 2.0, OURS: 0.5})
    made[-1]["exact_fraction"] = 0.5
    found = lead_of(made)
    assert [row[1].text for row in found.rows] == ["ancestral", "fixed point"]
    table = speedup(repetitions(*made))
    assert headline(leads(table), table).endswith(". Some samples differ, see below.")


def test_other_temperatures_do_not_stand_beside_the_arms_own():
    cold = {
        FIXED_POINT.replace("}", ', "temperature": 0.5}'): 0.1,
        ANCESTRAL.replace("}", ', "temperature": 0.5}'): 0.2,
    }
    found = lead_of(rows(2, {ANCESTRAL: 8.0, FIXED_POINT: 2.0, **cold}))
    assert [row[1].text for row in found.rows] == ["ancestral", "fixed point"]
