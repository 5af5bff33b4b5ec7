import os
import subprocess
import sys
from pathlib import Path

import pytest

from arm_core import load_arm

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_library_alone_trains_and_samples_in_thirty_lines(tmp_path, sample_data):
    script = ROOT / "examples" / "train_and_sample.py"
    assert len(script.read_text().splitlines()) <= 31
    command = [sys.executable, str(script), "5", str(tmp_path / "arm")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "the same samples: True" in run.stdout and "bits/dim" in run.stdout
    assert load_arm(tmp_path / "arm").layout.dims == 64
