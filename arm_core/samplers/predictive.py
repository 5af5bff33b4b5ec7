"""Predictive sampling with any forecaster (paper Alg. 1; with `fixed_point` its Alg. 2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Contexts, Forecaster, SampleTrace
from arm_core.decision import Decision, Processors
from arm_core.gumbel import KeyedNoise
from arm_core.samplers.certified import Certified, certifiable
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_conditions, check_end, noise_source, span_cache
from arm_core.samplers.recorded import Steps
from arm_core.samplers.work import WholeImages, Work


@certifiable
def predictive_sample(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "batch dims categories"] | KeyedNoise,
    forecaster: Forecaster,
    *,
    window: int | None = None,
    prefix: Int[Tensor, "batch known"] | None = None,
    temperature: float | int = 1.0,
    logits_processor: Processors | None = None,
    context: Contexts | None = None,
    end: int | Sequence[int] | None = None,
    certified: Certified = False,
    draft_dtype: torch.dtype | None = None,
) -> SampleTrace:
    """The samples of `ancestral_sample` under the same noise, in as many calls as the forecaster needs.

    Without a window the whole image is evaluated at every call, and the batch runs until its slowest sample is done:
    the paper's algorithm. With one, a call evaluates the next `window` dims of every sample on top of a cache of
    finished ones, each sample at its own place. Either way a call makes at least one dimension final, so there are at
    most `dims` of them, however bad the forecasts.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device: a tensor (`sample_noise`), or `KeyedNoise`.
        forecaster: guesses the dimensions past the frontier.
        window: dims, rounded up to the ARM's granule; None, the whole image.
        prefix, temperature, logits_processor, context: as for `ancestral_sample`.
        end: a category, or several, at which a sample ends; it fills what follows, which costs no call.
        certified: prove every sample in float64 (True), or in `torch.float32`, see `arm_core.samplers.certified`. Then
            x equals what `ancestral_sample` draws in that dtype from the same weights and noise, whatever is used
            here. Noise in a tensor may be of either dtype, and counts as it is; keyed noise is made in both.
        draft_dtype: in which a copy of the ARM draws what is proved; None: the ARM itself does.

    Returns:
        The samples and how they came to be; x equals that of `ancestral_sample`, up to and including its first `end`
        (in float64 always; in float32 up to near ties that rounding can flip between shapes).

    Raises:
        InputError: as `ancestral_sample`; or the forecaster returned something else than integers (batch, dims), or
            the ARM has no windows.
    """
    source, decision = noise_source(arm, noise), Decision(logits_processor, temperature)
    batch = len(source)
    prefix, ends = check_conditions(arm, batch, prefix, context), check_end(arm.layout, end)
    with sampling_mode(arm):
        cache = (
            WholeImages(arm, compact=False)
            if window is None
            else span_cache(arm, batch, window, recorded=decision.recordable)
        )
        work = Work(arm, batch, cache, forecaster, source, decision)
        work.begin(list(range(batch)), list(range(batch)), prefix, context)
        take = Steps(work, whole=window is None)
        while not all(work.finished()):
            take()
            if ends:
                work.end_at(ends)
        return work.trace()
