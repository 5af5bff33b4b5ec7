"""Jacobi, GS-Jacobi and Jacobi-GS iteration.

Song et al., "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (ICML 2021). None of the
three knows a frontier: an iteration ends when nothing changes any more.
"""

from typing import Unpack

import torch

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.fixed_point import fixed_point
from arm_core.samplers.certified import certifiable
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import Noise
from arm_core.samplers.peers.batch import Provable, begin_batch, checked_block, trace_without_frontier
from arm_core.samplers.step import step


def jacobi_sample(arm: AutoregressiveModel, noise: Noise, **options: Unpack[Provable]) -> SampleTrace:
    """Evaluate the whole batch anew until nothing in it changes, from zeros.

    Also how flax's PixelCNN++ example sampled (examples/pixelcnn, until 2022).

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.
        options: prefix, temperature, logits_processor, context: as for `ancestral_sample`; certified and draft_dtype:
            as for `predictive_sample`.

    Returns:
        The samples of `ancestral_sample`. Calls are counted until the one that confirms a sample, and nothing is
        forecast, so there are no mistakes.

    Raises:
        InputError: as `ancestral_sample`.
    """
    return gs_jacobi_sample(arm, noise, block=arm.layout.dims, **options)


@certifiable
def gs_jacobi_sample(arm: AutoregressiveModel, noise: Noise, *, block: int, **options: Unpack[Provable]) -> SampleTrace:
    """Blocks of dims one after the other, each iterated until nothing changes in it (Song et al., GS-Jacobi).

    The blocks before are cached, so that an iteration costs a block and not an image.

    Args:
        arm, noise, options: as for `jacobi_sample`.
        block: dims, rounded up to the ARM's granule; `layout.dims`, the whole image, is Jacobi iteration.

    Returns, Raises: as `jacobi_sample`; the block must be at least 1, and the ARM have spans if it is not the image.
    """
    with sampling_mode(arm):
        work = begin_batch(arm, noise, block, fixed_point, options)
        width = len(work.ahead)
        for first in range(0, work.dims, width):
            start, waiting = torch.full_like(work.full, first), torch.ones_like(work.full, dtype=torch.bool)
            while bool(waiting.any()):
                waiting = step(work, start, width, waiting=waiting).any(dim=1)
        return trace_without_frontier(work)


@certifiable
def jacobi_gs_sample(arm: AutoregressiveModel, noise: Noise, *, block: int, **options: Unpack[Provable]) -> SampleTrace:
    """All blocks of dims at once, a dim of each a call, until a whole sweep changes nothing (Song et al., Jacobi-GS).

    A call evaluates whole images. The authors cache a network that updates one column of all rows; with such a cache
    a sweep of `block` calls costs about one full pass, so the work here, over `block`, is a lower bound for theirs.

    Args:
        arm, noise, options: as for `jacobi_sample`.
        block: dims.

    Returns, Raises: as `jacobi_sample`; the block must be at least 1.
    """
    checked_block(block)
    with sampling_mode(arm):
        taken: list[torch.Tensor] = []  # the sequence as far as the sweeps have brought it
        work = begin_batch(arm, noise, arm.layout.dims, lambda state: taken[0], options)
        taken.append(work.state.x.clone())
        nothing, waiting = torch.zeros_like(work.full), torch.ones_like(work.full, dtype=torch.bool)
        while bool(waiting.any()):
            moved = torch.zeros_like(waiting)
            for place in range(min(block, work.dims)):
                step(work, nothing, work.dims, waiting=waiting)
                now, before = work.state.outputs[:, place::block], taken[0][:, place::block]
                moved |= (now != before).any(dim=1)
                before.copy_(now)
            waiting = moved
        return trace_without_frontier(work)
