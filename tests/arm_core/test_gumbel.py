import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout, posterior_gumbel, sample_noise

LAYOUT = Layout(1, 2, 2, 3)


def test_the_draws_are_pinned():
    noise = sample_noise(LAYOUT, seed=10, sample_ids=[3], dtype=torch.float64)
    golden = [-0.10784498872820887, 0.6531657726106411, 1.509586270946479]
    torch.testing.assert_close(noise[0, 0], torch.tensor(golden, dtype=torch.float64), rtol=1e-12, atol=0)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(0, 2**64 - 1))
def test_a_row_depends_on_seed_and_sample_id_alone(ids, seed):
    together = sample_noise(LAYOUT, seed=seed, sample_ids=ids)
    for row, sample_id in enumerate(ids):
        assert torch.equal(together[row], sample_noise(LAYOUT, seed=seed, sample_ids=[sample_id])[0])


def test_another_dtype_is_a_rounding_of_the_same_draw():
    double = sample_noise(LAYOUT, seed=0, sample_ids=[0], dtype=torch.float64)
    assert torch.equal(double.float(), sample_noise(LAYOUT, seed=0, sample_ids=[0]))


def test_noise_has_the_moments_of_a_standard_gumbel():
    noise = sample_noise(Layout(1, 32, 32, 64), seed=0, sample_ids=range(4), dtype=torch.float64)  # 262,144 draws
    assert abs(noise.mean() - 0.5772157) < 0.0125  # five standard errors
    assert abs(noise.var() - math.pi**2 / 6) < 0.04
    assert torch.isfinite(noise).all()


def test_no_samples_give_empty_noise():
    assert sample_noise(LAYOUT, seed=0, sample_ids=[]).shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("seed", "ids", "dtype"), [(-1, [0], torch.float32), (0, [2**64], torch.float32), (0, [0], torch.int64)]
)
def test_impossible_arguments_are_refused(seed, ids, dtype):
    with pytest.raises(InputError, match="must be"):
        sample_noise(LAYOUT, seed=seed, sample_ids=ids, dtype=dtype)


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 30.0, 1e4]), st.sampled_from([torch.float32, torch.float64]))
def test_posterior_noise_always_leads_back_to_x(seed, scale, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=dtype) * scale
    x = (logits + sample(logits, generator)).argmax(-1)  # possible under the logits, at any scale
    noise = posterior_gumbel(logits, x, generator=generator)
    assert torch.equal((logits + noise).argmax(-1), x)
    assert torch.isfinite(noise).all()


def sample(logits, generator):
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return -(-uniform.log()).log().to(logits.dtype)


def test_posterior_noise_is_marginally_standard_when_x_comes_from_the_model():
    generator = torch.Generator().manual_seed(0)
    count = 200_000
    logits = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().expand(count, 3)
    x = torch.multinomial(logits[0].exp(), count, replacement=True, generator=generator)
    noise = posterior_gumbel(logits, x, generator=generator)
    # Five standard errors of the mean (0.0143) and of the variance: false failures in fewer than one run in 10^5.
    torch.testing.assert_close(noise.mean(0), torch.full((3,), 0.5772157, dtype=torch.float64), atol=0.0144, rtol=0)
    torch.testing.assert_close(noise.var(0), torch.full((3,), math.pi**2 / 6, dtype=torch.float64), atol=0.04, rtol=0)


def test_impossible_categories_get_plain_noise_and_impossible_data_an_error():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.0, -torch.inf]])
    assert torch.isfinite(posterior_gumbel(logits, torch.tensor([0]), generator=generator)).all()
    with pytest.raises(InputError, match="probability 0"):
        posterior_gumbel(logits, torch.tensor([1]), generator=generator)
