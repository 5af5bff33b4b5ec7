"""Forecasters that read forecasting modules: for a fixed horizon, or position by position by confidence (app. A.2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_core.contracts import Forecaster, SamplerState
from arm_core.errors import InputError
from arm_core.fixed_point import fixed_point
from arm_core.forecasters.modules import ForecastingModules


class LearnedForecaster:
    """Modules for the first `horizon` units past the frontier, another forecaster beyond them (paper app. C).

    A forecast is what the sampler would decide on a module's logits with its own noise at that dimension.

    Args:
        modules: trained with the ARM that samples, in its dtype and on its device.
        horizon: how many of the modules to use, in [1, modules.config.horizon]; None uses all. Long horizons can cost
            calls instead of saving them, so choose it by measurement: `arm_core.horizon.choose_horizon`.
        fallback: the forecasts beyond the horizon.
        mode: forecast each module's most likely value, whatever the noise (the ablation without reparametrisation).

    Raises:
        InputError: the horizon is out of range.
    """

    def __init__(
        self,
        modules: ForecastingModules,
        *,
        horizon: int | None = None,
        fallback: Forecaster = fixed_point,
        mode: bool = False,
    ) -> None:
        trained = modules.config.horizon
        if horizon is not None and not 1 <= horizon <= trained:
            raise InputError(f"horizon must be in [1, {trained}], the number of trained modules, got {horizon}")
        self.modules = modules
        self.horizon = horizon or trained
        self.fallback = fallback
        self.mode = mode

    def __call__(self, state: SamplerState) -> Int[Tensor, "slots dims"]:
        """Forecasts for every dimension from the frontier on."""
        modules, dims = self.modules, state.layout.dims
        unit = state.known.div(modules.unit_dims, rounding_mode="floor") * modules.unit_dims
        ahead = torch.arange(self.horizon * modules.unit_dims, device=state.x.device)
        positions = unit[:, None] + ahead
        logits = modules.at(state.hidden, state.known, state.x, state.noise)[:, : self.horizon].flatten(0, 2)
        index = positions.clamp_max(dims - 1)
        if not self.mode:
            slots = torch.arange(len(index), device=index.device)[:, None].expand_as(index)
            logits = state.decision(logits, state.noise.at(slots.flatten(), index.flatten())).scores
        scores = logits.unflatten(0, index.shape)
        beyond = F.pad(self.fallback(state), (0, len(ahead)))  # room for the forecasts past the last dimension
        said = torch.where(self._trusted(state, scores, index), scores.argmax(dim=-1), beyond.gather(1, positions))
        return beyond.scatter(1, positions, said)[:, :dims]

    def _trusted(
        self, state: SamplerState, scores: Float[Tensor, "slots ahead categories"], index: Int[Tensor, "slots ahead"]
    ) -> Bool[Tensor, "slots ahead"]:
        """Where a module's forecast is taken: everywhere."""
        return torch.ones_like(index, dtype=torch.bool)


class GatedForecaster(LearnedForecaster):
    """At every position the more confident of the module and the ARM's own last output.

    Confidence is the gap between the best two of logits + noise. Where the ARM has not been evaluated yet the module
    speaks. Which of the two is believed costs calls or saves them, and never changes a sample.

    Args:
        modules, horizon, fallback, mode: see `LearnedForecaster`.
        gate: the module is believed where its gap is more than `gate` times the ARM's; 0 believes it always.
    """

    def __init__(
        self,
        modules: ForecastingModules,
        *,
        horizon: int | None = None,
        fallback: Forecaster = fixed_point,
        mode: bool = False,
        gate: float = 1.0,
    ) -> None:
        super().__init__(modules, horizon=horizon, fallback=fallback, mode=mode)
        if not 0 <= gate < float("inf"):
            raise InputError(f"gate must be finite and not negative, got {gate}")
        self.gate = gate

    def _trusted(
        self, state: SamplerState, scores: Float[Tensor, "slots ahead categories"], index: Int[Tensor, "slots ahead"]
    ) -> Bool[Tensor, "slots ahead"]:
        return ~state.evaluated.gather(1, index) | (_gap(scores) > self.gate * state.margins.gather(1, index))


def _gap(scores: Float[Tensor, "slots ahead categories"]) -> Float[Tensor, "slots ahead"]:
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    return best - second
