"""What the paper's sizes cost: the run itself, in tiny sizes, and the days that are computed."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from benchmarks import sizes
from benchmarks.command import ROOT
from harness.sweep.plan import draw_jobs
from harness.sweep.spec import load_sweep


@pytest.mark.slow
def test_every_part_gives_its_rows(tmp_path):
    result = CliRunner().invoke(sizes.main, ["--small", "--out", str(tmp_path / "sizes.json")])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "sizes.json").read_text())["rows"]
    kinds = ["pass", "window call", "2 rows, paper's", "2 rows, windows"]
    assert [row["what"] for row in rows] == [*kinds, *kinds, "training step"]
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert all(row["same_samples"] for row in rows if "same_samples" in row)
    days = rows[-1]["computed_v100_days_each"] * sizes.SHARE * sizes.V100 * 86_400
    assert days == pytest.approx(
        1000 * rows[-1]["gflops"] * 1e9 * rows[-1]["seconds"] * 4 / 2
    )  # batches of 4, by steps of 2
    assert "days of one V100" in result.output


def test_the_trainings_are_those_of_the_papers_profile():
    found: Counter[tuple[str, int]] = Counter()
    for name in ("table1", "table2"):
        for job in draw_jobs(load_sweep(ROOT / f"sweeps/{name}.yaml", profile="paper")).jobs.values():
            if job.kind == "autoencoder":
                found[sizes.LATENTS, job.training["iterations"]] += 1
            elif job.kind == "train":
                size = f"R{job.arm.options['resnets']} F{job.arm.options['filters']}"
                found[size, job.training["iterations"]] += 1
    assert found == Counter({(name, iterations): count for name, (count, iterations) in sizes.TRAININGS.items()})
