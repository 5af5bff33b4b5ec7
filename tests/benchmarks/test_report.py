"""The benchmark of status and report."""

import re

import pytest
from click.testing import CliRunner

from benchmarks.report import main


@pytest.mark.slow
def test_it_fills_a_store_once_and_measures_both_commands(tmp_path):
    for _ in range(2):
        result = CliRunner().invoke(main, ["--jobs", "4", "--rows", "60", "--store", str(tmp_path / "store")])
        assert result.exit_code == 0, result.output
        assert "4 jobs, 60 timing rows" in result.output
        assert re.search(r"status +\d+\.\d+ s +\d+\.\d+ s of CPU +\d+ MiB", result.output) and "report" in result.output
