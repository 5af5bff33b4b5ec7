"""How far forecasting modules should be believed: measured on held-out noise.

Long horizons can cost calls instead of saving them: a module that is wrong where the ARM's last output was right ends
the step. The measurements use sample ids that no later comparison should use again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster
from arm_core.decision import Decision
from arm_core.errors import InputError
from arm_core.forecasters import ForecastingModules, GatedForecaster, LearnedForecaster, fixed_point
from arm_core.gumbel import DenseNoise, sample_noise
from arm_core.objectives import forecasting_kls, kl
from arm_core.samplers import predictive_sample, sample_many
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import noise_dtype
from arm_core.samplers.step import step
from arm_core.samplers.work import WholeImages, Work

HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 20)
GATES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Setting:
    """A way to use modules, and what it costs.

    Attributes:
        horizon: modules used; 0 for the fixed-point forecast alone.
        gate: of a `GatedForecaster`; None for a fixed horizon.
        mean_calls: ARM calls a sample at batch 1, mean over the ids.
    """

    horizon: int
    gate: float | None
    mean_calls: float

    def forecaster(self, modules: ForecastingModules) -> Forecaster:
        """The forecaster that this setting describes."""
        if self.horizon == 0:
            return fixed_point
        if self.gate is None:
            return LearnedForecaster(modules, horizon=self.horizon)
        return GatedForecaster(modules, horizon=self.horizon, gate=self.gate)


def choose_horizon(
    arm: AutoregressiveModel,
    modules: ForecastingModules,
    *,
    seed: int,
    sample_ids: range,
    horizons: Sequence[int] | None = None,
    gates: Sequence[float] = GATES,
    batch_size: int = 32,
) -> list[Setting]:
    """Measure the settings on held-out samples; the first of the result is the one to use.

    Args:
        arm: in the dtype and on the device of the modules.
        modules: trained with it.
        seed, sample_ids: of the noise; at least one id, and no gaps.
        horizons: to try, each in [1, modules.config.horizon]; None: a ladder of them up to the trained one.
        gates: to try, at the best fixed horizon and at the trained one; empty: fixed horizons only.
        batch_size: samples at a time; changes nothing but time.

    Returns:
        All settings, the fewest calls first; the fixed-point forecast alone is among them.
    """
    if len(sample_ids) == 0 or sample_ids.step != 1:
        raise InputError(f"choose_horizon needs at least one sample id and no gaps between them, got {sample_ids}")
    trained = modules.config.horizon
    ladder = horizons if horizons is not None else sorted({t for t in HORIZONS if t < trained} | {trained})
    plain = [Setting(0, None, 0.0), *(Setting(t, None, 0.0) for t in ladder)]
    found = _measure(arm, modules, plain, seed, sample_ids, batch_size)
    fixed = min((setting for setting in found if setting.horizon), key=lambda setting: setting.mean_calls)
    gated = [Setting(t, gate, 0.0) for t in sorted({fixed.horizon, trained}) for gate in gates]
    found += _measure(arm, modules, gated, seed, sample_ids, batch_size)
    return sorted(found, key=lambda setting: setting.mean_calls)


def _measure(
    arm: AutoregressiveModel,
    modules: ForecastingModules,
    settings: Sequence[Setting],
    seed: int,
    sample_ids: range,
    batch_size: int,
) -> list[Setting]:
    calls = (
        arm_calls(arm, s.forecaster(modules), seed=seed, sample_ids=sample_ids, slots=batch_size) for s in settings
    )
    return [replace(s, mean_calls=taken.double().mean().item()) for s, taken in zip(settings, calls, strict=True)]


def arm_calls(
    arm: AutoregressiveModel, forecaster: Forecaster, *, seed: int, sample_ids: range, slots: int = 32
) -> Int[Tensor, " ids"]:
    """The ARM calls of every sample on whole images: what it takes at batch 1, whatever stands beside it."""
    count, whole = len(sample_ids), arm.layout.dims
    trace = sample_many(
        arm, count=count, seed=seed, slots=slots, forecaster=forecaster, window=whole, first_id=sample_ids.start
    )
    return trace.arm_calls


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
    weight, dims = next(arm.parameters()), arm.layout.dims
    noise = sample_noise(
        arm.layout, seed=seed, sample_ids=sample_ids, dtype=noise_dtype(weight.dtype), device=weight.device
    )
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
    weight, horizon = next(arm.parameters()), modules.config.horizon
    said, total = [], torch.zeros(horizon, dtype=torch.float64)
    for first in range(0, len(sample_ids), batch_size):
        ids = sample_ids[first : first + batch_size]
        noise = sample_noise(
            arm.layout, seed=seed, sample_ids=ids, dtype=noise_dtype(weight.dtype), device=weight.device
        )
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
