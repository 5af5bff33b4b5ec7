"""The forecasters of the examples: what they forecast, and that they never change a sample."""

import pytest
import torch

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_noise
from arm_core.forecasters import row_above
from arm_core.registry import config_type
from tests.conftest import SpanTableArm


@pytest.mark.parametrize("layout", [Layout(1, 5, 4, 3), Layout(3, 3, 3, 2)], ids=str)
@pytest.mark.parametrize("window", [None, 1, 5])
def test_they_never_change_a_sample(copies, layout, window):
    arm = SpanTableArm(layout, 1)
    noise = sample_noise(layout, seed=0, sample_ids=range(3), dtype=torch.float64)
    copy_above, copy_from = copies
    config = config_type(copy_from)
    expected = ancestral_sample(arm, noise).x
    for forecaster in (copy_above, copy_from(layout, config()), copy_from(layout, config(rows=0, columns=1))):
        assert torch.equal(predictive_sample(arm, noise, forecaster, window=window).x, expected)


def test_known_rows_are_copied_down(copies):
    layout = Layout(2, 4, 3, 5)
    arm = SpanTableArm(layout, 1)
    noise = sample_noise(layout, seed=0, sample_ids=range(2), dtype=torch.float64)
    seen = []

    def compare(state):
        assert (state.known > 0).any() or not seen
        said, expected = copies[0](state), row_above(state)
        ahead = torch.arange(layout.dims) - state.known[:, None]
        near = (ahead >= 0) & (ahead < layout.width * layout.channels) & (torch.arange(layout.dims) >= 6)
        seen.append(torch.equal(said[near], expected[near]))
        return said

    predictive_sample(arm, noise, compare)
    assert len(seen) > 3 and all(seen)


def test_an_offset_of_nothing_is_refused(copies):
    with pytest.raises(InputError, match="nor both 0"):
        config_type(copies[1])(rows=0, columns=0)
