"""Forecasting modules: small heads on the ARM's hidden features, and the forecaster that reads them (paper app. A.2).

With n dimensions known the hidden features before n are right, and module t reads only those to forecast dimension
n + t - 1, which the ARM itself could not say yet for t > 1. Indices are 0-based.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from arm_core.causal_conv import channel_groups, may_see
from arm_core.contracts import Forecaster, SamplerState
from arm_core.errors import InputError
from arm_core.forecasters.fixed_point import fixed_point
from arm_core.layout import Layout

TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
"""(row, column) offsets that a module reads: the part of a 3x3 kernel that comes before its centre, and the centre."""


@dataclass(frozen=True)
class ForecastingConfig:
    """Size and kind of the forecasting modules; the defaults are the paper's (Table 1, "Default").

    Attributes:
        horizon: how many units past the frontier are forecast (T), in [1, units of the layout].
        filters: features of each module, a multiple of the layout's channels.
        unit: what module t forecasts: the dimension n + t - 1, or all channels of the pixel t - 1 after that of n.
        inputs: what the modules read. Only the hidden features are built yet.
        detach_hidden: keep the modules' loss from training the ARM.
    """

    horizon: int = 1
    filters: int = 162
    unit: Literal["dimension", "pixel"] = "dimension"
    inputs: tuple[str, ...] = ("hidden",)
    detach_hidden: bool = False


class ForecastingModules(nn.Module):
    """All `horizon` modules, evaluated together.

    A unit is `unit_dims` dimensions: 1, or the channels of a pixel. Module t at unit m reads the hidden features of
    the dimensions before that unit: a strictly triangular 3x3 convolution (mask A on its centre), ELU, and a 1x1
    convolution (mask B).

    Args:
        layout: of the ARM.
        config: see `ForecastingConfig`.
        hidden_features: of the ARM.

    Raises:
        InputError: a value of the config is out of range, or the ARM offers no hidden features.
    """

    mask_in: Tensor
    mask_out: Tensor

    def __init__(self, layout: Layout, config: ForecastingConfig, hidden_features: int) -> None:
        super().__init__()
        _check(layout, config, hidden_features)
        self.layout, self.config, self.hidden_features = layout, config, hidden_features
        self.unit_dims = layout.channels if config.unit == "pixel" else 1
        horizon, channels, inputs = config.horizon, layout.channels, layout.channels * hidden_features
        outputs = channels * layout.categories
        self.inward = nn.Linear(len(TAPS) * inputs, horizon * config.filters)
        self.outward = nn.Conv2d(horizon * config.filters, horizon * outputs, 1, groups=horizon)
        seen, kept, said = (channel_groups(n, channels) for n in (inputs, config.filters, outputs))
        if config.unit == "pixel":  # a whole pixel is forecast from whole pixels before it
            here, across = torch.zeros(len(kept), len(seen)).bool(), torch.ones(len(said), len(kept)).bool()
        else:
            here, across = may_see(kept, seen, strict=True), may_see(said, kept, strict=False)
        before = torch.ones_like(here).repeat(1, len(TAPS) - 1)
        self.register_buffer("mask_in", torch.cat([before, here], 1).repeat(horizon, 1), persistent=False)
        self.register_buffer("mask_out", across.repeat(horizon, 1)[:, :, None, None], persistent=False)

    def forward(
        self, hidden: Float[Tensor, "batch dims features"]
    ) -> Float[Tensor, "batch units horizon unit_dims categories"]:
        """The logits that each module gives at each unit; [:, m, t - 1] forecasts the unit m + t - 1."""
        layout, (filters, taps) = self.layout, (self.config.filters, len(TAPS))
        if self.config.detach_hidden:
            hidden = hidden.detach()
        maps = hidden.reshape(len(hidden), layout.height, layout.width, -1).permute(0, 3, 1, 2)
        weight = (self.inward.weight * self.mask_in).view(self.config.horizon * filters, taps, -1).transpose(1, 2)
        kernel = F.pad(weight, (0, 1)).unflatten(2, (2, 3))  # the sixth tap, right of the pixel, sees nothing
        grown = F.conv2d(maps, kernel, self.inward.bias, padding=1)[:, :, : layout.height]
        return self._by_unit(self._outward(grown))

    def at(
        self, hidden: Float[Tensor, "slots dims features"], frontier: Int[Tensor, " slots"]
    ) -> Float[Tensor, "slots horizon unit_dims categories"]:
        """`forward`, at the unit of each slot's frontier only: reads a patch of five pixels instead of the image."""
        layout = self.layout
        pixel = frontier.div(layout.channels, rounding_mode="floor").clamp_max(layout.height * layout.width - 1)
        row, column = pixel.div(layout.width, rounding_mode="floor"), pixel % layout.width
        rows, columns = (torch.tensor(offsets, device=pixel.device) for offsets in zip(*TAPS, strict=True))
        rows, columns = row[:, None] + rows, column[:, None] + columns
        inside = (rows >= 0) & (columns >= 0) & (columns < layout.width)
        index = torch.where(inside, rows * layout.width + columns, 0)
        pixels = hidden.view(len(hidden), layout.height * layout.width, -1)
        patch = pixels.gather(1, index[:, :, None].expand(-1, -1, pixels.shape[-1])) * inside[:, :, None]
        grown = F.linear(patch.flatten(1), self.inward.weight * self.mask_in, self.inward.bias)
        said = self._outward(grown[:, :, None, None]).view(len(hidden), self.config.horizon, layout.channels, -1)
        if self.config.unit == "pixel":
            return said
        channel = (frontier % layout.channels)[:, None, None, None].expand(-1, said.shape[1], 1, said.shape[3])
        return said.gather(2, channel)

    def _outward(self, grown: Tensor) -> Tensor:
        return F.conv2d(
            F.elu(grown), self.outward.weight * self.mask_out, self.outward.bias, groups=self.config.horizon
        )

    def _by_unit(self, maps: Tensor) -> Tensor:
        """(batch, T * C * K, H, W) -> (batch, units, T, unit_dims, K)."""
        layout = self.layout
        split = maps.view(
            len(maps), self.config.horizon, layout.channels, layout.categories, layout.height, layout.width
        )
        if self.config.unit == "pixel":
            return split.permute(0, 4, 5, 1, 2, 3).flatten(1, 2)
        return split.permute(0, 4, 5, 2, 1, 3).flatten(1, 3).unsqueeze(3)


