"""What a PixelCNN does between its convolutions, with gradients written out.

A plain composition of torch functions gives the same values. On a CPU it takes twice the time: the gradient of a slice
is filled in the default memory format and has to be reordered, gradients of halves are concatenated anew, and
`elu([x, -x])` takes an exponential where half of them are known to be linear. This module knows no convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Rows = Float[Tensor, "_ _"]  # (entries, features)
Maps = Float[Tensor, "_ _ _ _"]  # (batch, features, height, width)
Margin = tuple[int, int, int]  # left, right, above
SMALL = 4096
"""Elements below which a CPU spares time by fewer operations rather than by fewer exponentials."""


def crop(x: Maps, height: int, width: int) -> Maps:
    """The first `height` rows and `width` columns, as a view."""
    return x if x.shape[2:] == (height, width) else _Crop.apply(x, height, width)


def concat_elu(x: Maps, *, dropout: float = 0.0, by_map: bool = True, margin: Margin = (0, 0, 0)) -> Maps:
    """elu([x, -x]): twice the features (the nonlinearity of Table 1).

    Args:
        x: any maps.
        dropout: rate in [0, 1) of the result, drawn from torch's generator.
        by_map: drop whole maps, or elements.
        margin: columns of zeros to put on its left and right and rows to put above it.
    """
    return _ConcatElu.apply(x, dropout, by_map, margin)


def concat_elu_of_rows(x: Rows) -> Rows:
    """The same for rows of features, without gradients."""
    if x.shape[0] == 0:
        return x.new_empty(0, 2 * x.shape[1])
    if x.device.type != "cpu" or x.numel() < SMALL:
        return F.elu_(torch.cat([x, -x], dim=1))
    below = _exp_minus_one_below(x)
    return torch.cat([torch.maximum(x, below), torch.maximum(-x, below)], dim=1)


def gated(x: Maps, both: Maps) -> Maps:
    """x + p * sigmoid(q), where p and q are the two halves of `both`."""
    return _Gated.apply(x, both)


class _Crop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        ctx.shape = x.shape
        return x[:, :, :height, :width]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        height, width = grad.shape[2:]
        whole = _like(grad, ctx.shape)
        whole[:, :, :height, :width] = grad
        whole[:, :, height:] = 0
        whole[:, :, :height, width:] = 0
        return whole, None, None


class _ConcatElu(torch.autograd.Function):
    """elu(x) = max(x, e) and elu(-x) = max(-x, e) with the same e = exp(-|x|) - 1; only the result is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float, by_map: bool, margin: Margin) -> Tensor:
        batch, features, height, width = x.shape
        left, right, above = margin
        whole = _like(x, (batch, 2 * features, above + height, left + width + right))
        if any(margin):
            for border in (whole[:, :, :above], whole[..., :left], whole[..., left + width :]):
                border.zero_()
        ctx.inside = (..., slice(above, None), slice(left, left + width))
        first, second = whole[ctx.inside].chunk(2, dim=1)
        below = _exp_minus_one_below(x)
        torch.maximum(x, below, out=first)
        torch.maximum(-x, below, out=second)
        kept = None
        if dropout > 0:
            kept = x.new_empty((batch, 2 * features, 1, 1)) if by_map else torch.empty_like(whole)
            whole.mul_(kept.bernoulli_(1 - dropout).div_(1 - dropout))
        ctx.save_for_backward(whole, kept)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        whole, kept = ctx.saved_tensors
        if kept is None:
            both = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, whole)
        else:  # elu' is 1, or elu + 1 below zero; times the factor it is this, also where the factor is 0
            both = whole + kept
            torch.minimum(both, kept, out=both).mul_(grad)
        first, second = both[ctx.inside].chunk(2, dim=1)
        return first - second, None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, both: Tensor) -> Tensor:
        p, q = both.chunk(2, dim=1)
        gate = q.clone(memory_format=torch.channels_last).sigmoid_()  # of the strided half it takes three times as long
        ctx.save_for_backward(both, gate)
        return torch.addcmul(x, p, gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        both, gate = ctx.saved_tensors
        result = _like(both, both.shape)
        of_p, of_q = result.chunk(2, dim=1)
        torch.mul(grad, gate, out=of_p)
        torch.mul(torch.addcmul(of_p, of_p, gate, value=-1), both.chunk(2, dim=1)[0], out=of_q)
        return grad, result


def _exp_minus_one_below(x: Tensor) -> Tensor:
    """exp(-|x|) - 1."""
    if x.device.type == "cpu" and x.dtype == torch.float32:  # 1 / sigmoid(a) = 1 + exp(-a), in half the time of exp
        return x.abs().sigmoid_().reciprocal_().sub_(2)
    return x.abs().neg_().expm1_()


def _like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor of another shape, channels last."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
