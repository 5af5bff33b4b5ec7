"""What each free forecaster says, on states made by hand."""

from dataclasses import replace

import torch

from arm_core import Layout
from arm_core.forecasters import fixed_point, predict_last, row_above, zeros
from tests.conftest import TableArm, work_of

LAYOUT = Layout(channels=2, height=3, width=2, categories=9)


def state_with(known):
    arm = TableArm(LAYOUT)
    state = work_of(arm, torch.zeros(1, LAYOUT.dims, 9, dtype=torch.float64), zeros).state
    x = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4]])
    return replace(state, x=x, known=torch.tensor([known]))


def test_zeros_forecasts_zeros():
    assert zeros(state_with(5)).tolist() == [[0] * 12]


def test_predict_last_repeats_the_last_known_value():
    assert predict_last(state_with(5))[0, 5:].tolist() == [5] * 7
    assert predict_last(state_with(0)).tolist() == [[0] * 12]


def test_row_above_takes_the_nearest_known_value_of_column_and_channel():
    # one row is four dimensions: (column 0: 1 2)(column 1: 3 4)
    assert row_above(state_with(0)).tolist() == [[0] * 12]
    assert row_above(state_with(4))[0, 4:].tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert row_above(state_with(6))[0, 6:].tolist() == [3, 4, 5, 6, 3, 4]


def test_fixed_point_repeats_the_outputs_where_there_are_any():
    state = state_with(2)
    outputs = torch.full_like(state.x, 7)
    assert fixed_point(replace(state, outputs=outputs)).tolist() == [[0] * 12]
    evaluated = torch.arange(12)[None] < 6
    assert fixed_point(replace(state, outputs=outputs, evaluated=evaluated)).tolist() == [[7] * 6 + [0] * 6]