class LearnedForecaster:
    """Modules for the first `horizon` units past the frontier, another forecaster beyond them (paper app. C).

    A forecast is the argmax of a module's logits plus the sampler's own noise at that dimension.

    Args:
        modules: trained with the ARM that samples, in its dtype and on its device.
        horizon: how many of the modules to use, in [1, modules.config.horizon]; None uses all. Long horizons can cost
            calls instead of saving them, so choose it by measurement.
        fallback: the forecasts beyond the horizon.

    Raises:
        InputError: the horizon is out of range.
    """

    def __init__(
        self, modules: ForecastingModules, *, horizon: int | None = None, fallback: Forecaster = fixed_point
    ) -> None:
        trained = modules.config.horizon
        if horizon is not None and not 1 <= horizon <= trained:
            raise InputError(f"horizon must be in [1, {trained}], the number of trained modules, got {horizon}")
        self.modules = modules
        self.horizon = horizon or trained
        self.fallback = fallback

    def __call__(self, state: SamplerState) -> Int[Tensor, "slots dims"]:
        """Forecasts for every dimension from the frontier on."""
        modules, dims = self.modules, state.layout.dims
        unit = state.known.div(modules.unit_dims, rounding_mode="floor") * modules.unit_dims
        ahead = torch.arange(self.horizon * modules.unit_dims, device=state.x.device)
        positions = unit[:, None] + ahead
        logits = modules.at(state.hidden, state.known)[:, : self.horizon].flatten(1, 2)
        index = positions.clamp_max(dims - 1)[:, :, None].expand(-1, -1, logits.shape[-1])
        said = (logits + state.noise.gather(1, index)).argmax(dim=-1)
        beyond = F.pad(self.fallback(state), (0, len(ahead)))  # room for the forecasts past the last dimension
        return beyond.scatter(1, positions.clamp_max(dims + len(ahead) - 1), said)[:, :dims]


def _check(layout: Layout, config: ForecastingConfig, hidden_features: int) -> None:
    units = layout.dims // (layout.channels if config.unit == "pixel" else 1)
    if config.unit not in ("dimension", "pixel"):
        raise InputError(f"forecasting: unit must be 'dimension' or 'pixel', got {config.unit!r}")
    if not 1 <= config.horizon <= units:
        raise InputError(
            f"forecasting: horizon must be in [1, {units}] ({config.unit}s of the image), got {config.horizon}"
        )
    if config.filters < 1 or config.filters % layout.channels:
        nearest = max(1, round(config.filters / layout.channels)) * layout.channels
        raise InputError(
            f"forecasting: filters must be a positive multiple of the channels ({layout.channels}), "
            f"got {config.filters}; nearest: {nearest}"
        )
    if tuple(config.inputs) != ("hidden",):
        raise InputError(f"forecasting: inputs other than ('hidden',) are not built yet, got {tuple(config.inputs)}")
    if hidden_features < 1:
        raise InputError("forecasting modules read the ARM's hidden features, and this ARM offers none")
