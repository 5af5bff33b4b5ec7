"""Sampling without reparametrisation, the paper's ablation: fresh noise at every call (app. A.2)."""

import itertools

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Contexts, Forecaster, SampleTrace
from arm_core.decision import Decision, Processors
from arm_core.errors import InputError
from arm_core.gumbel import DenseNoise, standard_gumbel
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_conditions
from arm_core.samplers.step import guesses, step
from arm_core.samplers.work import WholeImages, Work


def resampled_sample(
    arm: AutoregressiveModel,
    *,
    batch: int,
    generator: torch.Generator,
    forecaster: Forecaster,
    prefix: Int[Tensor, "batch known"] | None = None,
    temperature: float | int = 1.0,
    logits_processor: Processors | None = None,
    context: Contexts | None = None,
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
        prefix, temperature, logits_processor, context: as for `ancestral_sample`.

    Returns:
        The samples, in at most `dims` calls each; see `SampleTrace`. An output settles when its noise is last drawn.

    Raises:
        InputError: batch is negative; otherwise as `predictive_sample`.
    """
    if batch < 0:
        raise InputError(f"batch must be at least 0, got {batch}")
    layout, decision = arm.layout, Decision(logits_processor, temperature)
    prefix = check_conditions(arm, batch, prefix, context)
    weights = (tensor for tensor in itertools.chain(arm.parameters(), arm.buffers()) if tensor.is_floating_point())
    weight = next(weights, torch.empty(0, device=generator.device))  # an ARM may have none
    drawn = DenseNoise(torch.empty(batch, layout.dims, layout.categories, dtype=weight.dtype, device=weight.device))
    said: list[Tensor] = []
    with sampling_mode(arm):
        work = Work(arm, batch, WholeImages(arm), lambda state: said[-1], drawn, decision)
        rows = list(range(batch))
        work.begin(rows, rows, prefix, context)
        while not all(work.finished()):
            drawn.noise = standard_gumbel(drawn.noise, generator)
            said[:] = [guesses(forecaster, work.state)]
            drawn.noise = standard_gumbel(drawn.noise, generator)
            step(work, torch.zeros_like(work.full), layout.dims)
        return work.trace()
