"""Samplers that others have published, to measure ours beside them: the same noise, and the same samples.

All solve x = argmax(logits(x) + noise), whose solution is unique, since row i of the logits reads x_<i only. They let a
batch go on until its slowest sample is done. One file a source.
"""

from arm_core.samplers.peers.ramachandran import cached_sequential_sample
from arm_core.samplers.peers.song import gs_jacobi_sample, jacobi_gs_sample, jacobi_sample

__all__ = ["cached_sequential_sample", "gs_jacobi_sample", "jacobi_gs_sample", "jacobi_sample"]
