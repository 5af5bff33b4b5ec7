"""One step of predictive sampling, as a pure function from state to state (paper Alg. 1).

A forecaster fills the sequence past the frontier, the ARM is evaluated once, and the prefix that it confirms is kept.
This module knows no particular ARM, no forecaster and no loop.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SamplerState
from arm_core.errors import InputError


def initial_state(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "slots dims categories"],
    prefix: Int[Tensor, "slots known"] | None = None,
) -> SamplerState:
    """Nothing known but the prefix, nothing evaluated, and a span over the whole image."""
    slots, dims, _ = noise.shape
    zeros = torch.zeros(slots, dims, dtype=torch.int64, device=noise.device)
    start = torch.zeros(slots, dtype=torch.int64, device=noise.device)
    x, known = zeros, start
    if prefix is not None:
        x, known = torch.cat([prefix.to(zeros), zeros[:, prefix.shape[1] :]], dim=1), start + prefix.shape[1]
    return SamplerState(
        layout=arm.layout,
        noise=noise,
        x=x,
        known=known,
        start=start,
        stop=start + dims,
        fed=zeros,
        outputs=zeros,
        evaluated=torch.zeros_like(zeros, dtype=torch.bool),
        hidden=noise.new_zeros(slots, dims, arm.hidden_features),
        logits=torch.zeros_like(noise),
    )


def advance(arm: AutoregressiveModel, state: SamplerState, forecaster: Forecaster) -> SamplerState:
    """Forecast, evaluate the ARM once, keep the prefix that it confirms.

    With L the first dimension of the span whose forecast differs from the output (stop when there is none), the new
    frontier is min(stop, L + 1): the outputs up to L saw final inputs only, so the one at L is final as well.

    Raises:
        InputError: the forecaster did not return integers of shape (slots, dims).
    """
    is_known = state.is_known
    fed = torch.where(is_known, state.x, forecasts(forecaster, state))
    logits, hidden = arm(fed)
    # An output before the frontier is final. Taking it from x keeps it so even where rounding would flip a near tie.
    outputs = torch.where(is_known, state.x, (logits + state.noise).argmax(dim=-1))
    return replace(
        state,
        x=outputs,
        known=torch.minimum(state.stop, first_wrong(fed == outputs) + 1),
        fed=fed,
        outputs=outputs,
        evaluated=torch.ones_like(state.evaluated),
        hidden=hidden,
        logits=logits,
    )


def forecasts(forecaster: Forecaster, state: SamplerState) -> Int[Tensor, "slots dims"]:
    """What the forecaster says, clamped to valid categories."""
    guess = forecaster(state)
    if not isinstance(guess, Tensor) or guess.shape != state.x.shape or guess.is_floating_point():
        got = f"{guess.dtype} {tuple(guess.shape)}" if isinstance(guess, Tensor) else type(guess).__name__
        raise InputError(
            f"a forecaster must return integers of shape (slots, dims) = {tuple(state.x.shape)}, got {got}"
        )
    return guess.to(state.x).clamp(0, state.layout.categories - 1)


def first_wrong(right: Bool[Tensor, "slots dims"]) -> Int[Tensor, " slots"]:
    """The first dimension that is not right in each slot; dims when there is none."""
    return right.cumprod(dim=1).sum(dim=1)
