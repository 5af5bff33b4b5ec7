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

_HOMES = ("errors", "layout", "decision", "gumbel", "contracts", "samplers", "checkpoint")
"""Modules of the public names; `errors`, the first, loads no torch."""


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for: `harness status` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (importlib.import_module(f"arm_core.{home}") for home in _HOMES)
    value = globals()[name] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
