"""Convolutions of one-hot images without one-hot images."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from arm_core import Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.causal_conv import FEW, CausalConv2d
from arm_core.forecasters import ForecastingConfig, ForecastingModules


class LargestFloats(TorchDispatchMode):
    """Records the bytes and the addresses of all floating tensors that come out of an operation."""

    def __init__(self):
        super().__init__()
        self.sizes, self.places = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.sizes.append(value.untyped_storage().nbytes())
                self.places.append(value.untyped_storage().data_ptr())
        return result


@pytest.mark.parametrize(("channels", "categories"), [(1, 2), (1, 40), (3, 5), (3, 20)])
@pytest.mark.parametrize("kernel", [(2, 3), (1, 3), (2, 1), (2, 2), (1, 1)])
@pytest.mark.parametrize("with_ones", [True, False])
def test_looking_up_columns_is_convolving_one_hot_maps(channels, categories, kernel, with_ones):
    torch.manual_seed(0)
    inputs = channels * categories + with_ones
    conv = CausalConv2d(inputs, 7, kernel, bias=with_ones).double()
    values = torch.randint(categories, (2, channels, 5, 6))
    hot = F.one_hot(values, categories).permute(0, 1, 4, 2, 3).flatten(1, 2).double()
    maps = torch.cat([hot, torch.ones_like(hot[:, :1])], dim=1) if with_ones else hot
    found = []
    for said in (conv(maps), conv.of_one_hot(values, categories)):
        gradients = torch.autograd.grad(said.sin().sum(), list(conv.parameters()))
        found.append([said, *gradients])
    for plain, looked_up in zip(*found, strict=True):
        torch.testing.assert_close(looked_up, plain, rtol=1e-12, atol=1e-12)


def test_both_ways_are_tested_above():
    assert 3 * 5 + 1 <= FEW < 40


def test_a_masked_tap_is_not_looked_up():
    torch.manual_seed(0)
    visible = torch.tensor([[True] * 40 + [False] * 40] * 4)
    conv = CausalConv2d(80, 4, (1, 1), bias=False, here=visible)
    values = torch.randint(40, (1, 2, 4, 4))
    other = torch.stack([values[:, 0], (values[:, 1] + 1) % 40], dim=1)
    assert torch.equal(conv.of_one_hot(values, 40), conv.of_one_hot(other, 40))


def test_256_categories_need_no_one_hot_images():
    """The stem of the paper's size at batch 64, forwards and backwards: 42 MB a stream, where one-hot images take 201."""
    layout, batch = Layout(3, 32, 32, 256), 64
    stem = PixelCNN(layout, PixelCNNConfig(resnets=1)).stem
    values = torch.randint(layout.categories, (batch, 3, 32, 32))
    with LargestFloats() as floats:
        streams = stem(values)
        (streams.u.maps + streams.ul.maps).backward(torch.ones_like(streams.u.maps))
    assert max(floats.sizes) <= 4 * batch * 33 * 33 * 162 < 4 * batch * layout.dims * layout.categories // 4


@pytest.mark.parametrize("inputs", [("hidden",), ("hidden", "x")])
def test_only_logits_are_as_large_as_one_hot_images(inputs):
    layout, batch = Layout(3, 8, 8, 256), 2
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=6))
    modules = ForecastingModules(layout, ForecastingConfig(1, 6, inputs=inputs), arm.hidden_features)
    x = torch.randint(layout.categories, (batch, layout.dims))
    with LargestFloats() as floats:
        output = arm(x)
        forecasts = modules(output.hidden, x)
    one_hot_bytes = 4 * batch * layout.dims * layout.categories
    large = {place for size, place in zip(floats.sizes, floats.places, strict=True) if size >= one_hot_bytes}
    assert large == {output.logits.data_ptr(), forecasts.data_ptr()}
