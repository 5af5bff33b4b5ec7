"""Sampling without reparametrisation, the paper's ablation: fresh noise at every call (app. A.2)."""

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.errors import InputError
from arm_core.gumbel import standard_gumbel
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.step import advance, forecasts, initial_state
from arm_core.samplers.trace import account, new_trace


def resampled_sample(
    arm: AutoregressiveModel, *, batch: int, generator: torch.Generator, forecaster: Forecaster
) -> SampleTrace:
    """Samples whose noise is drawn anew at every call, after the forecasts.

    Exact in law only: every sample has the ARM's distribution, but none equals the ancestral sample of some noise, and
    two forecasters give two different samples. It holds because the noise of a call is independent of its forecasts:
    given the known prefix an output is a fresh draw from its conditional whether or not the forecast happens to equal
    it. What a forecast hits by chance is all that it can save, so many more calls are needed.

    The forecaster sees noise of its own, independent of that of any call: forecasts that read noise become independent
    draws. For the mode instead, use `most_likely` or `LearnedForecaster(..., mode=True)`.

    Args:
        arm: any ARM.
        batch: samples, at least 0.
        generator: of all noise, on the ARM's device.
        forecaster: guesses the dimensions past the frontier.

    Returns:
        The samples, in at most `dims` calls each; see `SampleTrace`. An output settles when its noise is last drawn.

    Raises:
        InputError: batch is negative, autocast is on, or the forecaster returned something else than integers.
    """
    if batch < 0:
        raise InputError(f"batch must be at least 0, got {batch}")
    layout = arm.layout
    weights = (tensor for tensor in itertools.chain(arm.parameters(), arm.buffers()) if tensor.is_floating_point())
    weight = next(weights, torch.empty(0, device=generator.device))  # an ARM may have none
    like = torch.empty(batch, layout.dims, layout.categories, dtype=weight.dtype, device=weight.device)
    state = initial_state(arm, like)
    trace = new_trace(state)
    with sampling_mode(arm):
        while bool((state.known < layout.dims).any()):
            guess = forecasts(forecaster, replace(state, noise=standard_gumbel(like, generator)))
            before = replace(state, noise=standard_gumbel(like, generator))
            state = advance(arm, before, _said(guess))
            trace = account(trace, before, state)
    return trace


def _said(guess: Tensor) -> Forecaster:
    """A forecaster that repeats what was said before the noise was drawn."""
    return lambda state: guess
