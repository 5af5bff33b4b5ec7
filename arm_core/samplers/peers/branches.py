"""Several drafts of one sample, each in a slot of its own: the one that was right for longest goes on in all of them.

A cache holds a chain of dims in each slot, so the branches of a tree of drafts are slots next to each other. What a
branch has cached is right up to the first dim that it was fed wrong; there its next span begins.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.samplers.work import Work


def join(work: Work, branches: int, winner: Int[Tensor, " groups"]) -> None:
    """After a step: every branch of a group goes on from where its winner stands, and with what the winner found out.

    Args:
        work: slots k * branches to (k + 1) * branches - 1 hold the branches of group k; changed in place.
        branches: of a sample.
        winner: which branch of each group.
    """
    state = work.state
    found = [work.x, work.outputs, work.evaluated, work.faults, work.converged_at, work.settled_at, work.mistakes]
    spread([*found, *state.readings.values(), state.known], branches, winner)
    places = (state.start[:, None] + work.ahead).clamp_max(work.dims)
    right = work.fed.gather(1, places) == work.x.gather(1, places)
    reached = state.start + right.cumprod(dim=1).sum(dim=1) + 1
    work.reached.copy_(torch.minimum(state.stop, reached))


def spread(buffers: Sequence[Tensor], branches: int, winner: Int[Tensor, " groups"]) -> None:
    """What the winner of each group holds in buffers whose first axis is that of slots, in all branches of it."""
    slots = branches * len(winner)
    first = torch.arange(0, slots, branches, device=winner.device)
    source = (first + winner).repeat_interleave(branches)
    for buffer in buffers:
        buffer[:slots] = buffer[source]
