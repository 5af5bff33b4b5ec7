"""An end token: a sample that reaches it is finished, is the ancestral one up to there, and frees its slot."""

import pytest
import torch

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_many, sample_noise
from arm_core.forecasters import fixed_point, zeros
from tests.conftest import SpanTableArm

LAYOUT, COUNT = Layout(1, 1, 24, 5), 8


@pytest.fixture(scope="module")
def arm():
    return SpanTableArm(LAYOUT, granule=1)


@pytest.fixture(scope="module")
def noise():
    return sample_noise(LAYOUT, seed=0, sample_ids=range(COUNT), dtype=torch.float64)


def ended(x, ends):
    """Ancestral samples, with the first end token of each in place of what follows; and how long each is."""
    x, lengths = x.clone(), []
    for row in x:
        first = next((i for i, value in enumerate(row.tolist()) if value in ends), len(row) - 1)
        if int(row[first]) in ends:
            row[first:] = row[first].item()
        lengths.append(first + 1)
    return x, lengths


@pytest.mark.parametrize("ends", [3, [0], [2, 3]], ids=str)
@pytest.mark.parametrize("window", [None, 1, 5])
def test_samples_are_the_ancestral_ones_up_to_their_end_token(arm, noise, ends, window):
    expected, lengths = ended(ancestral_sample(arm, noise).x, [ends] if isinstance(ends, int) else ends)
    assert min(lengths) < max(lengths)
    batch = predictive_sample(arm, noise, fixed_point, window=window, end=ends)
    stream = sample_many(arm, count=COUNT, seed=0, slots=3, window=window, end=ends)
    for trace in (batch, stream):
        assert torch.equal(trace.x, expected)
        assert all(calls <= length for calls, length in zip(trace.arm_calls.tolist(), lengths, strict=True))
        assert (trace.converged_at.diff(dim=1) >= 0).all() and (trace.settled_at <= trace.converged_at).all()
        assert torch.equal(trace.converged_at[:, -1], trace.arm_calls)
        assert not any(row[length:].any() for row, length in zip(trace.mistakes, lengths, strict=True))


def test_a_sample_that_ends_frees_its_slot(arm, noise):
    _, lengths = ended(ancestral_sample(arm, noise).x, [3])
    trace = sample_many(arm, count=COUNT, seed=0, slots=1, window=1, forecaster=zeros, end=3)
    assert trace.arm_calls.tolist() == lengths
    assert trace.arm_work.sum().item() == pytest.approx(sum(lengths) / LAYOUT.dims)


def test_an_end_token_in_the_prefix_ends_the_sample(arm):
    trace = sample_many(arm, count=2, seed=0, slots=2, window=5, prefix=torch.tensor([1, 3, 0]), end=3)
    assert trace.x.tolist() == [[1] + [3] * 23] * 2


@pytest.mark.parametrize("end", [5, -1, True, [1, 9]], ids=str)
def test_an_end_token_that_is_no_category_is_refused(arm, noise, end):
    with pytest.raises(InputError, match=r"end must be a category in \[0, 4\], or several"):
        predictive_sample(arm, noise, zeros, end=end)
