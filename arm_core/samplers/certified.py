"""Samples proved in another precision: a finished sample is a forecast, and a whole pass of the ARM confirms it.

x is the only fixed point of its noise. One step of predictive sampling in float64, whose guess is a whole sample that
was drawn in whatever precision, with whatever windows and slots, therefore proves it: if the pass says x again, x is
the ancestral sample in float64. Otherwise the step leaves what it always does, the frontier behind the first dimension
that differs, and the sample goes on from there (a repair), to be proved again. This module stands around samplers; none
of them knows of it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from arm_core.contracts import (
    AutoregressiveModel,
    Contexts,
    Forecaster,
    SamplerState,
    SampleTrace,
    SpanCache,
    select_contexts,
)
from arm_core.decision import Decision
from arm_core.errors import InputError
from arm_core.fixed_point import fixed_point
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import Noise, check_end, noise_dtype, noise_dtype_of, noise_source, span_cache, weight_of
from arm_core.samplers.step import step
from arm_core.samplers.window import WindowChoice
from arm_core.samplers.work import WholeImages, Work

Certified = bool | torch.dtype | Literal["bound"]
"""What is proved: nothing (False); the sample of float64 (True) or of whole passes in another dtype; the samples that
had a decision so close that the calibrated errors of drafts could have changed it ("bound")."""
CALIBRATED, SAFETY = 64, 8
"""Samples that are proved before a bound spares others, and how many times the largest error among them it is."""
PROVED_AT_ONCE = 2**25
"""Logits of a proving pass at most: 256 MiB in float64."""


def proof_dtype(certified: Certified, draft_dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype of the proof that is asked for; None: none is.

    Raises:
        InputError: there is no such proof, or drafts of low precision are to go without one.
    """
    if certified is False:
        if draft_dtype is not None:
            raise InputError(f"draft_dtype={draft_dtype} gives samples of that precision; add certified=True")
        return None
    if draft_dtype is not None and not draft_dtype.is_floating_point:
        raise InputError(f"draft_dtype must be a floating type, got {draft_dtype}")
    if certified is True or certified == "bound":
        return torch.float64
    if certified not in (torch.float64, torch.float32):
        raise InputError(f"certified must be True, False, torch.float64, torch.float32 or 'bound', got {certified!r}")
    return certified


M = TypeVar("M", bound=nn.Module)


def in_dtype(module: M, dtype: torch.dtype | None) -> M:
    """The module itself where it computes in this dtype (None: in any), else a copy that does, in eval mode."""
    floats = (tensor for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point())
    if dtype is None or all(tensor.dtype == dtype for tensor in floats):
        return module
    return copy.deepcopy(module).to(dtype).eval()


def drafting(forecaster: Forecaster, arm: AutoregressiveModel) -> Forecaster:
    """The forecaster for an ARM in another dtype: its modules, if it has some, as this ARM's states want them."""
    dtype = noise_dtype_of(arm)
    modules = {name: part for name, part in getattr(forecaster, "__dict__", {}).items() if isinstance(part, nn.Module)}
    moved = {name: in_dtype(part, dtype) for name, part in modules.items()}
    if all(moved[name] is part for name, part in modules.items()):
        return forecaster
    other = copy.copy(forecaster)
    other.__dict__.update(moved)
    return other


class _Draft(NamedTuple):
    """A sample that is to be proved.

    Attributes:
        row: of the noise.
        trace: of the sample so far, a batch of one.
        known: leading dimensions that need no proof: a prefix, or what a repair stands on.
    """

    row: int
    trace: SampleTrace
    known: int


