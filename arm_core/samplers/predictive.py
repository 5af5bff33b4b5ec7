"""Predictive sampling with any forecaster (paper Alg. 1; with `fixed_point` its Alg. 2)."""

from jaxtyping import Float
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.errors import InputError
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.noise import check_noise
from arm_core.samplers.step import advance, initial_state
from arm_core.samplers.trace import account, new_trace


def predictive_sample(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "batch dims categories"],
    forecaster: Forecaster,
    *,
    window: int | None = None,
) -> SampleTrace:
    """The samples of `ancestral_sample` under the same noise, in as many calls as the forecaster needs.

    The whole image is evaluated at every call and the batch runs until its slowest sample is done. Each call makes at
    least one dimension final, so there are at most `dims` of them, however bad the forecasts.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.
        forecaster: guesses the dimensions past the frontier.
        window: None, the whole image. Cached windows are not built yet; a number is an error.

    Returns:
        The samples and how they came to be; x equals that of `ancestral_sample` (in float64 always; in float32 up to
        near ties that rounding can flip between batch shapes).

    Raises:
        InputError: the noise does not fit the ARM, autocast is on, the forecaster returned something else than
            integers (batch, dims), or a window was asked for.
    """
    if window is not None:
        raise InputError(f"window={window}: cached windows are not built yet; leave window out for the whole image")
    check_noise(arm, noise)
    state = initial_state(arm, noise)
    trace = new_trace(state)
    with sampling_mode(arm):
        while bool((state.known < arm.layout.dims).any()):
            before, state = state, advance(arm, state, forecaster)
            trace = account(trace, before, state)
    return trace
