"""Samplers that others have published, to measure ours beside them. One file a source.

Those of `song` and `ramachandran` solve x = argmax(logits(x) + noise), whose solution is unique, since row i of the
logits reads x_<i only: the same noise, the same samples. Those of `sjd`, `scd` and `pac` are exact in law only. All
let a batch go on until its slowest sample is done; the latter can go through slots too.
"""

from arm_core.samplers.peers.pac import pac_sample
from arm_core.samplers.peers.ramachandran import cached_sequential_sample
from arm_core.samplers.peers.scd import scd_sample
from arm_core.samplers.peers.sjd import sjd_sample
from arm_core.samplers.peers.song import gs_jacobi_sample, jacobi_gs_sample, jacobi_sample

__all__ = [
    "cached_sequential_sample",
    "gs_jacobi_sample",
    "jacobi_gs_sample",
    "jacobi_sample",
    "pac_sample",
    "scd_sample",
    "sjd_sample",
]