class Bound:
    """Which samples need no proof: those whose every decision was clearer than drafts have been found to err.

    What errs is the lead of the best of logits + noise over the second, between a draft and its proof. The largest
    error so far, times `SAFETY`, is calibrated and not proved: a fault that strikes rarely stays unseen.
    """

    def __init__(self) -> None:
        self.margins: dict[int, Tensor] = {}
        """Row -> leads of all dims when its sample was drawn, until they have been looked at."""
        self.error, self.seen = 0.0, 0

    def spares(self, row: int, trace: SampleTrace) -> bool:
        """Whether a drawn sample needs no proof."""
        decided = self.margins[row][trace.converged_at[0] > 0]
        spared = self.seen >= CALIBRATED and bool((decided > SAFETY * self.error).all())
        if spared:
            del self.margins[row]
        return spared

    def learn(self, row: int, trace: SampleTrace, margins: Tensor, first: Tensor) -> None:
        """From a draft and the leads of its proof, which first differs where `first` says."""
        drawn = self.margins.pop(row, None)
        if drawn is not None:
            apart = torch.where(first, margins + drawn, (margins - drawn).abs())  # the second came to lead
            judged = (trace.converged_at[0] > 0) & (first.cumsum(dim=0) - first.long() == 0)
            self.error = max(self.error, float(apart[judged].max().nan_to_num())) if bool(judged.any()) else self.error
            self.seen += 1


