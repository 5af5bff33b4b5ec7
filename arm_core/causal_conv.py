"""Causal, channel-masked convolutions: the bricks of PixelCNN and of the forecasting modules.

A row of an output never reads a row below it. Of the current row, a kernel of width 2 or 1 reads nothing to the
right; kernels of width 3 are for streams that hold earlier rows only. What a kernel may see of the current pixel is
a matter of channel groups: features are split into one group a channel, and group g knows the channels up to g.

Feature maps are (batch, features, height, width) in channels-last memory: the flat order of `Layout` is then a view
(paper app. A.1: channels fastest), and CPU convolutions are up to four times faster than in the default format.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from arm_core.elementwise import Maps, Margin, crop

Groups = Int[Tensor, "_"]  # (features,)

FEW = 32
"""Up to so many maps are cheaper convolved than looked up."""
FREE = -1  # the group of features that hold earlier rows only: every group may see them


def channel_groups(features: int, channels: int) -> Groups:
    """The group of every feature: `channels` equal blocks."""
    return torch.arange(features, device="cpu") // (features // channels)


def may_see(out_groups: Int[Tensor, " out"], in_groups: Int[Tensor, " in"], *, strict: bool) -> Bool[Tensor, "out in"]:
    """Mask A (`strict`: groups before one's own) or mask B (one's own too), as (out, in)."""
    return in_groups < out_groups[:, None] if strict else in_groups <= out_groups[:, None]


class CausalConv2d(nn.Module):
    """A convolution that reads the current row and `height - 1` rows above it.

    A kernel of width 3 is centred on the current column; one of width 2 ends there. Zeros pad the image. With stride 2
    output (i, j) belongs to the input pixel (2i, 2j).

    Args:
        inputs, outputs: features.
        kernel: (height, width).
        stride: 1 or 2; both extents must then be even.
        bias: whether there is one.
        here: (outputs, inputs) mask of the tap on the current pixel, which is the last one of a kernel of width 1 or 2;
            None: everything is visible.
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        bias: bool = True,
        here: Bool[Tensor, "out in"] | None = None,
    ) -> None:
        super().__init__()
        like = nn.Conv2d(inputs, outputs, kernel, bias=bias)  # for its initialisation
        self.weight, self.bias, self.stride = like.weight, like.bias, stride
        self.padding = (kernel[0] - 1, kernel[1] // 2)
        self.margin: Margin = (kernel[1] // 2, (kernel[1] - 1) // 2, kernel[0] - 1)
        mask = None
        if here is not None and not here.all():
            mask = torch.ones_like(self.weight, dtype=torch.bool)
            mask[:, :, -1, -1] = here
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """The weight, zero where it must not see."""
        return _masked(self.weight, self.mask)

    def of_padded(self, x: Maps) -> Maps:
        """The convolution of maps that have their `margin` of zeros already, with stride 1: nothing to pad or crop."""
        return F.conv2d(x, self.masked_weight(), self.bias)

    def of_one_hot(self, values: Int[Tensor, "batch channels height width"], categories: int) -> Maps:
        """The convolution of one-hot maps; see `conv_one_hot`."""
        return conv_one_hot(values, categories, self.masked_weight(), self.bias)

    def forward(self, x: Maps) -> Maps:
        weight = self.masked_weight()
        height, width = (extent // self.stride for extent in x.shape[2:])
        # Padding inside the convolution and cropping what it adds below and to the right spares a padded copy of x.
        return crop(F.conv2d(x, weight, self.bias, self.stride, self.padding), height, width)


class CausalConvTranspose2d(nn.Module):
    """A transposed convolution of stride 2 that undoes the geometry of a strided `CausalConv2d`.

    Input (i, j) knows what lies before the pixel (2i, 2j); it is spread over rows 2i and 2i + 1, over the columns
    2j and 2j + 1, and 2j - 1 as well with a kernel of width 3. Weights are (in, out, height, width).

    Args:
        inputs, outputs: features.
        kernel: (2, 2) or (2, 3).
        here: (outputs, inputs) mask of the tap on the pixel (2i, 2j) itself; None: everything is visible.
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        here: Bool[Tensor, "out in"] | None = None,
    ) -> None:
        super().__init__()
        like = nn.ConvTranspose2d(inputs, outputs, kernel)  # for its initialisation
        self.weight, self.bias = like.weight, like.bias
        self.beyond = kernel[1] - 2  # 1 for a kernel that also reaches one column to the left
        mask = None
        if here is not None and not here.all():
            mask = torch.ones_like(self.weight, dtype=torch.bool)
            mask[:, :, 0, 0] = here.T
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """The weight, zero where it must not see."""
        return _masked(self.weight, self.mask)

    def forward(self, x: Maps) -> Maps:
        margin = (0, self.beyond)
        return F.conv_transpose2d(x, self.masked_weight(), self.bias, stride=2, padding=margin, output_padding=margin)


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    return weight if mask is None else torch.where(mask, weight, 0)  # a product would first copy the mask to floats


def conv_one_hot(
    values: Int[Tensor, "batch channels height width"],
    categories: int,
    weight: Float[Tensor, "outputs inputs kernel_height kernel_width"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Maps:
    """The convolution of one-hot maps (channel-major) without the maps: a sum of looked-up columns of the weight.

    It reads the current row and those above it and is padded with zeros, like `CausalConv2d`.

    Args:
        values: of every pixel and channel.
        categories: how many values there are.
        weight: one input for every channel and category; one more, the last, is that of a map of ones.
        bias: or None.
    """
    if weight.shape[1] <= FEW:
        return _conv_few(values, categories, weight, bias)
    (batch, channels, height, width), (outputs, inputs, rows, columns) = values.shape, weight.shape
    hot = channels * categories
    table = weight[:, :hot].unflatten(1, (channels, categories))
    if inputs > hot:  # every pixel of the image has one value of the first channel
        table = torch.cat([table[:, :1] + weight[:, -1:, None], table[:, 1:]], dim=1)
    table = table.permute(3, 4, 1, 2, 0).flatten(0, 3)
    beside = (columns // 2, (columns - 1) // 2, rows - 1, 0)
    seen = F.pad(values, beside, value=-1).unfold(2, rows, 1).unfold(3, columns, 1).permute(0, 2, 3, 4, 5, 1).flatten(3)
    first = torch.arange(seen.shape[-1], device=values.device) * categories
    index = torch.where(seen < 0, len(table), seen + first).flatten(0, 2)
    looked_up = F.embedding_bag(index, F.pad(table, (0, 0, 0, 1)), mode="sum")  # the row of zeros is the padding
    maps = looked_up if bias is None else looked_up + bias
    return maps.view(batch, height, width, outputs).permute(0, 3, 1, 2)


def _conv_few(values: Tensor, categories: int, weight: Tensor, bias: Tensor | None) -> Maps:
    """`conv_one_hot` by what it stands for."""
    (_, _, height, width), (_, inputs, rows, columns) = values.shape, weight.shape
    hot = F.one_hot(values, categories).permute(0, 1, 4, 2, 3).flatten(1, 2).to(weight.dtype)
    maps = torch.cat([hot, torch.ones_like(hot[:, : inputs - hot.shape[1]])], dim=1)
    maps = maps.contiguous(memory_format=torch.channels_last)
    return crop(F.conv2d(maps, weight, bias, padding=(rows - 1, columns // 2)), height, width)


def shift_down(x: Maps) -> Maps:
    """Row h gets what row h - 1 had; zeros enter at the top."""
    return F.pad(x, (0, 0, 1, -1))


def shift_right(x: Maps) -> Maps:
    """Column w gets what column w - 1 had; zeros enter at the left."""
    return F.pad(x, (1, -1, 0, 0))
