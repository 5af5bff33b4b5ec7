"""A forecaster of one's own: it copies what stands above, as a function, and as a class with options.

harness check examples/copy_above.py:copy_above
harness sweep examples/sweep.yaml
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arm_core import InputError, Layout, SamplerState


def copy_above(state: SamplerState) -> Tensor:
    """Forecast that every dimension repeats the one a row above: its value if it is known, else its last output."""
    values = torch.where(state.is_known, state.x, state.outputs)
    row = state.layout.width * state.layout.channels
    return values.roll(row, dims=1)  # the first row gets the last one: a wrong forecast costs calls, never a sample


@dataclass(frozen=True)
class Offset:
    """From where `CopyFrom` copies: `rows` up and `columns` to the left, not both 0."""

    rows: int = 1
    columns: int = 0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 0 or self.rows + self.columns == 0:
            raise InputError(f"rows and columns must not be negative, nor both 0, got {self.rows} and {self.columns}")


class CopyFrom:
    """The same from any pixel that comes earlier; its options stand in the sweep file.

    Args:
        layout: of the images.
        config: from where to copy.
    """

    def __init__(self, layout: Layout, config: Offset) -> None:
        self.back = (config.rows * layout.width + config.columns) * layout.channels

    def __call__(self, state: SamplerState) -> Tensor:
        """The forecasts, (slots, dims)."""
        values = torch.where(state.is_known, state.x, state.outputs)
        return values.roll(self.back, dims=1)
