"""Accounts for whole-image steps: from the states before and after a call to the growing `SampleTrace`."""

import torch

from arm_core.contracts import SamplerState, SampleTrace


def new_trace(state: SamplerState) -> SampleTrace:
    """The trace of samples that have not taken part in any call."""
    return SampleTrace(
        x=state.x,
        arm_calls=torch.zeros_like(state.known),
        arm_work=torch.zeros_like(state.known, dtype=torch.float64),
        converged_at=torch.zeros_like(state.x),
        settled_at=torch.zeros_like(state.x),
        mistakes=torch.zeros_like(state.x, dtype=torch.bool),
        window=torch.full_like(state.known, state.layout.dims),
    )


def account(trace: SampleTrace, before: SamplerState, after: SamplerState) -> SampleTrace:
    """The trace after one call that evaluated every slot, the finished ones included."""
    alive = before.known < before.layout.dims
    share = len(alive) / alive.sum().double()  # the finished wait at the others' expense
    calls = trace.arm_calls + alive
    passed = after.is_known & ~before.is_known
    moved = ~before.evaluated | (after.outputs != before.outputs)
    return SampleTrace(
        x=after.x,
        arm_calls=calls,
        arm_work=trace.arm_work + torch.where(alive, share, 0.0),
        converged_at=torch.where(passed, calls[:, None], trace.converged_at),
        settled_at=torch.where(moved, calls[:, None], trace.settled_at),
        mistakes=trace.mistakes | (passed & (after.fed != after.x)),
        window=trace.window,
    )
