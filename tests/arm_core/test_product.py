"""Products of rows by oneDNN and by `addmm`, and what is filled up for them."""

import pytest
import torch

from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.layout import Layout
from arm_core.product import ENOUGH, Linear, Product, is_prepared, linear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 40)], ids=["no-bias", "bias"])
def test_both_libraries_give_the_same_product(bias):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(96, 40, generator=generator)
    product, exact = Product(matrix, bias), Product(matrix.double(), None if bias is None else bias.double())
    for count in (1, ENOUGH // matrix.numel() + 1):
        rows = torch.randn(count, 96, generator=generator)
        torch.testing.assert_close(product(rows), exact(rows.double()).float(), rtol=1e-5, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize("turned", [False, True], ids=["outputs-first", "features-first"])
def test_a_linear_layer_is_that_of_torch_in_sums_and_in_gradients(turned):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 40, generator=generator).T if turned else torch.randn(40, 96, generator=generator)
    bias, x = torch.randn(40, generator=generator), torch.randn(2, ENOUGH // weight.numel(), 96, generator=generator)
    expected = torch.nn.functional.linear(x, weight, bias)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), expected, rtol=1e-5, atol=1e-4)
        exact = linear(x.double(), weight.double(), bias.double())
    assert torch.equal(exact, torch.nn.functional.linear(x.double(), weight.double(), bias.double()))
    layer = Linear(96, 40)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=(0, 1)).expand(40, -1), rtol=1e-4, atol=1e-3)


@needs_onednn
def test_only_float32_on_a_cpu_is_handed_to_onednn():
    assert is_prepared(torch.zeros(1))
    for other in (
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.bfloat16),
        torch.zeros(1, device="meta"),
    ):
        assert not is_prepared(other)


@needs_onednn
def test_spans_that_are_filled_up_are_those_of_the_whole_image():
    """Enough filters and slots that oneDNN does most of it, and counts that have to be rounded up."""
    torch.manual_seed(0)
    arm = PixelCNN(Layout(1, 12, 12, 3), PixelCNNConfig(resnets=1, filters=48, dropout=0.0)).eval()
    slots, window = 9, 17
    x = torch.randint(0, 3, (slots, 144))
    spans, padded = PixelCNNSpans(arm, slots, window), False
    with torch.inference_mode():
        expected = arm(x).logits.flatten(0, 1)
        start = torch.zeros(slots, dtype=torch.int64)
        while bool((start < 144).any()):
            stop = (start + torch.randint(1, window + 1, (slots,))).clamp_max(144)
            found = spans.evaluate(x, start, stop)
            real = found.where < slots * 144
            padded |= not bool(real.all())
            assert int(real.sum()) == int((stop - start).sum())
            torch.testing.assert_close(found.logits[real], expected[found.where[real]], rtol=1e-4, atol=1e-5)
            start = stop
    assert padded
