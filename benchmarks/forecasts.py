"""How good forecasts are: how often they hit, and how far they are from what the ARM says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from arm_core import AutoregressiveModel, Forecaster, predictive_sample
from arm_core.decision import Decision
from arm_core.forecasters import ForecastingModules, LearnedForecaster, fixed_point
from arm_core.gumbel import DenseNoise
from arm_core.objectives import forecasting_kls, kl
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import keyed_noise
from arm_core.samplers.step import step
from arm_core.samplers.work import WholeImages, Work


@dataclass(frozen=True)
class HitRates:
    """How often forecasts for the units past the frontier equal the final values, over all states of sampling.

    Attributes:
        modules, fixed_point: share of right forecasts of the dimensions of unit t = 1 .. T, on the same states.
    """

    modules: Float[Tensor, " horizon"]
    fixed_point: Float[Tensor, " horizon"]


def hit_rates(
    arm: AutoregressiveModel, modules: ForecastingModules, *, seed: int, sample_ids: Sequence[int]
) -> HitRates:
    """Hit rates of both forecasts in the states that fixed-point sampling passes through, but for the empty first one.

    Args:
        arm: in the dtype and on the device of the modules.
        modules: trained with it.
        seed, sample_ids: of the noise.
    """
    noise, dims = keyed_noise(arm, seed=seed, sample_ids=sample_ids).dense(), arm.layout.dims
    final = predictive_sample(arm, noise, fixed_point).x
    forecasters: list[Forecaster] = [LearnedForecaster(modules), fixed_point]
    horizon, width = modules.config.horizon, modules.unit_dims
    hits, seen = torch.zeros(2, horizon, dtype=torch.float64), torch.zeros(horizon, dtype=torch.float64)
    with sampling_mode(arm):
        work = Work(arm, len(noise), WholeImages(arm), fixed_point, DenseNoise(noise), Decision())
        work.begin(list(range(len(noise))), list(range(len(noise))))
        _ = work.state.hidden  # from the first call on: the modules read it later
        everything = torch.zeros_like(work.full), dims
        step(work, *everything)
        while not all(work.finished()):
            state = work.state
            positions = torch.arange(dims, device=state.x.device)
            unit = state.known.div(width, rounding_mode="floor")[:, None]
            ahead = positions.div(width, rounding_mode="floor") - unit  # 0 for the unit of the frontier
            counted = (positions >= state.known[:, None]) & (ahead < horizon)
            for row, forecaster in enumerate(forecasters):
                right = (forecaster(state) == final) & counted
                hits[row] += torch.bincount(ahead[right], minlength=horizon).double().cpu()
            seen += torch.bincount(ahead[counted], minlength=horizon).double().cpu()
            step(work, *everything)
    shares = hits / seen.clamp_min(1)
    return HitRates(shares[0], shares[1])


@dataclass(frozen=True)
class Divergences:
    """How far forecasts are from what the ARM says of the same dimensions: mean KL(ARM || forecast) in nats.

    Attributes:
        modules: of unit t = 1 .. T.
        marginals: of the dimensions' marginal distributions on the same samples, the best forecast without a context.
    """

    modules: Float[Tensor, " horizon"]
    marginals: Float[Tensor, " horizon"]


@torch.inference_mode()
def divergences(
    arm: AutoregressiveModel, modules: ForecastingModules, *, seed: int, sample_ids: Sequence[int], batch_size: int = 64
) -> Divergences:
    """Divergences on the ARM's own samples, with the noise that they come from.

    Args:
        arm: in eval mode, in the dtype and on the device of the modules.
        modules: trained with it.
        seed, sample_ids: of the noise.
        batch_size: samples at a time.
    """
    horizon = modules.config.horizon
    said, total = [], torch.zeros(horizon, dtype=torch.float64)
    for first in range(0, len(sample_ids), batch_size):
        ids = sample_ids[first : first + batch_size]
        noise = keyed_noise(arm, seed=seed, sample_ids=ids).dense()
        x = predictive_sample(arm, noise, fixed_point).x
        with sampling_mode(arm):
            output = arm(x)
        total += len(ids) * forecasting_kls(output.logits, modules(output.hidden, x, noise)).double().cpu()
        said.append(output.logits.log_softmax(dim=-1).double().cpu())
    log_p = torch.cat(said)
    marginal = log_p.exp().mean(dim=0).clamp_min(torch.finfo(log_p.dtype).tiny).log()
    apart = kl(log_p, marginal.expand_as(log_p)).mean(dim=0)  # of every dimension
    marginals = torch.stack([apart[ahead * modules.unit_dims :].mean() for ahead in range(horizon)])
    return Divergences(total / len(sample_ids), marginals)
