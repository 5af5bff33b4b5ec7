"""Many samples through few slots: a slot whose sample is finished starts the next one at once.

The paper's batch waits for its slowest image; here nothing waits. Noise is keyed by (seed, sample id), so neither the
number of slots, nor the window, nor the order in which samples finish changes any of them.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.errors import InputError
from arm_core.gumbel import sample_noise
from arm_core.registry import FORECASTERS
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_prefix, check_temperature, span_cache
from arm_core.samplers.slots import Slots
from arm_core.samplers.window import WindowChoice

DEFAULT_FORECASTER = "fixed_point_above"


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
    prefix: Tensor | None = None,
    temperature: float = 1.0,
) -> SampleTrace:
    """`count` samples in the order of their ids; see `stream_samples`."""
    stream = stream_samples(
        arm,
        count=count,
        seed=seed,
        slots=slots,
        forecaster=forecaster,
        window=window,
        first_id=first_id,
        prefix=prefix,
        temperature=temperature,
    )
    finished = [sample.trace for sample in sorted(stream, key=lambda sample: sample.sample_id)]
    if not finished:
        return Slots(arm, 0, span_cache(arm, 0, arm.layout.dims), _default_forecaster()).trace(slice(0))
    names = [field.name for field in fields(SampleTrace)]
    return SampleTrace(**{name: torch.cat([getattr(trace, name) for trace in finished]) for name in names})


def stream_samples(
    arm: AutoregressiveModel,
    *,
    count: int,
    seed: int,
    slots: int,
    forecaster: Forecaster | None = None,
    window: int | None = None,
    first_id: int = 0,
    prefix: Tensor | None = None,
    temperature: float = 1.0,
) -> Iterator[FinishedSample]:
    """Samples first_id .. first_id + count - 1 as they finish; memory does not grow with `count`.

    Args:
        arm: any ARM.
        count: how many; 0 makes no call.
        seed: of the noise.
        slots: how many are in work at a time.
        forecaster: None: the ARM's own last outputs, and the row above where there are none yet
            (`arm_core.forecasters.fixed_point_above`).
        window: dims that a call evaluates of each sample, rounded up to the ARM's granule; `layout.dims` is the whole
            image, without a cache. None: chosen by measuring while sampling (whole images if the ARM has no spans).
        first_id: of the first sample; ids key the noise.
        prefix: (known,) or (count, known) integers: the leading dimensions of the samples, which are completed.
        temperature: logits are divided by it, at least 0; 0 takes the most likely value of each dimension.

    Returns:
        An iterator over finished samples, each equal to that of `ancestral_sample` under its noise. Their traces tell
        the window that was in use when they finished.

    Raises:
        InputError: a number out of range, a window for an ARM that has none, autocast, or a forecaster that returns
            something else.
    """
    if count < 0 or slots < 1 or first_id < 0:
        raise InputError(
            f"count and first_id must not be negative and slots at least 1, got {count}, {first_id} and {slots}"
        )
    check_temperature(temperature)
    if prefix is not None:
        prefix = check_prefix(arm.layout, prefix if prefix.ndim == 2 else prefix.expand(count, -1), count)
    choice = WindowChoice(arm, window, slots)
    return _stream(arm, range(count), first_id, seed, min(slots, count), forecaster, choice, prefix, temperature)


def _default_forecaster() -> Forecaster:
    found: Forecaster = FORECASTERS.resolve(DEFAULT_FORECASTER)  # by name: samplers import no forecaster
    return found


def _stream(
    arm: AutoregressiveModel,
    waiting: range,
    first_id: int,
    seed: int,
    slots: int,
    forecaster: Forecaster | None,
    choice: WindowChoice,
    prefix: Tensor | None,
    temperature: float,
) -> Iterator[FinishedSample]:
    if not waiting:
        return
    holds: dict[int, int] = {}  # slot -> sample, counted from 0
    free, parts = list(range(slots)), list(arm.modules())
    with sampling_mode(arm):  # never held across a yield: what the caller does there is not ours to change
        work = Slots(arm, slots, span_cache(arm, slots, choice.widest), forecaster or _default_forecaster())
    like = work.state.noise
    while waiting or holds:
        with sampling_mode(arm, parts):
            if new := list(waiting[: len(free)]):
                waiting, starting = waiting[len(new) :], free[: len(new)]
                ids = [first_id + sample for sample in new]
                noise = sample_noise(arm.layout, seed=seed, sample_ids=ids, dtype=like.dtype, device=like.device)
                work.begin(starting, noise * temperature, None if prefix is None else prefix[new])
                holds |= dict(zip(starting, new, strict=True))
            if prefix is None or prefix.shape[1] < arm.layout.dims:
                choice.step(work)
            done = work.finished()
        free = [slot for slot in holds if done[slot]]
        for slot in free:
            yield FinishedSample(first_id + holds.pop(slot), work.trace([slot]))