class Proof:
    """Whole passes that confirm samples or overrule them, and the repair of those that were overruled.

    Args:
        arm: whose weights count, in any dtype; it is copied, unless that is the dtype of the proof.
        dtype: of the proof.
        noise: of the samples to come: keyed, or a tensor, whose values count as they are.
        decision: how rows are decided.
        slots: samples of a pass at most.
        context: one per row of the noise.
        known: leading dimensions that a prefix gives.
        ends: categories that end a sample.
        bound: of samples that need no proof; None: all need one.

    Raises:
        InputError: there is a bound, and processors or ends, of which leads say nothing.
    """

    def __init__(
        self,
        arm: AutoregressiveModel,
        dtype: torch.dtype,
        noise: Noise,
        decision: Decision,
        *,
        slots: int,
        context: Contexts | None = None,
        known: int = 0,
        ends: Sequence[int] = (),
        bound: Bound | None = None,
    ) -> None:
        if bound is not None and (decision.processors or ends):
            raise InputError("certified='bound' knows nothing of processors and ends; use certified=True")
        self.bound = bound
        self.arm, self.decision = in_dtype(arm, dtype), decision
        self.noise = noise_source(self.arm, noise.to(dtype))
        self.context, self.known, self.ends = context, known, ends
        self.slots = max(1, min(slots, PROVED_AT_ONCE // (arm.layout.dims * arm.layout.categories)))
        self._repairs: Work | None = None
        self._said = torch.zeros(self.slots, arm.layout.dims, dtype=torch.int64, device=noise.device)

    def of(self, drawn: Iterable[tuple[int, SampleTrace]]) -> Iterator[tuple[int, SampleTrace]]:
        """(row, trace) of drawn samples, each a batch of one, proved some at a time; of any order."""
        waiting: list[_Draft] = []
        for row, trace in drawn:
            if self.bound is not None and self.bound.spares(row, trace):
                yield row, trace
                continue
            waiting.append(_Draft(row, trace, self.known))
            while len(waiting) >= self.slots:
                done, again = self._pass(waiting[: self.slots])
                waiting = waiting[self.slots :] + again
                yield from done
        while waiting:
            done, waiting = self._pass(waiting)
            yield from done

    def _pass(self, drafts: list[_Draft]) -> tuple[list[tuple[int, SampleTrace]], list[_Draft]]:
        """A pass over drafts: those that are proved with it, and the others, repaired."""
        with sampling_mode(self.arm):
            work = self._work(len(drafts), WholeImages(self.arm), fixed_point)
            self._begin(work, drafts)
            margins, given = work.state.margins, torch.cat([draft.trace.x for draft in drafts])
            step(work, torch.zeros_like(work.full), work.dims, guess=given)
            if self.ends:
                work.end_at(self.ends)
            finished, proofs = work.finished(), work.trace()
            places = torch.arange(work.dims, device=given.device)
            differs = (proofs.x != given) & (places < work.state.known[:, None])
            first = differs & (differs.cumsum(dim=1) == 1)  # what follows an end is filled, not decided
            lead = torch.where(first, margins.double().clamp_min(torch.finfo(torch.float64).tiny), 0.0)
            if self.bound is not None:
                for slot, draft in enumerate(drafts):
                    self.bound.learn(draft.row, draft.trace, margins[slot], first[slot])
            found = zip(drafts, proofs.split(), lead.split(1), work.state.known.tolist(), strict=True)
            seen = [_Draft(draft.row, _proved(draft.trace, proof, led), known) for draft, proof, led, known in found]
            again = [draft for draft, done in zip(seen, finished, strict=True) if not done]
            again = self._repaired(again) if again else again
        return [(draft.row, draft.trace) for draft, done in zip(seen, finished, strict=True) if done], again

    def _repaired(self, drafts: list[_Draft]) -> list[_Draft]:
        """Drafts taken on from what is known of them, by spans that begin with what the proof said of the rest."""
        if self._repairs is None:
            window = WindowChoice(self.arm, None, self.slots).rung.window
            self._repairs = self._work(self.slots, span_cache(self.arm, self.slots, window), self._forecast)
        work = self._repairs
        self._said[: len(drafts)] = torch.cat([draft.trace.x for draft in drafts])
        self._begin(work, drafts)
        while not all(work.finished()):
            step(work, *work.spans())
            if self.ends:
                work.end_at(self.ends)
        traces = work.traces(list(range(len(drafts))))
        return [draft._replace(trace=_joined(draft, trace)) for draft, trace in zip(drafts, traces, strict=True)]

    def _forecast(self, state: SamplerState) -> Tensor:
        return torch.where(state.evaluated, state.outputs, self._said)

    def _work(self, slots: int, cache: SpanCache, forecaster: Forecaster) -> Work:
        return Work(self.arm, slots, cache, forecaster, self.noise, self.decision)

    def _begin(self, work: Work, drafts: list[_Draft]) -> None:
        for slot, (row, trace, known) in enumerate(drafts):
            context = None if self.context is None else select_contexts(self.context, [row])
            work.begin([slot], [row], trace.x[:, :known] if known else None, context)


def _proved(trace: SampleTrace, proof: SampleTrace, lead: Tensor) -> SampleTrace:
    """The trace of a sample with that of a proving pass."""
    return replace(trace, x=proof.x, overruled=trace.overruled + lead, arm_work=trace.arm_work + proof.arm_work)


def _joined(draft: _Draft, repair: SampleTrace) -> SampleTrace:
    """The trace of a draft with that of its repair; the last dim that is known is the one that the proof decided."""
    before, after = draft.trace, torch.arange(repair.x.shape[1], device=repair.x.device) >= draft.known - 1
    calls = before.arm_calls[:, None]
    return replace(
        before,
        x=repair.x,
        arm_calls=before.arm_calls + repair.arm_calls,
        arm_work=before.arm_work + repair.arm_work,
        converged_at=torch.where(after, calls + repair.converged_at, before.converged_at),
        settled_at=torch.where(after, calls + repair.settled_at, before.settled_at),
        mistakes=torch.where(after, repair.mistakes, before.mistakes),
    )


S = TypeVar("S", bound=Callable[..., SampleTrace])


def certifiable(sampler: S) -> S:
    """A sampler of batches that also takes `certified` and `draft_dtype`, which it does not get to see."""

    @wraps(sampler)
    def sample(
        arm: AutoregressiveModel,
        noise: Noise,
        forecaster: Forecaster | None = None,
        *,
        certified: Certified = False,
        draft_dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Any:
        dtype = proof_dtype(certified, draft_dtype)
        forecasters = [] if forecaster is None else [forecaster]
        if dtype is None:
            return sampler(arm, noise, *forecasters, **options)
        if certified == "bound":
            raise InputError("certified='bound' is for streams (sample_many, stream_samples); use certified=True")
        drawn_by = in_dtype(arm, draft_dtype)
        noise_here = noise.to(noise_dtype(weight_of(drawn_by, noise).dtype))
        trace = sampler(drawn_by, noise_here, *[drafting(each, drawn_by) for each in forecasters], **options)
        prefix = options.get("prefix")
        proof = Proof(
            arm,
            dtype,
            noise,
            Decision(options.get("logits_processor"), options.get("temperature", 1.0)),
            slots=len(trace.x),
            context=options.get("context"),
            known=0 if prefix is None else prefix.shape[1],
            ends=check_end(arm.layout, options.get("end")),
        )
        rows = sorted(proof.of(enumerate(trace.split())), key=lambda pair: pair[0])
        return SampleTrace.joined([trace for _, trace in rows]) if rows else trace

    return cast(S, sample)
