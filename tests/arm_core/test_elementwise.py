"""What lies between the convolutions equals the plain composition of torch functions, gradients included."""

import pytest
import torch
import torch.nn.functional as F

from arm_core.elementwise import SMALL, concat_elu, concat_elu_of_rows, crop, gated


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values.to(memory_format=torch.channels_last).requires_grad_()


def plain_concat_elu(x, margin):
    left, right, above = margin
    return F.pad(F.elu(torch.cat([x, -x], dim=1)), (left, right, above, 0))


@pytest.mark.parametrize("margin", [(0, 0, 0), (1, 1, 1), (1, 0, 1)])
def test_concat_elu_is_elu_of_both_signs(margin):
    x = maps(2, 3, 4, 5)
    torch.testing.assert_close(concat_elu(x, margin=margin), plain_concat_elu(x, margin), rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: concat_elu(x, margin=margin), (x,))


def test_concat_elu_is_as_good_in_float32_where_another_formula_is_faster():
    x = torch.linspace(-20, 20, 4001).view(1, 1, 1, -1)
    exact = plain_concat_elu(x.double(), (0, 0, 0))
    assert (concat_elu(x) - exact).abs().max().item() < 4 * torch.finfo(torch.float32).eps
    assert torch.equal(concat_elu(x)[:, 0].sign(), x.sign()[:, 0])


@pytest.mark.parametrize("rows", [1, SMALL // 8 - 1, SMALL // 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_concat_elu_of_rows_is_that_of_maps_whatever_their_number(rows, dtype):
    x = torch.linspace(-20, 20, 8 * rows, dtype=dtype).view(rows, 8)
    as_maps = concat_elu(x.T[None, :, :, None].contiguous(memory_format=torch.channels_last))[0, :, :, 0].T
    torch.testing.assert_close(concat_elu_of_rows(x), as_maps, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("by_map", [True, False])
def test_dropout_scales_what_it_keeps_and_its_gradient(by_map):
    x, margin = maps(4, 6, 5, 5), (1, 1, 1)
    plain = plain_concat_elu(x, margin).detach()

    def dropped(x):
        torch.manual_seed(7)
        return concat_elu(x, dropout=0.25, by_map=by_map, margin=margin)

    factors = torch.where(plain == 0, 0.0, dropped(x).detach() / plain)
    kept = factors > 0
    torch.testing.assert_close(factors[kept], torch.full_like(factors[kept], 4 / 3))
    inside = kept[:, :, 1:, 1:-1]
    assert bool(kept.any()) and not bool(inside.all())
    whole = inside.flatten(2).float().mean(dim=2)
    assert bool(((whole == 0) | (whole == 1)).all()) == by_map
    assert torch.autograd.gradcheck(dropped, (x,))


def test_dropout_keeps_the_expected_share_of_maps():
    torch.manual_seed(0)
    kept = concat_elu(torch.ones(400, 25, 1, 1), dropout=0.3) != 0
    # 20,000 draws: the standard deviation of the share is 0.0033, and five of them are exceeded once in a million times
    assert abs(kept.float().mean().item() - 0.7) < 5 * 0.0033


def test_a_gate_is_the_plain_one():
    x, both = maps(2, 3, 4, 5), maps(2, 6, 4, 5, seed=1)
    p, q = both.chunk(2, dim=1)
    torch.testing.assert_close(gated(x, both), x + p * q.sigmoid())
    assert torch.autograd.gradcheck(gated, (x, both))


@pytest.mark.parametrize("extent", [(4, 5), (3, 5), (4, 4), (2, 3)])
def test_a_crop_passes_its_gradient_to_what_it_kept(extent):
    x = maps(2, 3, 4, 5)
    assert torch.equal(crop(x, *extent), x[:, :, : extent[0], : extent[1]])
    assert torch.autograd.gradcheck(lambda x: crop(x, *extent), (x,))
