"""Forecasting modules: small heads on the ARM's hidden features (paper app. A.2).

With n dimensions known the hidden features before n are right, and module t reads only those to forecast dimension
n + t - 1, which the ARM itself could not say yet for t > 1. Modules may also read the known values and the noise: all
noise is known when sampling, and what it adds is a hint at values that are not. Indices are 0-based.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from arm_core.causal_conv import channel_groups, conv_one_hot, may_see
from arm_core.elementwise import crop
from arm_core.errors import InputError
from arm_core.gumbel import NoiseSource
from arm_core.layout import Layout

Given = TypeVar("Given")
INPUTS = (("hidden",), ("hidden", "x"), ("hidden", "noise"), ("hidden", "x", "noise"))
TAPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
"""(row, column) offsets that a module reads: the part of a 3x3 kernel that comes before its centre, and the centre."""


@dataclass(frozen=True)
class ForecastingConfig:
    """Size and kind of the forecasting modules; the defaults are the paper's (Table 1, "Default").

    Attributes:
        horizon: how many units past the frontier are forecast (T), in [1, units of the layout].
        filters: features of each module, a multiple of the layout's channels.
        unit: what module t forecasts: the dimension n + t - 1, or all channels of the pixel t - 1 after that of n.
        inputs: what the modules read: "hidden", then any of "x" (the known values, one-hot) and "noise".
        pairs: where the x and noise of the training pairs come from: data with their posterior noise (app. B), or
            samples of the ARM itself with the noise that they were drawn with.
        detach_hidden: keep the modules' loss from training the ARM.
    """

    horizon: int = 1
    filters: int = 162
    unit: Literal["dimension", "pixel"] = "dimension"
    inputs: tuple[str, ...] = ("hidden",)
    pairs: Literal["posterior", "model"] = "posterior"
    detach_hidden: bool = False


class ForecastingModules(nn.Module):
    """All `horizon` modules, evaluated together.

    A unit is `unit_dims` dimensions: 1, or the channels of a pixel. Module t at unit m reads the hidden features of
    the dimensions before that unit, and with the input "x" their values: a strictly triangular 3x3 convolution (mask A
    on its centre), ELU, and a 1x1 convolution (mask B). With the input "noise" module t also reads the noise of the
    units m - 1 .. m + t - 2. Never that of the unit m + t - 1, which is added to its logits: in training it would give
    the answer away.

    Args:
        layout: of the ARM.
        config: see `ForecastingConfig`.
        hidden_features: of the ARM.

    Raises:
        InputError: a value of the config is out of range, or the ARM offers no hidden features.
    """

    mask_in: Tensor
    mask_noise: Tensor
    mask_out: Tensor

    def __init__(self, layout: Layout, config: ForecastingConfig, hidden_features: int) -> None:
        super().__init__()
        _check(layout, config, hidden_features)
        self.layout, self.config, self.hidden_features = layout, config, hidden_features
        self.unit_dims = layout.channels if config.unit == "pixel" else 1
        horizon, channels = config.horizon, layout.channels
        inputs = channels * (hidden_features + ("x" in config.inputs) * layout.categories)
        outputs = channels * layout.categories
        self.inward = nn.Linear(len(TAPS) * inputs, horizon * config.filters)
        self.outward = nn.Conv2d(horizon * config.filters, horizon * outputs, 1, groups=horizon)
        seen, kept, said = (channel_groups(n, channels) for n in (inputs, config.filters, outputs))
        if config.unit == "pixel":  # a whole pixel is forecast from whole pixels before it
            here, across = torch.zeros(len(kept), len(seen)).bool(), torch.ones(len(said), len(kept)).bool()
        else:
            here, across = may_see(kept, seen, strict=True), may_see(said, kept, strict=False)
        before = torch.ones_like(here).repeat(1, len(TAPS) - 1)
        if "noise" in config.inputs:
            heard, groups = self.unit_dims * layout.categories, channels // self.unit_dims
            bound = (horizon * heard) ** -0.5
            shape = (groups, heard, horizon, horizon, config.filters // groups)  # window before module
            self.noise_in = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.register_buffer("mask_noise", torch.ones(horizon, horizon).triu()[:, :, None], persistent=False)
        self.register_buffer("mask_in", torch.cat([before, here], 1).repeat(horizon, 1), persistent=False)
        self.register_buffer("mask_out", across.repeat(horizon, 1)[:, :, None, None], persistent=False)

    def forward(
        self,
        hidden: Float[Tensor, "batch dims features"],
        x: Int[Tensor, "batch dims"] | None = None,
        noise: Float[Tensor, "batch dims categories"] | None = None,
    ) -> Float[Tensor, "batch units horizon unit_dims categories"]:
        """The logits that each module gives at each unit; [:, m, t - 1] forecasts the unit m + t - 1.

        Args:
            hidden: of the ARM at x.
            x: the sequence; needed when "x" is among the inputs.
            noise: standard Gumbel noise with argmax(logits + noise) == x; needed when "noise" is among the inputs.
        """
        layout, (filters, taps) = self.layout, (self.config.filters, len(TAPS))
        if self.config.detach_hidden:
            hidden = hidden.detach()
        maps = hidden.reshape(len(hidden), layout.height, layout.width, -1).permute(0, 3, 1, 2)
        weight = (self.inward.weight * self.mask_in).view(self.config.horizon * filters, taps, -1).transpose(1, 2)
        kernel = F.pad(weight, (0, 1)).unflatten(2, (2, 3))  # the sixth tap, right of the pixel, sees nothing
        of_hidden, of_x = kernel.unflatten(1, (layout.channels, -1)).tensor_split([self.hidden_features], dim=2)
        grown = F.conv2d(maps, of_hidden.flatten(1, 2), self.inward.bias, padding=1)
        grown = crop(grown, layout.height, layout.width)
        if "x" in self.config.inputs:
            values = layout.unflatten(_given("x", x))
            grown = grown + conv_one_hot(values, layout.categories, of_x.flatten(1, 2))
        if "noise" in self.config.inputs:
            units = _given("noise", noise).reshape(len(hidden), layout.dims // self.unit_dims, -1)
            windows = F.pad(units, (0, 0, 1, self.config.horizon - 2)).unfold(1, self.config.horizon, 1)
            grown = grown + self._heard(windows).unflatten(1, (layout.height, -1)).permute(0, 3, 1, 2)
        return self._by_unit(self._outward(grown))

    def at(
        self,
        hidden: Float[Tensor, "slots dims features"],
        frontier: Int[Tensor, " slots"],
        x: Int[Tensor, "slots dims"] | None = None,
        noise: NoiseSource | None = None,
    ) -> Float[Tensor, "slots horizon unit_dims categories"]:
        """`forward`, at the unit of each slot's frontier only: reads a patch of five pixels instead of the image.

        Of x only what lies before the frontier is used, of the noise what the modules read there.
        """
        layout = self.layout
        pixel = frontier.div(layout.channels, rounding_mode="floor").clamp_max(layout.height * layout.width - 1)
        row, column = pixel.div(layout.width, rounding_mode="floor"), pixel % layout.width
        rows, columns = (torch.tensor(offsets, device=pixel.device) for offsets in zip(*TAPS, strict=True))
        rows, columns = row[:, None] + rows, column[:, None] + columns
        inside = (rows >= 0) & (columns >= 0) & (columns < layout.width)
        dims = torch.where(inside, rows * layout.width + columns, 0)[:, :, None] * layout.channels
        dims = (dims + torch.arange(layout.channels, device=dims.device)).flatten(1)
        taken = hidden.gather(1, dims[:, :, None].expand(-1, -1, hidden.shape[-1]))
        patch = self._read(taken, x.gather(1, dims) if x is not None else None)
        patch = patch.view(*inside.shape, -1) * inside[:, :, None]
        grown = F.linear(patch.flatten(1), self.inward.weight * self.mask_in, self.inward.bias)
        if "noise" in self.config.inputs:
            grown = grown + self._heard(self._windows_at(_given("noise", noise), pixel))[:, 0]
        said = self._outward(grown[:, :, None, None]).view(len(hidden), self.config.horizon, layout.channels, -1)
        if self.config.unit == "pixel":
            return said
        channel = (frontier % layout.channels)[:, None, None, None].expand(-1, said.shape[1], 1, said.shape[3])
        return said.gather(2, channel)

    def _read(self, hidden: Tensor, x: Tensor | None) -> Tensor:
        """(batch, dims, features): hidden features, and the values behind them if they are read."""
        if "x" not in self.config.inputs:
            return hidden
        values = _given("x", x)
        hot = hidden.new_zeros(*values.shape, self.layout.categories).scatter_(2, values.unsqueeze(2), 1)
        return torch.cat([hidden, hot], dim=2)

    def _windows_at(self, noise: NoiseSource, pixel: Tensor) -> Tensor:
        """(slots, units of the pixel, heard, horizon): the noise from the unit before each one on; 0 outside."""
        groups, horizon, width = self.layout.channels // self.unit_dims, self.config.horizon, self.unit_dims
        ahead = torch.arange(-1, horizon - 1, device=pixel.device)
        unit = (pixel * groups)[:, None, None] + torch.arange(groups, device=pixel.device)[:, None] + ahead
        inside = (unit >= 0) & (unit < self.layout.dims // width)
        dims = torch.where(inside, unit, 0)[..., None] * width + torch.arange(width, device=pixel.device)
        slots = torch.arange(len(pixel), device=pixel.device)[:, None, None, None].expand_as(dims)
        heard = noise.at(slots.flatten(), dims.flatten()).view(*inside.shape, -1)
        return (heard * inside[..., None]).transpose(2, 3)

    def _heard(self, windows: Tensor) -> Tensor:
        """What windows (batch, units, heard, horizon) add to the modules: (batch, pixels, horizon * filters)."""
        by_pixel = windows.unflatten(1, (-1, self.noise_in.shape[0]))
        heard = torch.einsum("bpgdj,gdjtf->bptgf", by_pixel, self.noise_in * self.mask_noise)
        return heard.flatten(2)

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


def _given(name: str, value: Given | None) -> Given:
    """An input that is read, or an InputError if it was left out."""
    if value is None:
        raise InputError(f"these forecasting modules read {name}: pass it beside the hidden features")
    return value


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
    if tuple(config.inputs) not in INPUTS:
        valid = ", ".join(str(list(inputs)) for inputs in INPUTS)
        raise InputError(f"forecasting: inputs must be one of {valid}, got {list(config.inputs)}")
    if config.pairs not in ("posterior", "model"):
        raise InputError(f"forecasting: pairs must be 'posterior' or 'model', got {config.pairs!r}")
    if hidden_features < 1:
        raise InputError("forecasting modules read the ARM's hidden features, and this ARM offers none")
