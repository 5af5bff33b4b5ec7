"""Many samples through few slots: a slot whose sample is finished starts the next one at once.

The paper's batch waits for its slowest image; here nothing waits. Noise is keyed by (seed, sample id), so neither the
number of slots, nor the window, nor the order in which samples finish changes any of them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arm_core import native
from arm_core.contracts import AutoregressiveModel, Contexts, Forecaster, SampleTrace, select_contexts
from arm_core.decision import Decision, Processors
from arm_core.errors import whole
from arm_core.fixed_point import fixed_point_above
from arm_core.gumbel import KeyedNoise
from arm_core.samplers.certified import Bound, Certified, Proof, drafting, in_dtype, proof_dtype
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_conditions, check_end, keyed_noise, span_cache
from arm_core.samplers.recorded import Steps
from arm_core.samplers.window import WindowChoice
from arm_core.samplers.work import Work


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
    temperature: float | int = 1.0,
    logits_processor: Processors | None = None,
    context: Contexts | None = None,
    end: int | Sequence[int] | None = None,
    certified: Certified = False,
    draft_dtype: torch.dtype | None = None,
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
        logits_processor=logits_processor,
        context=context,
        end=end,
        certified=certified,
        draft_dtype=draft_dtype,
    )
    finished = [sample.trace for sample in sorted(stream, key=lambda sample: sample.sample_id)]
    if not finished:
        nothing = keyed_noise(arm, seed=seed, sample_ids=range(0))
        image = span_cache(arm, 0, arm.layout.dims)
        return Work(arm, 0, image, fixed_point_above, nothing, Decision()).trace()
    return SampleTrace.joined(finished)


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
    temperature: float | int = 1.0,
    logits_processor: Processors | None = None,
    context: Contexts | None = None,
    end: int | Sequence[int] | None = None,
    certified: Certified = False,
    draft_dtype: torch.dtype | None = None,
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
        temperature, logits_processor: as for `ancestral_sample`.
        context: one per sample in the order of ids, for an ARM that is conditioned.
        end: a category, or several, at which a sample ends and frees its slot; it fills what follows.
        certified, draft_dtype: as for `predictive_sample`; "bound" proves only samples that had a close decision
            (`arm_core.samplers.certified.Bound`). Samples are proved as many at a time as there are slots, if
            memory allows.

    Returns:
        An iterator over finished samples, each equal to that of `ancestral_sample` under its noise, up to and including
        its first `end`. Their traces tell the window that was in use when they finished.

    Raises:
        InputError: a number out of range, a window for an ARM that has none, a context for an ARM that takes none,
            autocast, nothing left to choose from, or a forecaster that returns something else.
    """
    count, slots, first_id = whole("count", count), whole("slots", slots, 1), whole("first_id", first_id)
    prefix = check_conditions(arm, count, prefix, context)
    dtype, drawn_by = proof_dtype(certified, draft_dtype), in_dtype(arm, draft_dtype)
    asked = _Asked(
        arm=drawn_by,
        forecaster=fixed_point_above if forecaster is None else drafting(forecaster, drawn_by),
        noise=keyed_noise(drawn_by, seed=seed, sample_ids=range(first_id, first_id + count)),
        decision=Decision(logits_processor, temperature),
        choice=WindowChoice(drawn_by, window, slots),
        prefix=prefix,
        context=context,
        ends=check_end(arm.layout, end),
        bound=Bound() if certified == "bound" else None,
        native=native.are_wanted(),
    )
    finished = _finished(asked, min(slots, count)) if count else iter(())
    if dtype is not None and count:
        proof = Proof(
            arm,
            dtype,
            asked.noise,
            asked.decision,
            slots=slots,
            context=context,
            known=0 if prefix is None else prefix.shape[1],
            ends=asked.ends,
            bound=asked.bound,
        )
        finished = proof.of(finished)
    return (FinishedSample(first_id + row, trace) for row, trace in finished)


class _Asked(NamedTuple):
    """A stream as it was asked for; row k of its noise, prefix and context is that of its k-th sample."""

    arm: AutoregressiveModel
    forecaster: Forecaster
    noise: KeyedNoise
    decision: Decision
    choice: WindowChoice
    prefix: Tensor | None
    context: Contexts | None
    ends: list[int]
    bound: Bound | None
    native: bool


def _finished(asked: _Asked, slots: int) -> Iterator[tuple[int, SampleTrace]]:
    """The rows as they finish."""
    arm, prefix, choice, parts = asked.arm, asked.prefix, asked.choice, list(asked.arm.modules())
    # Neither is held across a yield: what the caller does there is not ours to change.
    with sampling_mode(arm), native.native_kernels(asked.native):
        cache = span_cache(arm, slots, choice.widest, recorded=asked.decision.recordable)
        work = Work(arm, slots, cache, asked.forecaster, asked.noise, asked.decision)
        take = Steps(work)
        margins = None if asked.bound is None else work.state.margins  # kept from the first call on
    holds: dict[int, int] = {}  # slot -> row
    waiting, free = range(len(asked.noise)), list(range(slots))
    while waiting or holds:
        with sampling_mode(arm, parts):
            if new := list(waiting[: len(free)]):
                waiting, starting = waiting[len(new) :], free[: len(new)]
                contexts = None if asked.context is None else select_contexts(asked.context, new)
                work.begin(starting, new, None if prefix is None else prefix[new], contexts)
                holds |= dict(zip(starting, new, strict=True))
            if prefix is not None and not work.x.is_cuda and work.all_behind(prefix.shape[1]):
                take(None, trial=True)  # nothing is decided there: the widest calls, which need no graph of their own
            elif prefix is None or prefix.shape[1] < work.dims:
                choice.step(take)
            if asked.ends:
                work.end_at(asked.ends)
            done = work.finished()
        free = [slot for slot in holds if done[slot]]
        for slot, trace in zip(free, work.traces(free), strict=True):
            row = holds.pop(slot)
            if asked.bound is not None and margins is not None:
                asked.bound.margins[row] = margins[slot].clone()
            yield row, trace
