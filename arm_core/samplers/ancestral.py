"""Ancestral sampling: the reference that every other sampler must equal.

It shares no line with the predictive step, so that equality with it means something.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Contexts, SampleTrace
from arm_core.decision import Decision, Processors, processed
from arm_core.gumbel import KeyedNoise
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_conditions, noise_source


def ancestral_sample(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "batch dims categories"] | KeyedNoise,
    *,
    prefix: Int[Tensor, "batch known"] | None = None,
    temperature: float | int = 1.0,
    logits_processor: Processors | None = None,
    context: Contexts | None = None,
) -> SampleTrace:
    """Sample one dimension after the other, with a whole pass of the ARM for each.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device: a tensor (`sample_noise`), or `KeyedNoise`.
        prefix: leading dimensions that are known; the samples complete them.
        temperature: logits are divided by it, at least 0; 0 takes the most likely value of each dimension.
        logits_processor: a function of rows of logits, such as `top_k(50)`, or a list of them; applied before the
            temperature.
        context: one per sample, for an ARM that is conditioned.

    Returns:
        The samples; a call and a full pass for each dimension that is not known, no forecasts and hence no mistakes.

    Raises:
        InputError: the noise, the prefix or the context does not fit the ARM, the temperature is negative, nothing is
            left to choose from, or autocast is on.
    """
    source, decision = noise_source(arm, noise), Decision(logits_processor, temperature)
    batch, dims = len(source), arm.layout.dims
    prefix = check_conditions(arm, batch, prefix, context)
    conditions = {} if context is None else {"context": context}
    x = torch.zeros(batch, dims, dtype=torch.int64, device=source.device)
    known = 0
    if prefix is not None:
        known = prefix.shape[1]
        x[:, :known] = prefix
    rows = torch.arange(batch, device=x.device)
    with sampling_mode(arm):
        for i in range(known, dims if batch > 0 else known):
            row = arm(x, **conditions).logits[:, i].clone()
            for number, processor in enumerate(decision.processors, start=1):
                row = processed(processor, row)
                if bool((row.amax(dim=-1) == -torch.inf).any()):
                    raise decision.error(1 + number, i)
            score = row + source.at(rows, torch.full_like(rows, i)) * temperature  # as logits / temperature + noise
            if not bool((score.amax(dim=-1) > -torch.inf).all()):
                raise decision.error(1, i)
            x[:, i] = score.argmax(dim=-1)
    calls = torch.full((batch,), dims - known, device=x.device)
    at = torch.arange(1 - known, dims - known + 1, device=x.device).clamp_min(0).repeat(batch, 1)
    return SampleTrace(
        x,
        arm_calls=calls,
        arm_work=calls.double(),
        converged_at=at,
        settled_at=at.clone(),
        mistakes=torch.zeros_like(x).bool(),
        window=torch.full_like(calls, dims),
        overruled=torch.zeros_like(x).double(),
    )
