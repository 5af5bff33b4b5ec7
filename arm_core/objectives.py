"""What training minimises: likelihood, the forecasting loss (paper app. A.2) and the reconstruction (app. A.3)."""

import math

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
    """Sum over the modules of the mean of KL(ARM || module) over batch and dimensions, in nats.

    Module t at unit m is held to what the ARM says of unit m + t - 1; the last t - 1 units of module t have no target.

    Args:
        logits: of the ARM; constants here, no gradient flows into them.
        forecasts: from `ForecastingModules.forward`.
    """
    batch, units, horizon, unit_dims, categories = forecasts.shape
    target = logits.detach().log_softmax(dim=-1).view(batch, units, unit_dims, categories)
    probability = target.exp()
    total = logits.new_zeros(())
    for ahead in range(horizon):
        said = forecasts[:, : units - ahead, ahead].log_softmax(dim=-1)
        total = total + (probability[:, ahead:] * (target[:, ahead:] - said)).sum(dim=-1).mean()
    return total


def reconstruction_mse(
    output: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of reconstructions, both on [-1, 1] (paper app. A.3)."""
    return (output - images).square().mean()
