"""Exact fast sampling of autoregressive models (ARMs): models, forecasters and samplers.

An ARM maps a flat integer sequence to logits that are strictly triangular in it. Given fixed Gumbel noise its
sample is a deterministic fixed point. A forecaster guesses the rest of the sequence, and the sampler keeps the
prefix that the ARM confirms.
"""

from arm_core.checkpoint import Checkpoint, load_arm, load_checkpoint, save_arm
from arm_core.contracts import ArmOutput, AutoregressiveModel, Forecaster, SamplerState, SampleTrace
from arm_core.errors import InputError
from arm_core.gumbel import posterior_gumbel, sample_noise
from arm_core.layout import Layout
from arm_core.samplers import (
    FinishedSample,
    ancestral_sample,
    predictive_sample,
    resampled_sample,
    sample_many,
    stream_samples,
)

__all__ = [
    "ArmOutput",
    "AutoregressiveModel",
    "Checkpoint",
    "FinishedSample",
    "Forecaster",
    "InputError",
    "Layout",
    "SampleTrace",
    "SamplerState",
    "ancestral_sample",
    "load_arm",
    "load_checkpoint",
    "posterior_gumbel",
    "predictive_sample",
    "resampled_sample",
    "sample_many",
    "sample_noise",
    "save_arm",
    "stream_samples",
]
