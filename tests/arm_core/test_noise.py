"""Noise as a source: the bits of `sample_noise` wherever they are asked for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, KeyedNoise, Layout, predictive_sample, sample_many, sample_noise
from arm_core.forecasters import fixed_point
from arm_core.gumbel import _key
from arm_core.philox import philox_bits, signed
from arm_core.samplers import work
from tests.conftest import ConstantArm, SpanTableArm, work_of

KEYS = st.integers(0, 2**64 - 1)


@given(KEYS, KEYS, st.integers(0, 5000), st.integers(1, 40))
def test_bits_in_torch_operations_are_those_of_numpy(seed, sample_id, first, count):
    expected = np.random.Philox(key=np.array([seed, sample_id], np.uint64)).random_raw(first + count)[first:]
    ids, firsts = torch.tensor([signed(sample_id), 7]), torch.tensor([first, 3])
    got = philox_bits(seed, ids, firsts, count)[0].numpy().view(np.uint64)
    assert np.array_equal(got, expected)


@given(
    st.builds(Layout, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(2, 30)),
    KEYS,
    st.lists(KEYS, min_size=1, max_size=4),
    st.data(),
)
def test_noise_that_is_asked_for_is_that_of_the_whole_tensor(layout, seed, ids, data):
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=12))
    first = data.draw(st.integers(0, layout.dims - 1))
    dims = [(first + step) % layout.dims for step in range(len(rows))]  # runs and jumps
    rows, dims = torch.tensor(rows, dtype=torch.int64), torch.tensor(dims, dtype=torch.int64)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        whole = sample_noise(layout, seed=seed, sample_ids=ids, dtype=dtype)
        keyed = KeyedNoise(layout, seed=seed, sample_ids=ids, dtype=dtype)
        assert torch.equal(keyed.at(rows, dims), whole[rows, dims])
        assert torch.equal(keyed.dense(), whole)
    single = KeyedNoise(layout, seed=seed, sample_ids=ids)
    assert torch.equal(single._on_device(rows, dims), single.at(rows, dims))  # the bits are made on a GPU so


def test_ids_of_a_range_take_no_memory_and_wrap_as_unsigned_integers():
    layout = Layout(1, 1, 3, 4)
    ids = range(2**63 - 1, 2**63 + 2)
    keyed = KeyedNoise(layout, seed=1, sample_ids=ids)
    rows, dims = torch.arange(3), torch.tensor([0, 2, 1])
    expected = sample_noise(layout, seed=1, sample_ids=list(ids))[rows, dims]
    assert torch.equal(keyed.at(rows, dims), expected)
    assert torch.equal(keyed._on_device(rows, dims), expected)
    assert len(KeyedNoise(layout, seed=1, sample_ids=range(10**15))) == 10**15


def test_the_largest_bits_give_finite_noise(monkeypatch):
    """The centre of the last of 2^53 intervals rounds up to 1, whose noise would be infinite."""
    layout = Layout(1, 1, 1, 4)
    noise = KeyedNoise(layout, seed=0, sample_ids=[0], dtype=torch.float64)

    class Ones:
        def __init__(self, **_):
            pass

        def random_raw(self, count):
            return np.full(count, 2**64 - 1, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Ones)
    assert noise.dense().tolist() == [[[-math.log(-math.log(1 - 2.0**-53))] * 4]]


def test_tail_mass_is_that_of_a_gumbel():
    """P(noise > 10) over four million draws, within five standard deviations (a false failure in 2 of a million)."""
    noise = sample_noise(Layout(1, 32, 32, 1024), seed=5, sample_ids=range(4))
    count, p = noise.numel(), -math.expm1(-math.exp(-10))
    assert abs(int((noise > 10).sum()) - count * p) < 5 * math.sqrt(count * p)


def test_slots_and_windows_make_the_noise_where_they_need_it(monkeypatch):
    arm = SpanTableArm(Layout(1, 3, 4, 3), 1)
    expected = sample_many(arm, count=5, seed=0, slots=2).x
    monkeypatch.setattr(work, "DENSE_BYTES", 0)
    monkeypatch.setitem(work.DECIDED_AT_ONCE, "cpu", 7)
    for window in (1, 5, 12, None):
        assert torch.equal(sample_many(arm, count=5, seed=0, slots=2, window=window).x, expected)
    keyed = KeyedNoise(arm.layout, seed=0, sample_ids=range(5), dtype=torch.float64)
    assert torch.equal(predictive_sample(arm, keyed, fixed_point).x, expected)


def test_nothing_dense_is_kept_at_many_categories():
    layout = Layout(1, 24, 24, 16_384)
    arm = ConstantArm(layout, torch.zeros(1, 1, 1).expand(1, 576, 16_384))
    keyed = KeyedNoise(layout, seed=0, sample_ids=range(64))
    held = work.Work(arm, 64, work.WholeImages(arm), fixed_point, keyed, work.Decision())
    held.begin(list(range(64)), list(range(64)))
    tensors = [value for value in vars(held).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 4e6
    assert held.noise._dense is None and not held.state.readings


def test_what_a_forecaster_reads_is_kept_from_the_first_call_on_and_not_before():
    arm = SpanTableArm(Layout(1, 3, 4, 3), 1)
    noise = sample_noise(arm.layout, seed=0, sample_ids=range(2), dtype=torch.float64)
    started = work_of(arm, noise, fixed_point)
    assert not started.state.logits.any() and set(started.state.readings) == {"logits"}
    from arm_core.samplers.step import step

    step(started, *started.spans())
    assert started.state.logits.any()
    with pytest.raises(InputError, match="keeps no margins: read state.margins in the first call"):
        _ = started.state.margins


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"seed must be in \[0, 2\^64\), got -1"),
        ({"seed": True}, "seed must be an integer in"),
        ({"sample_ids": torch.tensor([0.0])}, "sample id must be an integer in"),
        ({"sample_ids": [2**64]}, "sample id must be in"),
        ({"sample_ids": range(2**64 - 1, 2**64 + 1)}, "sample id must be in"),
        ({"dtype": torch.int64}, "must be a floating type"),
    ],
)
def test_keys_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        KeyedNoise(Layout(1, 1, 1, 2), **{"seed": 0, "sample_ids": [0], **options})


def test_a_key_that_is_no_integer_is_refused_and_not_rounded():
    with pytest.raises(InputError, match=r"seed must be an integer in \[0, 2\^64\), got 1.9"):
        _key("seed", 1.9)


@pytest.mark.parametrize(("rows", "dims"), [([0, 2], [0, 0]), ([0, -1], [0, 0]), ([0, 1], [3, 4])])
def test_noise_beyond_the_samples_is_refused_and_not_made_up(rows, dims):
    keyed = KeyedNoise(Layout(1, 1, 4, 2), seed=0, sample_ids=[5, 6])
    with pytest.raises(InputError, match=r"(rows must be in \[0, 1\]|dims must be in \[0, 3\]), got"):
        keyed.at(torch.tensor(rows), torch.tensor(dims))


def test_ids_may_be_a_tensor():
    layout = Layout(1, 1, 2, 2)
    expected = sample_noise(layout, seed=0, sample_ids=[0, 1])
    assert torch.equal(sample_noise(layout, seed=0, sample_ids=torch.arange(2)), expected)


@pytest.mark.parametrize("ids", [torch.arange(2), torch.arange(2, dtype=torch.int32), (0, 1), range(2)])
def test_ids_may_come_in_any_sequence_of_integers(ids):
    layout = Layout(1, 4, 4, 2)
    assert torch.equal(sample_noise(layout, seed=0, sample_ids=ids), sample_noise(layout, seed=0, sample_ids=[0, 1]))
