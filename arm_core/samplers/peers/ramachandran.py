"""Cached sequential sampling.

Ramachandran et al., "Fast Generation for Convolutional Autoregressive Models" (2017).
"""

from dataclasses import replace
from typing import Unpack

import torch

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.fixed_point import fixed_point
from arm_core.samplers.certified import certifiable
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import Noise
from arm_core.samplers.peers.batch import Provable, begin_batch
from arm_core.samplers.step import step


@certifiable
def cached_sequential_sample(arm: AutoregressiveModel, noise: Noise, **options: Unpack[Provable]) -> SampleTrace:
    """One dimension after the other, on top of cached activations: each call evaluates one granule of every sample.

    About one full pass in all, and as many calls as ancestral sampling, however well the next dimension could be
    guessed; dimensions of a prefix are evaluated a granule a call.

    Args, Returns, Raises: as `arm_core.samplers.peers.song.jacobi_sample`; the ARM must have spans.
    """
    with sampling_mode(arm):
        work = begin_batch(arm, noise, 1, fixed_point, options)
        while not all(work.finished()):
            step(work, *work.spans(), limit=work.state.known + 1)
        trace = work.trace()
        return replace(trace, mistakes=torch.zeros_like(trace.mistakes))
