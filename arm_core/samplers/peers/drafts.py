"""What the speculative Jacobi samplers share: drafts with the law that they were drawn from, accepted by ratio.

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (ICML 2023): a draft x ~ q is kept with
probability min(1, p(x) / q(x)), else a value is drawn from max(0, p - q); either way the value has law p. Here q is
what the ARM said one call earlier, on other drafts.

A draft of dimension i must be independent of all that decides when i becomes final, given what was drafted before i.
So what is drawn for a rejected draft must come from fresh noise, even where drafts share noise from call to call.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SamplerState, SampleTrace, SpanOutput, select_contexts
from arm_core.errors import InputError
from arm_core.gumbel import DenseNoise, KeyedNoise, standard_gumbel
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import noise_dtype_of, span_cache
from arm_core.samplers.peers.batch import Options, asked
from arm_core.samplers.step import step
from arm_core.samplers.work import Work

Coupling = Literal["independent", "gumbel", "maximal"]
"""How the next draft of a dimension depends on the last one, where the frontier has not passed it."""


class DraftedWork(Work):
    """Slots whose rows are decided by their drafts; the next drafts are the guesses of its forecaster.

    What the laws of drafts take is a row of categories for each slot and dim of two windows.

    Args:
        arm, slots, cache, noise, decision: as for `Work`; the noise is what drafts share under the Gumbel coupling.
        coupling: of the drafts of two calls.
        generator: of all other draws.
        first: drafts of dims that no call has seen; None: uniform draws.
    """

    def __init__(
        self, arm: AutoregressiveModel, *of_work: Any, coupling: Coupling, generator: torch.Generator,
        first: Forecaster | None,
    ) -> None:  # fmt: skip
        slots, cache, noise, decision = of_work
        super().__init__(arm, slots, cache, self._forecast, noise, decision)
        self.coupling, self.generator, self.first = coupling, generator, first
        self.categories = arm.layout.categories
        self.drafts = torch.zeros(slots + 1, self.dims + 1, dtype=torch.int64, device=noise.device)
        shape = (slots + 1, min(2 * cache.window, self.dims), self.categories)
        self.laws = torch.zeros(shape, dtype=noise.dtype, device=noise.device)  # of dim i in place i modulo their count

    def begin(self, slots: list[int], *of_samples: Any) -> None:
        """See `Work`."""
        super().begin(slots, *of_samples)
        fresh = torch.empty_like(self.drafts[: len(slots)]).random_(0, self.categories, generator=self.generator)
        self.drafts[torch.tensor(slots, dtype=torch.int64, device=fresh.device)] = fresh

    def settle(self) -> None:
        """What is to be done after a step; nothing."""

    def _forecast(self, state: SamplerState) -> Int[Tensor, "slots dims"]:
        drafts = self.drafts[: self.slots, : self.dims]
        return drafts if self.first is None else torch.where(state.evaluated, drafts, self.first(state))

    def _decide(self, found: SpanOutput) -> None:
        slot = found.where.div(self.dims, rounding_mode="floor")
        dim, at = found.where - slot * self.dims, found.where + slot  # a dimension more a slot
        outputs, evaluated, faults = self._decided
        drafts = self.fed[slot.clamp_max(self.slots - 1), dim]
        seen = evaluated[at]
        nothing = torch.zeros_like(found.logits, dtype=self.laws.dtype)
        decided = self.decision(found.logits, nothing)
        law, place = self._law(decided.values, decided.scores), dim % self.laws.shape[1]
        said = self._verified(law, self._drafted(drafts, seen, self.laws[slot, place]), drafts, slot, dim)
        if self.coupling == "maximal":
            following = said
        elif self.coupling == "gumbel":
            following = self.decision(found.logits, self.noise.at(slot, dim)).values
        else:
            following = drawn(law, self.generator)
        self.laws[slot, place] = law
        self.drafts[slot, dim] = following
        outputs.index_copy_(0, at, said)
        evaluated.index_fill_(0, at, True)
        faults.index_copy_(0, at, decided.faults)

    def _law(self, values: Int[Tensor, " n"], scores: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Probabilities of processed logits at the temperature of the decision."""
        if self.decision.temperature == 0:
            return torch.nn.functional.one_hot(values, self.categories).to(scores.dtype)
        return (scores / self.decision.temperature).softmax(dim=-1)

    def _drafted(self, drafts: Tensor, seen: Tensor, laws: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The laws that drafts were drawn from; a forecaster's first guess is certain."""
        if bool(seen.all()):
            return laws
        if self.first is None:
            unseen = torch.full_like(laws[:1], 1 / self.categories)
        else:
            unseen = torch.nn.functional.one_hot(drafts, self.categories).to(laws.dtype)
        return torch.where(seen[:, None], laws, unseen)

    def _verified(
        self, law: Float[Tensor, "n k"], drafted: Float[Tensor, "n k"], drafts: Tensor, slot: Tensor, dim: Tensor
    ) -> Int[Tensor, " n"]:
        """Drafts, or what was drawn in their places: each of its law."""
        p, q = (each.gather(1, drafts[:, None])[:, 0] for each in (law, drafted))
        chance = torch.rand(p.shape, dtype=p.dtype, device=p.device, generator=self.generator)
        rejected = (chance * q >= p).nonzero().flatten()
        if len(rejected) == 0:
            return drafts
        rest = (law[rejected] - drafted[rejected]).clamp_min(0)
        rest = torch.where(rest.sum(dim=1, keepdim=True) > 0, rest, law[rejected])  # two laws that rounding tells apart
        return drafts.index_copy(0, rejected, self._instead(rest, slot[rejected], dim[rejected]))

    def _instead(self, weights: Float[Tensor, "n k"], slot: Tensor, dim: Tensor) -> Int[Tensor, " n"]:
        """Draws of categories in the places of rejected drafts, from fresh noise."""
        return drawn(weights, self.generator)


def drawn(weights: Float[Tensor, "n k"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """A category of each row, as likely as its weight."""
    return (weights.log() + standard_gumbel(weights, generator)).argmax(dim=-1)


def drafted_sample(
    arm: AutoregressiveModel,
    *,
    batch: int,
    generator: torch.Generator,
    window: int,
    coupling: Coupling,
    slots: int | None,
    first: Forecaster | None,
    branches: int = 1,
    make: Callable[..., DraftedWork] = DraftedWork,
    **options: Unpack[Options],
) -> SampleTrace:
    """What `sjd_sample` and the like return; see there. Each sample has `branches` slots of what `make` makes."""
    if batch < 0 or (slots is not None and slots < 1):
        raise InputError(f"batch must be at least 0 and slots, if any, at least 1, got {batch} and {slots}")
    prefix, context, decision = asked(arm, batch, options)
    dtype = noise_dtype_of(arm)
    if coupling == "gumbel":
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        noise: Any = KeyedNoise(arm.layout, seed=seed, sample_ids=range(batch), dtype=dtype, device=generator.device)
    else:
        noise = DenseNoise(torch.empty(batch, arm.layout.dims, 0, dtype=dtype, device=generator.device))
    at_once = batch if slots is None else min(slots, batch)
    finished: list[SampleTrace] = []
    order: list[int] = []
    with sampling_mode(arm):
        cache = span_cache(arm, at_once * branches, window)
        work = make(
            arm, at_once * branches, cache, noise, decision, coupling=coupling, generator=generator, first=first
        )
        waiting, free, holds = list(range(batch)), list(range(at_once)), dict[int, int]()
        while waiting or holds:
            if new := waiting[: len(free)]:
                waiting, starting = waiting[len(new) :], free[: len(new)]
                holds |= dict(zip(starting, new, strict=True))
                rows = [row for row in new for _ in range(branches)]
                into = [slot * branches + branch for slot in starting for branch in range(branches)]
                contexts = None if context is None else select_contexts(context, rows)
                work.begin(into, rows, None if prefix is None else prefix[rows], contexts)
            start, width = work.spans()
            if slots is None:
                last = start.min().expand_as(start)  # of finished samples a branch that lost has no cache to go on from
                start = last.clone() if branches == 1 else torch.where(start < work.dims, last, work.dims)
            step(work, start, width)
            work.settle()
            done = work.finished()
            free = [slot for slot in holds if done[slot * branches]]
            if slots is None and len(free) < len(holds):
                free = []  # nobody leaves before the slowest
            if free:
                order += [holds.pop(slot) for slot in free]
                finished.append(work.trace(torch.tensor(free, device=noise.device) * branches))
        if batch == 0:
            return work.trace()
    trace, at = SampleTrace.joined(finished), torch.tensor(order, device=noise.device).argsort()
    ordered = SampleTrace(*(getattr(trace, each.name)[at] for each in fields(SampleTrace)))
    return replace(ordered, arm_work=ordered.arm_work * branches)
