"""A batch of samples on its way, as the peers begin it."""

from dataclasses import replace
from typing import TypedDict

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Contexts, Forecaster, SampleTrace
from arm_core.decision import Decision, Processors
from arm_core.errors import InputError
from arm_core.samplers.certified import Certified
from arm_core.samplers.options import Noise, check_conditions, noise_source, span_cache
from arm_core.samplers.work import Work


class Options(TypedDict, total=False):
    """What every sampler takes beside its own keywords; see `ancestral_sample`."""

    prefix: Int[Tensor, "batch known"] | None
    temperature: float | int
    logits_processor: Processors | None
    context: Contexts | None


class Provable(Options, total=False):
    """The same with those of samplers whose samples can be proved."""

    certified: Certified
    draft_dtype: torch.dtype | None


def begin_batch(arm: AutoregressiveModel, noise: Noise, block: int, forecaster: Forecaster, options: Options) -> Work:
    """All samples of a batch in slots, to be evaluated in spans of `block` dims.

    Raises:
        InputError: an option does not fit, or the ARM has no spans and the block is not the whole image.
    """
    source = noise_source(arm, noise)
    prefix, context, decision = asked(arm, len(source), options)
    rows = list(range(len(source)))
    work = Work(arm, len(rows), span_cache(arm, len(rows), checked_block(block)), forecaster, source, decision)
    work.begin(rows, rows, prefix, context)
    return work


def asked(
    arm: AutoregressiveModel, count: int, options: Options
) -> tuple[Int[Tensor, "count known"] | None, Contexts | None, Decision]:
    """The prefix, the contexts and the decision of `count` samples.

    Raises:
        TypeError: an option is none of `Options`; a misspelled one would be ignored.
        InputError: an option does not fit.
    """
    for name in options.keys() - Options.__annotations__.keys():
        why = " (exact in law only: there is no sample to prove)" if name in Provable.__annotations__ else ""
        raise TypeError(f"unexpected keyword {name!r}{why}; valid: {', '.join(Options.__annotations__)}")
    context = options.get("context")
    prefix = check_conditions(arm, count, options.get("prefix"), context)
    return prefix, context, Decision(options.get("logits_processor"), options.get("temperature", 1.0))


def checked_block(block: int) -> int:
    """The block, or an InputError unless it is at least one dim."""
    if block < 1:
        raise InputError(f"block must be at least 1 dim, got {block}")
    return block


def trace_without_frontier(work: Work) -> SampleTrace:
    """The trace of a sampler that knows no frontier: a dimension converges when it and all before it have settled."""
    trace = work.trace()
    converged_at = trace.settled_at.cummax(dim=1).values
    return replace(trace, converged_at=converged_at, mistakes=torch.zeros_like(trace.mistakes))
