"""Ancestral sampling: the reference that every other sampler must equal.

It shares no line with the predictive step, so that equality with it means something.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.noise import check_noise


def ancestral_sample(arm: AutoregressiveModel, noise: Float[Tensor, "batch dims categories"]) -> SampleTrace:
    """Sample one dimension after the other, with a whole pass of the ARM for each.

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.

    Returns:
        The samples; `dims` calls and full passes each, no forecasts and hence no mistakes.

    Raises:
        InputError: the noise does not fit the ARM, or autocast is on.
    """
    check_noise(arm, noise)
    batch, dims, _ = noise.shape
    x = torch.zeros(batch, dims, dtype=torch.int64, device=noise.device)
    if batch > 0:
        with sampling_mode(arm):
            for i in range(dims):
                x[:, i] = (arm(x).logits[:, i] + noise[:, i]).argmax(dim=-1)
    calls = torch.full((batch,), dims, device=noise.device)
    at = torch.arange(1, dims + 1, device=noise.device).repeat(batch, 1)
    return SampleTrace(
        x,
        arm_calls=calls,
        arm_work=calls.double(),
        converged_at=at,
        settled_at=at.clone(),
        mistakes=torch.zeros_like(x).bool(),
    )
