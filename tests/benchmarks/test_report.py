"""The benchmark of status and report."""

import re

import pytest
from click.testing import CliRunner

from benchmarks import report


@pytest.mark.slow
def test_it_fills_a_store_once_and_measures_both_commands(tmp_path, monkeypatch):
    arguments = ["--jobs", "4", "--rows", "60", "--store", str(tmp_path / "store")]
    with monkeypatch.context() as patch:
        patch.setattr(report, "measure", lambda *places: [])
        filled = CliRunner().invoke(report.main, arguments)
    monkeypatch.setattr(report, "fill_store", None)
    result = CliRunner().invoke(report.main, arguments)
    for each in (filled, result):
        assert each.exit_code == 0, each.output
        assert "4 jobs, 60 timing rows" in each.output
    assert re.search(r"status +\d+\.\d+ s +\d+\.\d+ s of CPU +\d+ MiB", result.output) and "report" in result.output
