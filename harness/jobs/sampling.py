"""From a sampler's settings and a checkpoint to a function from noise to samples."""

from collections.abc import Callable

import torch
from torch import Tensor

from arm_core import (
    Checkpoint,
    Forecaster,
    InputError,
    SampleTrace,
    ancestral_sample,
    predictive_sample,
    resampled_sample,
)
from arm_core.forecasters import ForecastingModules, GatedForecaster, LearnedForecaster
from arm_core.horizon import GATES, choose_horizon
from arm_core.registry import FORECASTERS, config_type
from harness.sweep.components import make_config
from harness.sweep.plan import LEARNED, SamplerSpec

CHOICE_SEED, CHOICE_COUNT = 2**32, 32
"""Noise that chooses horizons: no timing uses this seed, they are below 2^32."""

Sampler = Callable[[Tensor], SampleTrace]


def make_sampler(spec: SamplerSpec, checkpoint: Checkpoint) -> Sampler:
    """The sampler that `spec` describes, on the checkpoint's ARM.

    Raises:
        InputError: the forecaster does not exist, or is `learned` and the checkpoint has no modules.
    """
    arm = checkpoint.arm
    if spec.sampler == "ancestral":
        return lambda noise: ancestral_sample(arm, noise)
    forecaster = make_forecaster(spec, checkpoint)
    if spec.sampler == "resampled":
        return lambda noise: _with_fresh_noise(checkpoint, noise, forecaster)
    return lambda noise: predictive_sample(arm, noise, forecaster)


def make_forecaster(spec: SamplerSpec, checkpoint: Checkpoint) -> Forecaster:
    """The forecaster of a predictive sampler; see `make_sampler`."""
    assert spec.forecaster is not None
    if spec.forecaster in LEARNED:
        modules, settled = _modules(checkpoint), measured(spec, checkpoint)
        assert not isinstance(settled.horizon, str)
        if spec.forecaster == "gated":
            return GatedForecaster(modules, horizon=settled.horizon, gate=float(settled.options.get("gate", 1.0)))
        return LearnedForecaster(modules, horizon=settled.horizon)
    found = FORECASTERS.resolve(spec.forecaster)
    if not isinstance(found, type):
        return found
    config = make_config(found, spec.options)
    layout = checkpoint.arm.layout
    return found(layout) if config_type(found) is None else found(layout, config)


def measured(spec: SamplerSpec, checkpoint: Checkpoint) -> SamplerSpec:
    """The same sampler; `horizon: auto` becomes the horizon (and gate) that needs the fewest calls."""
    if spec.horizon != "auto":
        return spec
    gated = spec.forecaster == "gated"
    gates = GATES if gated else ()
    settings = choose_horizon(
        checkpoint.arm, _modules(checkpoint), seed=CHOICE_SEED, sample_ids=range(CHOICE_COUNT), gates=gates
    )
    best = next(s for s in settings if s.horizon > 0 and (s.gate is not None) == gated)
    options = {"gate": best.gate} if gated else {}
    return spec.model_copy(update={"horizon": best.horizon, "options": options})


def _modules(checkpoint: Checkpoint) -> ForecastingModules:
    if checkpoint.modules is None:
        raise InputError("the checkpoint has no forecasting modules; use fixed_point, or train with `forecasting:`")
    return checkpoint.modules


def _with_fresh_noise(checkpoint: Checkpoint, noise: Tensor, forecaster: Forecaster) -> SampleTrace:
    """As many samples as there is noise for, from a generator that the noise seeds: a seed of its own a repetition."""
    seed = int(noise.flatten()[:1].double().view(torch.int64)[0]) if noise.numel() else 0
    generator = torch.Generator(noise.device).manual_seed(seed)
    return resampled_sample(checkpoint.arm, batch=len(noise), generator=generator, forecaster=forecaster)
