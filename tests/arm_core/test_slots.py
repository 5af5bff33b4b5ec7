import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_many, sample_noise, stream_samples
from arm_core.forecasters import fixed_point, fixed_point_above, row_above, zeros
from tests.conftest import TableArm

LAYOUT = Layout(2, 3, 3, 3)


def alone(arm, sample_id, forecaster, seed=0):
    noise = sample_noise(arm.layout, seed=seed, sample_ids=[sample_id], dtype=torch.float64)
    return predictive_sample(arm, noise, forecaster)


class CountingArm(TableArm):
    """Counts its evaluations, and the images in them."""

    calls = images = 0

    def forward(self, x):
        self.calls += 1
        self.images += len(x)
        return super().forward(x)


@pytest.mark.slow
@given(st.integers(0, 7), st.integers(1, 9), st.integers(0, 50), st.sampled_from([None, fixed_point, zeros, row_above]))
def test_neither_slots_nor_order_change_a_sample_or_its_trace(count, slots, first_id, forecaster):
    arm = TableArm(LAYOUT, seed=first_id)
    trace = sample_many(arm, count=count, seed=0, slots=slots, forecaster=forecaster, first_id=first_id)
    assert trace.x.shape == (count, LAYOUT.dims)
    for row in range(count):
        expected = alone(arm, first_id + row, forecaster or fixed_point_above)
        for name in ("x", "arm_calls", "converged_at", "settled_at", "mistakes"):
            assert torch.equal(getattr(trace, name)[row], getattr(expected, name)[0]), name


def test_the_samples_are_the_ancestral_ones():
    arm = TableArm(LAYOUT)
    noise = sample_noise(LAYOUT, seed=4, sample_ids=range(6), dtype=torch.float64)
    assert torch.equal(sample_many(arm, count=6, seed=4, slots=2).x, ancestral_sample(arm, noise).x)


def test_nothing_waits_so_work_is_what_the_samples_need():
    arm = CountingArm(LAYOUT)
    trace = sample_many(arm, count=20, seed=0, slots=4)
    assert trace.arm_work.sum() == arm.images == trace.arm_calls.sum()


def test_samples_come_as_they_finish_and_the_rest_is_not_computed_before():
    arm = CountingArm(LAYOUT)
    stream = stream_samples(arm, count=1000, seed=0, slots=2)
    assert arm.calls == 0
    first = next(stream)
    assert arm.calls == int(first.trace.arm_calls[0])
    assert first.sample_id in (0, 1)
    second = next(stream)
    assert second.trace.x.shape == (1, LAYOUT.dims)
    assert arm.calls < 100


def test_the_callers_modes_are_untouched_between_samples():
    arm = TableArm(LAYOUT)
    arm.train()
    for _ in stream_samples(arm, count=3, seed=0, slots=2):
        assert arm.training
        assert not torch.is_inference_mode_enabled()


def test_no_samples_need_no_call():
    arm = CountingArm(LAYOUT)
    assert sample_many(arm, count=0, seed=0, slots=3).x.shape == (0, LAYOUT.dims)
    assert arm.calls == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count must be a whole number of at least 0, got -1"),
        ({"slots": 0}, "slots must be a whole number of at least 1, got 0"),
        ({"slots": True}, "slots must be a whole number of at least 1, got True"),
        ({"first_id": -1}, "first_id must be a whole number of at least 0, got -1"),
        ({"prefix": torch.zeros(1, 3, 3).long()}, r"layout\.flatten\(images\)\[:, : layout\.dims // 2\]"),
        ({"window": 4}, "CountingArm has no cached windows"),
        ({"window": 0}, "window must be a whole number of at least 1"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"prefix": torch.zeros(3, 4).long()}, r"prefix must have shape .* \(2, at most 18\), got \(3, 4\)"),
        ({"prefix": torch.full((4,), 3)}, r"prefix must hold categories in \[0, 2\], got 3 to 3"),
        ({"prefix": torch.zeros(4)}, "prefix must hold integers"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        sample_many(CountingArm(LAYOUT), **{"count": 2, "seed": 0, "slots": 2, **options})


def test_the_whole_image_may_be_asked_for_by_its_size():
    assert sample_many(TableArm(LAYOUT), count=1, seed=0, slots=1, window=LAYOUT.dims).x.shape == (1, LAYOUT.dims)


@pytest.mark.parametrize("layout", [Layout(1, 4, 4, 5), Layout(3, 4, 4, 5)])
def test_completions_keep_the_upper_half_whatever_the_channels(layout):
    images = torch.randint(layout.categories, (1, layout.channels, 4, 4))
    half = layout.flatten(images)[0, : layout.dims // 2]
    done = layout.unflatten(sample_many(CountingArm(layout), count=3, seed=0, slots=2, prefix=half).x)
    assert torch.equal(done[:, :, :2], images[:, :, :2].expand(3, -1, -1, -1))
