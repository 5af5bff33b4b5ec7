"""From a sampler's settings and a checkpoint to a function from noise to samples."""

from collections.abc import Callable

from torch import Tensor

from arm_core import Checkpoint, Forecaster, InputError, SampleTrace, ancestral_sample, predictive_sample
from arm_core.forecasters import LearnedForecaster
from arm_core.registry import FORECASTERS, config_type
from harness.sweep.components import make_config
from harness.sweep.plan import SamplerSpec

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
    return lambda noise: predictive_sample(arm, noise, forecaster)


def make_forecaster(spec: SamplerSpec, checkpoint: Checkpoint) -> Forecaster:
    """The forecaster of a predictive sampler; see `make_sampler`."""
    assert spec.forecaster is not None
    if spec.forecaster == "learned":
        if checkpoint.modules is None:
            raise InputError("the checkpoint has no forecasting modules; use fixed_point, or train with `forecasting:`")
        return LearnedForecaster(checkpoint.modules, horizon=spec.horizon)
    found = FORECASTERS.resolve(spec.forecaster)
    if not isinstance(found, type):
        return found
    config = make_config(found, spec.options)
    layout = checkpoint.arm.layout
    return found(layout) if config_type(found) is None else found(layout, config)
