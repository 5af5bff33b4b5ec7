"""The example that times a transformer: it draws the same samples in every way before it says which is fast."""

import subprocess
import sys

import pytest
import torch

from arm_core import Layout, save_arm
from arm_core.registry import config_type


@pytest.mark.slow
def test_its_rival_draws_the_samples_of_the_windows(at_the_root, transformer, tmp_path):
    torch.manual_seed(0)
    arm = transformer(Layout(1, 6, 6, 3), config_type(transformer)(layers=2, width=16, heads=2))
    save_arm(arm.double(), tmp_path / "arm")  # in float64 nothing can differ
    command = [sys.executable, "examples/time_transformer.py", str(tmp_path / "arm"), "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=at_the_root)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("all samples equal: True") == 2
    assert run.stdout.count("ms a sample") == 12
