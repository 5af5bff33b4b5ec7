"""Samplers: one pure step and short drivers over it, beside the ancestral reference."""

from arm_core.samplers.ancestral import ancestral_sample
from arm_core.samplers.peers.pac import pac_sample
from arm_core.samplers.peers.ramachandran import cached_sequential_sample
from arm_core.samplers.peers.scd import scd_sample
from arm_core.samplers.peers.sjd import sjd_sample
from arm_core.samplers.peers.song import gs_jacobi_sample, jacobi_gs_sample, jacobi_sample
from arm_core.samplers.predictive import predictive_sample
from arm_core.samplers.resampled import resampled_sample
from arm_core.samplers.stream import FinishedSample, sample_many, stream_samples

__all__ = [
    "FinishedSample",
    "ancestral_sample",
    "cached_sequential_sample",
    "gs_jacobi_sample",
    "jacobi_gs_sample",
    "jacobi_sample",
    "pac_sample",
    "predictive_sample",
    "resampled_sample",
    "sample_many",
    "scd_sample",
    "sjd_sample",
    "stream_samples",
]
