"""Turns the states that a sampler passed through into a `SampleTrace`."""

import torch
from torch import Tensor

from arm_core.contracts import SamplerState, SampleTrace


class Recorder:
    """Watches whole-image steps, one `record(before, after)` a call.

    Args:
        state: the state before the first call.
    """

    def __init__(self, state: SamplerState) -> None:
        self.calls = 0
        self.arm_calls = torch.zeros_like(state.known)
        self.arm_work = torch.zeros(len(state.known), dtype=torch.float64, device=state.x.device)
        self.converged_at = torch.zeros_like(state.x)
        self.settled_at = torch.zeros_like(state.x)
        self.mistakes = torch.zeros_like(state.x, dtype=torch.bool)

    def record(self, before: SamplerState, after: SamplerState) -> None:
        """Account for one call that evaluated every slot, the finished ones included."""
        self.calls += 1
        alive = before.known < before.layout.dims
        self.arm_calls += alive
        self.arm_work += torch.where(alive, len(alive) / alive.sum(), 0.0)  # the finished wait at the others' expense
        passed = after.is_known & ~before.is_known
        self.converged_at = torch.where(passed, self.calls, self.converged_at)
        self.mistakes |= passed & (after.fed != after.x)
        unseen = ~before.evaluated
        self.settled_at = torch.where(unseen | (after.outputs != before.outputs), self.calls, self.settled_at)

    def trace(self, x: Tensor) -> SampleTrace:
        """The trace of the finished samples x."""
        return SampleTrace(x, self.arm_calls, self.arm_work, self.converged_at, self.settled_at, self.mistakes)
