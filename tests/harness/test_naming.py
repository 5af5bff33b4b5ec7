"""What people call a sampler, from the description in its rows."""

import pytest

from harness.report.naming import named, rank
from harness.sweep import SamplerSpec

OURS = {"forecaster": "fixed_point_above", "window": "auto", "stream": True}
SCD = {"sampler": "scd", "coupling": "maximal", "first": "row_above", "window": 28, "stream": True}
OWN = {"forecaster": "m.py:C", "window": 8, "stream": True, "options": {"rows": 1}}


@pytest.mark.parametrize(
    ("sampler", "label", "family"),
    [
        ("ancestral", "ancestral", "ancestral"),
        ("zeros", "forecast zeros", "paper"),
        ({"forecaster": "learned", "horizon": 4}, "learned, T=4", "paper"),
        ("my.py:copy", "my.py:copy", "paper"),
        ({"forecaster": "fixed_point", "resampled": True}, "fresh noise: fixed point", "law"),
        ({"forecaster": "fixed_point", "window": 56}, "fixed point, window 56", "ours"),
        ({"forecaster": "fixed_point", "window": "image"}, "fixed point, finished dropped", "ours"),
        ({"forecaster": "fixed_point", "stream": True}, "fixed point, slots", "ours"),
        (OURS, "fixed point above, auto window, slots", "ours"),
        ({**OURS, "certified": True}, "fixed point above, auto window, slots, certified", "ours"),
        ({**OURS, "native": True}, "fixed point above, auto window, slots, in C++", "ours"),
        (
            {"forecaster": "zeros", "certified": True, "draft_dtype": "bfloat16"},
            "forecast zeros, certified, bfloat16 drafts",
            "paper",
        ),
        ({"sampler": "gs_jacobi", "block": 28}, "GS-Jacobi, block 28", "others"),
        ("cached_sequential", "cached sequential", "others"),
        ({"sampler": "sjd", "window": 28}, "SJD, window 28", "law"),
        (SCD, "SCD, maximal, row above first, window 28, slots", "law"),
        ({"forecaster": "gated", "horizon": 2, "options": {"gate": 1.0}}, "gated, T=2, gate 1.0", "paper"),
        (OWN, "m.py:C, rows 1, window 8, slots", "ours"),
    ],
)
def test_samplers_are_named_for_people(sampler, label, family):
    found = named(SamplerSpec.model_validate(sampler).described())
    assert (found.label, found.family) == (label, family) and (found.base, found.decision) == (label, "")


def test_what_changes_samples_stands_last_in_a_name():
    settings = {"forecaster": "zeros", "temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.1}
    spec = SamplerSpec.model_validate({**settings, "guidance": 2.0, "context": 3})
    found = named(spec.described())
    assert found.decision == "temperature 0.8, top-k 5, top-p 0.9, min-p 0.1, guidance 2.0, class 3"
    assert found.label == f"forecast zeros, {found.decision}" and found.base == "forecast zeros"


def test_samplers_stand_in_the_order_in_which_they_ask_for_more():
    names = [
        "fresh noise: zeros",
        "learned, T=4",
        "fixed point, window 56",
        "fixed point",
        "mine",
        "ancestral",
        "SJD, row above first, slots",
    ]
    assert sorted(names, key=rank) == [
        "ancestral", "fixed point", "fixed point, window 56", "SJD, row above first, slots", "mine", "learned, T=4", "fresh noise: zeros",
    ]  # fmt: skip
