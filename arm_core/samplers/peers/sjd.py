"""Speculative Jacobi decoding.

Teng et al., "Accelerating Auto-regressive Text-to-Image Generation with Training-free Speculative Jacobi Decoding"
(ICLR 2025, arXiv 2410.01699).
"""

from typing import Unpack

import torch

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.samplers.peers.batch import Options
from arm_core.samplers.peers.drafts import drafted_sample


def sjd_sample(
    arm: AutoregressiveModel,
    *,
    batch: int,
    generator: torch.Generator,
    window: int,
    slots: int | None = None,
    first: Forecaster | None = None,
    **options: Unpack[Options],
) -> SampleTrace:
    """Drafts drawn from what the ARM said a call earlier, accepted by ratio; drafts past a rejection are drawn anew.

    Exact in law only: every sample has the ARM's distribution, but which one is drawn changes with batch, window, slots
    and first drafts.

    Args:
        arm: any ARM with spans; any ARM at all if the window is the whole image.
        batch: samples, at least 0.
        generator: of all draws, on the ARM's device.
        window: dims that a call evaluates of each sample, rounded up to the ARM's granule. The authors use 16.
        slots: None: the whole batch at once and in lock-step, as the authors' code does: its windows begin where the
            slowest sample stands. A number: so many samples at a time, each at its own place, a finished one is
            replaced.
        first: guesses the dims that no call has seen, each by those before it only, for example
            `arm_core.forecasters.row_above`; None: uniform draws.
        options: prefix, temperature, logits_processor, context: as for `ancestral_sample`.

    Returns:
        The samples; see `SampleTrace`. A mistake is a rejected draft.

    Raises:
        InputError: batch or slots out of range; otherwise as `ancestral_sample`, or the ARM has no windows.

    Note:
        The authors' code ends a batch's windows at its shortest accepted prefix and drops what others had accepted
        beyond; here that stays, which can only save calls. Its test is a loop in Python over batch and window, here a
        few operations on tensors. First drafts that repeat the token above are among its options; one that is certain
        is accepted here with the probability that the ARM gives to it, which keeps the law.
    """
    return drafted_sample(
        arm,
        batch=batch,
        generator=generator,
        window=window,
        coupling="independent",
        slots=slots,
        first=first,
        **options,
    )
