"""Many samples through few slots: a slot whose sample is finished starts the next one at once.

The paper's batch waits for its slowest image; here nothing waits. Noise is keyed by (seed, sample id), so neither the
number of slots nor the order in which samples finish changes any of them.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SamplerState, SampleTrace
from arm_core.errors import InputError
from arm_core.gumbel import sample_noise
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.step import advance, initial_state
from arm_core.samplers.trace import account, new_trace

Slotted = TypeVar("Slotted", SamplerState, SampleTrace)


class FinishedSample(NamedTuple):
    """A finished sample: its id, and its trace as a batch of one."""

    sample_id: int
    trace: SampleTrace


def sample_many(
    arm: AutoregressiveModel,
    *,
    count: int,
    seed: int,
    slots: int,
    forecaster: Forecaster | None = None,
    window: int | None = None,
    first_id: int = 0,
) -> SampleTrace:
    """`count` samples in the order of their ids; see `stream_samples`."""
    stream = stream_samples(
        arm, count=count, seed=seed, slots=slots, forecaster=forecaster, window=window, first_id=first_id
    )
    finished = sorted(stream, key=lambda sample: sample.sample_id)
    if not finished:
        return new_trace(_fresh(arm, seed, []))
    return _merged([sample.trace for sample in finished])


def stream_samples(
    arm: AutoregressiveModel,
    *,
    count: int,
    seed: int,
    slots: int,
    forecaster: Forecaster | None = None,
    window: int | None = None,
    first_id: int = 0,
) -> Iterator[FinishedSample]:
    """Samples first_id .. first_id + count - 1 as they finish; memory does not grow with `count`.

    Args:
        arm: any ARM.
        count: how many; 0 makes no call.
        seed: of the noise.
        slots: how many are in work at a time.
        forecaster: None: the ARM's own outputs (`arm_core.forecasters.fixed_point`).
        window: None or `layout.dims`, the whole image. Cached windows are not built yet; a smaller one is an error.
        first_id: of the first sample; ids key the noise.

    Returns:
        An iterator over finished samples, each equal to that of `ancestral_sample` under its noise.

    Raises:
        InputError: a number out of range, a window, autocast, or a forecaster that returns something else.
    """
    if count < 0 or slots < 1 or first_id < 0:
        raise InputError(
            f"count and first_id must not be negative and slots at least 1, got {count}, {first_id} and {slots}"
        )
    if window not in (None, arm.layout.dims):
        raise InputError(
            f"window={window}: cached windows are not built yet; leave window out for the whole image "
            f"({arm.layout.dims} dims)"
        )
    return _stream(arm, range(first_id, first_id + count), seed, slots, forecaster or _own_outputs)


def _own_outputs(state: SamplerState) -> Tensor:
    return state.outputs  # 0 where nothing is evaluated: ARM fixed-point iteration (paper Alg. 2)


def _stream(
    arm: AutoregressiveModel, ids: range, seed: int, slots: int, forecaster: Forecaster
) -> Iterator[FinishedSample]:
    working, waiting = list(ids[:slots]), ids[slots:]
    with sampling_mode(arm):  # never held across a yield: what the caller does there is not ours to change
        state = _fresh(arm, seed, working)
        trace = new_trace(state)
    while working:
        with sampling_mode(arm):
            before, state = state, advance(arm, state, forecaster)
            trace = account(trace, before, state)
            done = (state.known >= arm.layout.dims).nonzero().flatten().tolist()
        for slot in done:
            yield FinishedSample(working[slot], _taken(trace, [slot]))
        if not done:
            continue
        with sampling_mode(arm):
            new, waiting = waiting[: len(done)], waiting[len(done) :]
            if new:
                state, trace = _refilled(state, trace, done[: len(new)], _fresh(arm, seed, list(new)))
                for slot, sample_id in zip(done, new, strict=False):
                    working[slot] = sample_id
            if idle := set(done[len(new) :]):  # nothing left to start: drop the slot
                kept = [slot for slot in range(len(working)) if slot not in idle]
                state, trace, working = _taken(state, kept), _taken(trace, kept), [working[slot] for slot in kept]


def _fresh(arm: AutoregressiveModel, seed: int, ids: list[int]) -> SamplerState:
    weight = next((p for p in arm.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float64))
    noise = sample_noise(arm.layout, seed=seed, sample_ids=ids, dtype=weight.dtype, device=weight.device)
    return initial_state(arm, noise)


def _refilled(
    state: SamplerState, trace: SampleTrace, slots: list[int], fresh: SamplerState
) -> tuple[SamplerState, SampleTrace]:
    return _put(state, slots, fresh), _put(trace, slots, new_trace(fresh))


def _tensors(item: SamplerState | SampleTrace) -> dict[str, Any]:
    found = {field.name: getattr(item, field.name) for field in fields(item)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _taken(item: Slotted, slots: list[int]) -> Slotted:
    return replace(item, **{name: value[slots] for name, value in _tensors(item).items()})


def _put(item: Slotted, slots: list[int], rows: Slotted) -> Slotted:
    index, new = torch.tensor(slots, device=item.x.device), _tensors(rows)
    return replace(item, **{name: value.index_copy(0, index, new[name]) for name, value in _tensors(item).items()})


def _merged(traces: list[SampleTrace]) -> SampleTrace:
    parts = [_tensors(trace) for trace in traces]
    return replace(traces[0], **{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
