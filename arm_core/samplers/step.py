"""One step of predictive sampling (paper Alg. 1): forecast, evaluate spans, decide rows, keep the confirmed prefix.

The only step there is: a whole image is a span, a batch that waits for its slowest is a driver that refills nothing,
and a sampler that knows no frontier chooses its own spans. This module knows no particular ARM, no forecaster and no
loop.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from arm_core.contracts import Forecaster, SamplerState
from arm_core.errors import InputError
from arm_core.samplers.work import Work

Slots = Int[Tensor, " slots"]
Guess = Int[Tensor, "slots dims"] | None
Waiting = Bool[Tensor, " slots"] | None


def step(
    work: Work,
    start: Slots,
    width: int,
    *,
    seam: int | None = None,
    limit: Slots | None = None,
    guess: Guess = None,
    waiting: Waiting = None,
) -> Bool[Tensor, "slots width"]:
    """A forecaster guesses the rest of the sequence, and the sampler keeps the prefix that the ARM confirms.

    With L the first dimension of a span whose guess differs from what the ARM says (the end of the span when there is
    none), the new frontier is L + 1: the outputs up to L saw final inputs only, so the one at L is final as well.

    Args:
        work: changed in place.
        start, width: of the span of each slot, in dims: a multiple of the ARM's granule, `dims` for none.
        seam: spans end at the last multiple of it that they reach, if they reach one (None: at their width).
        limit: up to where a frontier may move at most (None: the end of the span).
        guess: of the forecaster, if it has been asked already.
        waiting: the slots that bear the cost of the call (None: those that are not finished).

    Returns:
        Where the spans' outputs differ from what was fed.
    """
    state, places = work.state, work.place(start, width, seam)
    is_known, x = places < state.known[:, None], work.x.gather(1, places)
    guess = guesses(work.forecaster, state) if guess is None else guess
    fed = torch.where(is_known, x, guess.gather(1, places.clamp_max(work.dims - 1)))
    before = work.feed(places, fed)
    cost = work.evaluate(width)
    # An output before the frontier is final. Taking it from x keeps it so where rounding would flip a near tie.
    said = torch.where(is_known, x, work.outputs.gather(1, places))
    work.keep(places, said)
    wrong = fed != said
    frontier = torch.minimum(state.stop, start + (~wrong).cumprod(dim=1).sum(dim=1) + 1)
    frontier = torch.maximum(state.known, frontier if limit is None else torch.minimum(frontier, limit))
    passed = ~is_known & (places < frontier[:, None])
    account(work, places, waiting=waiting, cost=cost, passed=passed, wrong=wrong, moved=before != said)
    state.known.copy_(frontier)
    return wrong & (places < work.dims)


def account(
    work: Work,
    places: Int[Tensor, "slots width"],
    *,
    waiting: Waiting,
    cost: float,
    passed: Bool[Tensor, "slots width"],
    wrong: Bool[Tensor, "slots width"],
    moved: Bool[Tensor, "slots width"],
) -> None:
    """What a call cost those that waited for it, and what it did to each place of its spans."""
    waiting = work.state.known < work.dims if waiting is None else waiting
    work.calls += waiting
    work.work += torch.where(waiting, cost / waiting.sum(), 0.0)
    work.window.masked_fill_(waiting, places.shape[1])
    calls = work.calls[:, None].expand_as(places)
    confirmed, changed = (torch.where(mask, places, work.dims) for mask in (passed, moved))  # elsewhere: not kept
    work.converged_at.scatter_(1, confirmed, calls)
    work.mistakes.scatter_(1, confirmed, wrong)
    work.settled_at.scatter_(1, changed, calls)


def guesses(forecaster: Forecaster, state: SamplerState) -> Int[Tensor, "slots dims"]:
    """What the forecaster says, clamped to valid categories."""
    guess = forecaster(state)
    if not isinstance(guess, Tensor) or guess.shape != state.x.shape or guess.is_floating_point():
        got = f"{guess.dtype} {tuple(guess.shape)}" if isinstance(guess, Tensor) else type(guess).__name__
        raise InputError(
            f"a forecaster must return integers of shape (slots, dims) = {tuple(state.x.shape)}, got {got}"
        )
    return guess.to(state.x).clamp(0, state.layout.categories - 1)
