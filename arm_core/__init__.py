"""Exact fast sampling of autoregressive models (ARMs): models, forecasters and samplers.

An ARM maps a flat integer sequence to logits that are strictly triangular in it. Given fixed Gumbel noise its
sample is a deterministic fixed point. A forecaster guesses the rest of the sequence, and the sampler keeps the
prefix that the ARM confirms.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arm_core.checkpoint import Checkpoint, load_arm, load_checkpoint, save_arm
    from arm_core.contracts import ArmOutput, AutoregressiveModel, Forecaster, SamplerState, SampleTrace
    from arm_core.decision import min_p, top_k, top_p
    from arm_core.errors import InputError
    from arm_core.gumbel import KeyedNoise, posterior_gumbel, sample_noise
    from arm_core.layout import Layout
    from arm_core.samplers import (
        FinishedSample,
        ancestral_sample,
        predictive_sample,
        resampled_sample,
        sample_many,
        scd_sample,
        sjd_sample,
        stream_samples,
    )

__all__ = [
    "ArmOutput",
    "AutoregressiveModel",
    "Checkpoint",
    "FinishedSample",
    "Forecaster",
    "InputError",
    "KeyedNoise",
    "Layout",
    "SampleTrace",
    "SamplerState",
    "ancestral_sample",
    "load_arm",
    "load_checkpoint",
    "min_p",
    "posterior_gumbel",
    "predictive_sample",
    "resampled_sample",
    "sample_many",
    "sample_noise",
    "save_arm",
    "scd_sample",
    "sjd_sample",
    "stream_samples",
    "top_k",
    "top_p",
]

_HOMES = {
    "ArmOutput": "arm_core.contracts",
    "AutoregressiveModel": "arm_core.contracts",
    "Checkpoint": "arm_core.checkpoint",
    "FinishedSample": "arm_core.samplers",
    "Forecaster": "arm_core.contracts",
    "InputError": "arm_core.errors",
    "KeyedNoise": "arm_core.gumbel",
    "Layout": "arm_core.layout",
    "SampleTrace": "arm_core.contracts",
    "SamplerState": "arm_core.contracts",
    "ancestral_sample": "arm_core.samplers",
    "load_arm": "arm_core.checkpoint",
    "load_checkpoint": "arm_core.checkpoint",
    "min_p": "arm_core.decision",
    "posterior_gumbel": "arm_core.gumbel",
    "predictive_sample": "arm_core.samplers",
    "resampled_sample": "arm_core.samplers",
    "sample_many": "arm_core.samplers",
    "sample_noise": "arm_core.gumbel",
    "save_arm": "arm_core.checkpoint",
    "scd_sample": "arm_core.samplers",
    "sjd_sample": "arm_core.samplers",
    "stream_samples": "arm_core.samplers",
    "top_k": "arm_core.decision",
    "top_p": "arm_core.decision",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for: `harness status` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
