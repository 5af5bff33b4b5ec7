"""What training minimises: likelihood, the forecasting loss (paper app. A.2) and the reconstruction (app. A.3)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import log_likelihood


def bits_per_dim(
    logits: Float[Tensor, "batch dims categories"], x: Int[Tensor, "batch dims"]
) -> Float[Tensor, " batch"]:
    """-log2 P(x) / dims of every sample."""
    return -log_likelihood(logits, x).mean(dim=1) / math.log(2)


def forecasting_kl(
    logits: Float[Tensor, "batch dims categories"],
    forecasts: Float[Tensor, "batch units horizon unit_dims categories"],
) -> Float[Tensor, ""]:
    """The sum of `forecasting_kls`, the forecasting loss."""
    return forecasting_kls(logits, forecasts).sum()


def forecasting_kls(
    logits: Float[Tensor, "batch dims categories"],
    forecasts: Float[Tensor, "batch units horizon unit_dims categories"],
) -> Float[Tensor, " horizon"]:
    """For every module the mean of KL(ARM || module) over batch and dimensions, in nats.

    Module t at unit m is held to what the ARM says of unit m + t - 1; the last t - 1 units of module t have no target.

    Args:
        logits: of the ARM; constants here, no gradient flows into them.
        forecasts: from `ForecastingModules.forward`.
    """
    batch, units, horizon, unit_dims, categories = forecasts.shape
    target = logits.detach().log_softmax(dim=-1).view(batch, units, unit_dims, categories)
    found = []
    for ahead in range(horizon):
        said = forecasts[:, : units - ahead, ahead].log_softmax(dim=-1)
        found.append(kl(target[:, ahead:], said).mean())
    return torch.stack(found)


def kl(log_p: Float[Tensor, "*shape categories"], log_q: Float[Tensor, "*shape categories"]) -> Float[Tensor, "*shape"]:
    """KL(p || q) in nats of distributions given by their logarithms."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def reconstruction_mse(
    output: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of reconstructions, both on [-1, 1] (paper app. A.3)."""
    return (output - images).square().mean()
