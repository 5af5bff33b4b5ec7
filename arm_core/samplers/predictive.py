"""Predictive sampling with any forecaster (paper Alg. 1; with `fixed_point` its Alg. 2)."""

from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_noise, check_prefix, check_temperature, span_cache
from arm_core.samplers.slots import Slots
from arm_core.samplers.step import advance, initial_state
from arm_core.samplers.trace import account, new_trace


def predictive_sample(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "batch dims categories"],
    forecaster: Forecaster,
    *,
    window: int | None = None,
    prefix: Int[Tensor, "batch known"] | None = None,
    temperature: float = 1.0,
) -> SampleTrace:
    """The samples of `ancestral_sample` under the same noise, in as many calls as the forecaster needs.

    Without a window the whole image is evaluated at every call, and the batch runs until its slowest sample is done:
    the paper's algorithm. With one, a call evaluates the next `window` dims of every sample on top of a cache of
    finished ones, each sample at its own place. Either way a call makes at least one dimension final, so there are at
    most `dims` of them, however bad the forecasts.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.
        forecaster: guesses the dimensions past the frontier.
        window: dims, rounded up to the ARM's granule; None, the whole image.
        prefix: leading dimensions that are known; the samples complete them.
        temperature: logits are divided by it, at least 0; 0 takes the most likely value of each dimension.

    Returns:
        The samples and how they came to be; x equals that of `ancestral_sample` (in float64 always; in float32 up to
        near ties that rounding can flip between shapes).

    Raises:
        InputError: the noise or the prefix does not fit the ARM, the temperature is negative, autocast is on, the
            forecaster returned something else than integers (batch, dims), or the ARM has no windows.
    """
    check_noise(arm, noise)
    check_temperature(temperature)
    if prefix is not None:
        prefix = check_prefix(arm.layout, prefix, len(noise))
    noise = noise * temperature  # argmax(logits / T + noise) = argmax(logits + T noise)
    if window is not None:
        return _in_windows(arm, noise, forecaster, window, prefix)
    state = initial_state(arm, noise, prefix)
    trace = new_trace(state)
    with sampling_mode(arm):
        while bool((state.known < arm.layout.dims).any()):
            before, state = state, advance(arm, state, forecaster)
            trace = account(trace, before, state)
    return trace


def _in_windows(
    arm: AutoregressiveModel, noise: Tensor, forecaster: Forecaster, window: int, prefix: Tensor | None
) -> SampleTrace:
    with sampling_mode(arm):
        work = Slots(arm, len(noise), span_cache(arm, len(noise), window), forecaster)
        work.begin(list(range(len(noise))), noise, prefix)
        while not all(work.finished()):
            work.step()
        return work.trace(slice(None))
