"""Samplers: one pure step and short drivers over it, beside the ancestral reference."""

from arm_core.samplers.ancestral import ancestral_sample
from arm_core.samplers.predictive import predictive_sample

__all__ = ["ancestral_sample", "predictive_sample"]
