"""ARM fixed-point iteration (paper Alg. 2): the ARM's own last outputs are the forecasts.

They need nothing but a sampler's state, so samplers may default to them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import SamplerState, recordable


@recordable
def fixed_point(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """The outputs of the last evaluation; 0 where there has been none.

    With fixed noise the sample is the only fixed point of x -> argmax(logits(x) + noise), and feeding the outputs back
    reaches it without anything learned.
    """
    return torch.where(state.evaluated, state.outputs, 0)


@recordable
def fixed_point_above(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """`fixed_point`, started from the row above: where there is no output yet, the one of the same column a row higher.

    Rows that a window has not reached yet begin with the best guess at hand instead of zeros; 0 where the row above has
    no output either.
    """
    row = state.layout.width * state.layout.channels
    guess = fixed_point(state)
    above = torch.where(state.is_known, state.x, guess)
    return torch.where(state.evaluated, guess, F.pad(above, (row, 0))[:, : state.layout.dims])


@recordable
def most_likely(state: SamplerState) -> Int[Tensor, "slots dims"]:
    """The mode of the ARM's last distribution of each dimension, whatever the noise; 0 where there has been none.

    The paper's forecast for its ablation without reparametrisation, where earlier outputs say nothing of later noise.
    """
    return torch.where(state.evaluated, state.modes, 0)
