"""The training step beside the same network with plain convolutions."""

import re

import pytest
from click.testing import CliRunner

from arm_core import Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from benchmarks.training import main, unmask


@pytest.mark.slow
def test_the_training_step_is_timed_beside_plain_convolutions():
    options = "--size 4x4x3x4 --resnets 1 --filters 6 --batch-size 2 --steps 2"
    result = CliRunner().invoke(main, options.split())
    assert result.exit_code == 0, result.output
    assert re.search(r"ratio \d.*not convolution \d.*\d MiB masked, \d+ MiB plain", result.output)


def test_a_size_that_is_none_is_refused():
    result = CliRunner().invoke(main, ["--size", "28x28"])
    assert result.exit_code == 2 and "--size must be HEIGHTxWIDTHxCHANNELSxCATEGORIES" in result.output


def test_a_plain_network_has_the_layers_of_the_arm_and_no_mask():
    arm = PixelCNN(Layout(3, 4, 4, 2), PixelCNNConfig(resnets=1, filters=6))
    before = sum(p.numel() for p in arm.parameters())
    unmask(arm)
    assert sum(p.numel() for p in arm.parameters()) == before
    assert not [name for name, buffer in arm.named_buffers() if name.endswith("mask") and buffer is not None]
