import torch

from arm_core.latents import codebook_usage, straight_through


def test_the_value_is_one_hot_and_the_gradient_that_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    codes = straight_through(logits)
    assert torch.equal(codes.argmax(-1), logits.argmax(-1))
    assert codes.unique().tolist() == [0.0, 1.0]
    (got,) = torch.autograd.grad((codes * weight).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_usage_counts_each_channels_categories_by_themselves():
    constant = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert codebook_usage(constant, 8) == (1 / 8, 1.0)
    every = torch.arange(8).view(1, 1, 2, 4).repeat(1, 2, 1, 1)
    used, perplexity = codebook_usage(every, 8)
    assert used == 1.0
    assert abs(perplexity - 8) < 1e-9
