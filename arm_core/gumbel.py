"""Gumbel noise: drawn anew for a sample, or drawn from its posterior for given data.

The Gumbel-max reparametrisation writes a sample as x_i = argmax_c(mu_ic + eps_ic) with standard Gumbel eps drawn once;
with eps fixed, sampling is a deterministic function.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.errors import InputError
from arm_core.layout import Layout

_KEY_LIMIT = 2**64


def sample_noise(
    layout: Layout,
    *,
    seed: int,
    sample_ids: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch dims categories"]:
    """Standard Gumbel noise keyed by (seed, sample id).

    Row k depends only on (seed, sample_ids[k]). The bits are counter-based (Philox) and turned into noise on the CPU in
    float64, then cast and moved: device, dtype, batch, slot and shard never change a draw.

    Args:
        layout: shape and categories of the images.
        seed: in [0, 2^64).
        sample_ids: one id per row, each in [0, 2^64); repeated ids repeat their noise.
        dtype: floating type of the result.
        device: where the result lives.

    Raises:
        InputError: a seed or id out of range, or a dtype that is no floating type.
    """
    if not dtype.is_floating_point:
        raise InputError(f"noise dtype must be a floating type, got {dtype}")
    for name, value in [("seed", seed), *(("sample id", sample_id) for sample_id in sample_ids)]:
        if not 0 <= value < _KEY_LIMIT:
            raise InputError(f"{name} must be in [0, 2^64), got {value}")
    shape = (len(sample_ids), layout.dims, layout.categories)
    noise = np.empty(shape)
    for row, sample_id in enumerate(sample_ids):
        bits = np.random.Philox(key=np.array([seed, sample_id], np.uint64)).random_raw(layout.dims * layout.categories)
        uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53  # 53 bits, centred: never 0 and never 1
        noise[row] = -np.log(-np.log(uniform)).reshape(shape[1:])
    return torch.from_numpy(noise).to(dtype=dtype, device=device)


def standard_gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the shape, dtype and device of `like`, drawn from `generator`."""
    exponential = torch.empty_like(like).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()


def posterior_gumbel(
    logits: Float[Tensor, "*shape categories"], x: Int[Tensor, "*shape"], *, generator: torch.Generator
) -> Float[Tensor, "*shape categories"]:
    """Noise from p(eps | x): standard Gumbel noise given that argmax(logits + eps) is x (paper app. B).

    The maximum of logits + eps is Gumbel at logsumexp(logits) and independent of where it lies; the other entries are
    Gumbels truncated at it. In the stable form, with l = log_softmax(logits) and m, G_c standard Gumbel:
    eps_x = m - l_x and eps_c = -logaddexp(l_c - m, -G_c).

    Args:
        logits: the ARM's logits, any scale; -inf marks impossible categories.
        x: the observed categories.
        generator: on the device of `logits`.

    Returns:
        Noise of the dtype of `logits`, with argmax(logits + noise) == x at every position.

    Raises:
        InputError: some x has logit -inf, so that nothing could have produced it.

    Note:
        The paper's Eq. (3) makes eps_x standard Gumbel. That is not the posterior: for p = (.7, .2, .1) the marginal
        means become (0.00, 0.09, 0.21) where standard Gumbel has 0.577. Here each marginal is standard Gumbel when
        x ~ softmax(logits).
    """
    index = x.unsqueeze(-1)
    log_p = logits.log_softmax(dim=-1)
    log_p_x = log_p.gather(-1, index)
    if not torch.isfinite(log_p_x).all():
        raise InputError("posterior_gumbel: some x has probability 0 under the logits, so no noise leads to it")
    maximum = standard_gumbel(log_p_x, generator)
    noise = -torch.logaddexp(log_p - maximum, -standard_gumbel(log_p, generator))
    noise = noise.scatter(-1, index, maximum - log_p_x)
    return _lower_ties(logits, noise, index)


def _lower_ties(logits: Tensor, noise: Tensor, index: Tensor) -> Tensor:
    """Rounding can lift another entry to the maximum: lower it by as little as makes argmax unique."""
    minus_infinity = torch.full_like(logits, -torch.inf)
    while True:
        total = logits + noise
        peak = total.gather(-1, index)
        tied = (total >= peak).scatter(-1, index, False)
        if not tied.any():
            return noise
        below = torch.nextafter(peak, minus_infinity[..., :1]) - logits
        noise = torch.where(tied, torch.minimum(torch.nextafter(noise, minus_infinity), below), noise)
