"""The benchmark of proofs, on an ARM and numbers that are small."""

import json

import pytest
from click.testing import CliRunner

from arm_core import Layout, save_arm
from arm_core.forecasters import fixed_point_above, zeros
from benchmarks import certified
from benchmarks.certified import main, near_ties

LAYOUT = Layout(3, 4, 4, 64)


def figures(tmp_path, *arguments):
    arguments = [*arguments, "--out", tmp_path / "figures.json"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "figures.json").read_text()), result.output


@pytest.mark.slow
def test_the_figures_are_those_of_the_samples(tmp_path):
    save_arm(near_ties(LAYOUT), tmp_path / "arm")
    small = ["--count", 8, "--slots", 4, "--samples-per-slot", 1, "--repetitions", 1]
    parts = ["--part", "exact", "--part", "cost", "--part", "drafts"]
    found, output = figures(tmp_path, "--checkpoint", tmp_path / "arm", *parts, *small)
    exact = {row["sampler"]: row for row in found["exact"]}
    assert exact["certified"]["equal_to_float64"] == 1 == exact["float64"]["equal_to_float64"]
    assert exact["certified"]["repaired"] > 0 == exact["float64"]["repaired"]
    assert [row["sampler"] for row in found["cost"]] == ["plain", "certified", "paper's algorithm"]
    assert len(found["drafts"]) == 6 and all(row["ms_per_sample"] > 0 for row in found["drafts"])
    assert "bfloat16" in output


@pytest.mark.slow
def test_arms_made_for_near_ties(tmp_path, monkeypatch):
    """All slots, windows, forecasters and drafts are in tests/arm_core/test_certified.py, and in the full run."""
    monkeypatch.setattr(certified, "TIED", {Layout(3, 4, 4, 256): 3})
    monkeypatch.setattr(certified, "SLOTS", (2,))
    monkeypatch.setattr(certified, "forecasters", lambda _: {"fixed point above": fixed_point_above, "zeros": zeros})
    rows, output = figures(tmp_path, "--part", "ties")
    assert [(row["forecaster"], row["window"]) for row in rows["ties"]] == 2 * [
        *(("fixed point above", window) for window in (3, 12, 48, "chosen")),
        ("zeros", 12),
    ]
    assert all(row["equal to float64"] == 3 and row["repaired"] > 0 for row in rows["ties"]) and "ties" in output
