"""Ancestral sampling: the reference that every other sampler must equal.

It shares no line with the predictive step, so that equality with it means something.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_noise, check_prefix, check_temperature


def ancestral_sample(
    arm: AutoregressiveModel,
    noise: Float[Tensor, "batch dims categories"],
    *,
    prefix: Int[Tensor, "batch known"] | None = None,
    temperature: float = 1.0,
) -> SampleTrace:
    """Sample one dimension after the other, with a whole pass of the ARM for each.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.
        prefix: leading dimensions that are known; the samples complete them.
        temperature: logits are divided by it, at least 0; 0 takes the most likely value of each dimension.

    Returns:
        The samples; a call and a full pass for each dimension that is not known, no forecasts and hence no mistakes.

    Raises:
        InputError: the noise or the prefix does not fit the ARM, the temperature is negative, or autocast is on.
    """
    check_noise(arm, noise)
    check_temperature(temperature)
    batch, dims, _ = noise.shape
    x = torch.zeros(batch, dims, dtype=torch.int64, device=noise.device)
    known = 0
    if prefix is not None:
        prefix = check_prefix(arm.layout, prefix, batch)
        known = prefix.shape[1]
        x[:, :known] = prefix
    noise = noise * temperature  # argmax(logits / T + noise) = argmax(logits + T noise)
    if batch > 0:
        with sampling_mode(arm):
            for i in range(known, dims):
                x[:, i] = (arm(x).logits[:, i] + noise[:, i]).argmax(dim=-1)
    calls = torch.full((batch,), dims - known, device=noise.device)
    at = torch.arange(1 - known, dims - known + 1, device=noise.device).clamp_min(0).repeat(batch, 1)
    return SampleTrace(
        x,
        arm_calls=calls,
        arm_work=calls.double(),
        converged_at=at,
        settled_at=at.clone(),
        mistakes=torch.zeros_like(x).bool(),
        window=torch.full_like(calls, dims),
    )
