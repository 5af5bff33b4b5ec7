"""Forecasts that need neither training nor the ARM: the baselines of the paper, and the row above."""

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import SamplerState, recordable


@recordable
def zeros(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """Forecast the value 0 everywhere (paper, baseline "forecast zeros")."""
    return torch.zeros_like(state.x)


@recordable
def predict_last(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """Repeat the last known value; 0 while nothing is known (paper, baseline "predict last")."""
    last = state.x.gather(1, (state.known - 1).clamp_min(0)[:, None])
    return torch.where(state.known[:, None] > 0, last, 0).expand_as(state.x)


@recordable
def row_above(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """The nearest known value above, in the same column and channel; 0 where the column has none."""
    row = state.layout.width * state.layout.channels
    positions = torch.arange(state.layout.dims, device=state.x.device)
    rows_up = (positions - state.known[:, None]).div(row, rounding_mode="floor") + 1  # until a known one is reached
    above = positions - rows_up.clamp_min(1) * row
    return torch.where(above >= 0, state.x.gather(1, above.clamp_min(0)), 0)
