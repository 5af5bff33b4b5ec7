"""The benchmark of proofs, on an ARM and numbers that are small."""

import json

from click.testing import CliRunner

from arm_core import save_arm
from benchmarks.certified import main
from tests.arm_core.test_certified import near_ties


def test_the_figures_are_those_of_the_samples(tmp_path):
    save_arm(near_ties(), tmp_path / "arm")
    small = ["--count", 12, "--slots", 4, "--samples-per-slot", 1, "--repetitions", 1]
    arguments = ["--checkpoint", tmp_path / "arm", *small, "--out", tmp_path / "figures.json"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "figures.json").read_text())
    exact = {row["sampler"]: row for row in found["exact"]}
    assert exact["certified"]["equal_to_float64"] == 1 == exact["float64"]["equal_to_float64"]
    assert exact["certified"]["repaired"] > 0 == exact["float64"]["repaired"]
    assert [row["sampler"] for row in found["cost"]] == ["plain", "certified", "paper's algorithm"]
    assert len(found["drafts"]) == 6 and all(row["ms_per_sample"] > 0 for row in found["drafts"])
    assert "bfloat16" in result.output
