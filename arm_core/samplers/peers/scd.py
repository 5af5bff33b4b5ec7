"""Speculative coupled decoding, once MC-SJD (ICML 2026, arXiv 2510.24211)."""

from typing import Literal, Unpack

import torch

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.samplers.peers.batch import Options
from arm_core.samplers.peers.drafts import drafted_sample


def scd_sample(
    arm: AutoregressiveModel,
    *,
    batch: int,
    generator: torch.Generator,
    window: int,
    coupling: Literal["gumbel", "maximal"] = "gumbel",
    slots: int | None = None,
    first: Forecaster | None = None,
    **options: Unpack[Options],
) -> SampleTrace:
    """`sjd_sample` whose drafts of two calls are coupled, so that they stay where the ARM says nearly the same.

    Exact in law only, as `sjd_sample`.

    Args:
        arm, batch, generator, window, slots, first, options: as for `sjd_sample`.
        coupling: gumbel: the drafts of a dim share their Gumbel noise from call to call, as in the fixed-point
            iteration of 2020; they are accepted by ratio all the same, where equality would give the very sample.
            maximal: a draft stays with probability min(1, p / q), the most that is possible from one call to the next.

    Returns:
        As `sjd_sample`.

    Raises:
        InputError: as `sjd_sample`.

    Note:
        As for `sjd_sample`. The authors' noise is one table for all samples, shifted from call to call; here it is that
        of `KeyedNoise`, under a seed that the generator draws. Of SJD-PAC (CVPR 2026, arXiv 2603.18599), to keep the
        tail after a rejection is the maximal coupling; its alternatives are in `pac_sample`.
    """
    return drafted_sample(
        arm,
        batch=batch,
        generator=generator,
        window=window,
        coupling=coupling,
        slots=slots,
        first=first,
        **options,
    )
