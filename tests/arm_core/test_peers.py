"""The samplers of others: the same samples, in as many calls as theory says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import fixed_point
from arm_core.samplers import cached_sequential_sample, gs_jacobi_sample, jacobi_gs_sample, jacobi_sample
from arm_core.testing import randomise
from tests.conftest import ConstantArm, SpanTableArm, TableArm

LAYOUTS = [Layout(1, 8, 4, 3), Layout(3, 4, 4, 2)]


def noise_for(arm, count=3, seed=0):
    return sample_noise(arm.layout, seed=seed, sample_ids=range(count), dtype=torch.float64)


def pixelcnn(layout):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=12)).double()
    randomise(arm)
    return arm


@pytest.mark.slow
@given(
    st.sampled_from([Layout(1, 3, 4, 3), Layout(2, 3, 3, 2), Layout(3, 2, 2, 3)]),
    st.integers(0, 1000),
    st.integers(1, 20),
)
def test_every_peer_gives_the_ancestral_samples(layout, seed, block):
    arm = SpanTableArm(layout, layout.channels, seed)
    noise = noise_for(arm, seed=seed)
    expected = ancestral_sample(arm, noise).x
    for trace in (
        jacobi_sample(arm, noise),
        gs_jacobi_sample(arm, noise, block=block),
        jacobi_gs_sample(arm, noise, block=block),
        cached_sequential_sample(arm, noise),
    ):
        assert torch.equal(trace.x, expected)
        assert (trace.converged_at.diff(dim=1) >= 0).all()
        assert (trace.settled_at >= 1).all() and (trace.settled_at <= trace.converged_at).all()
        assert (trace.converged_at[:, -1] <= trace.arm_calls).all()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_peers_sample_a_pixelcnn_exactly_on_its_cache(layout):
    arm = pixelcnn(layout)
    expected = ancestral_sample(arm, noise_for(arm)).x
    for block in (1, 5, 12, 1000):
        assert torch.equal(gs_jacobi_sample(arm, noise_for(arm), block=block).x, expected)
        assert torch.equal(jacobi_gs_sample(arm, noise_for(arm), block=block).x, expected)
    assert torch.equal(cached_sequential_sample(arm, noise_for(arm)).x, expected)


@given(st.integers(0, 1000))
def test_jacobi_is_fixed_point_iteration_and_a_call_to_see_that_nothing_changes(seed):
    arm = TableArm(Layout(1, 3, 4, 3), seed)
    theirs, ours = (run(arm, noise_for(arm)) for run in (jacobi_sample, lambda *a: predictive_sample(*a, fixed_point)))
    assert torch.equal(theirs.settled_at, ours.settled_at)
    extra = theirs.arm_calls - ours.arm_calls
    assert ((extra == 0) | (extra == 1)).all()


def test_the_samples_of_a_batch_pay_for_its_slowest():
    arm = TableArm(Layout(1, 3, 4, 3), 1)
    trace = jacobi_sample(arm, noise_for(arm, 5))
    assert trace.arm_work.sum().item() == pytest.approx(5 * trace.arm_calls.max().item())


def test_constant_logits_take_two_sweeps_of_every_block():
    arm = ConstantArm(Layout(1, 2, 6, 2), torch.tensor([0.0, 50.0], dtype=torch.float64))
    noise = noise_for(arm)
    assert jacobi_sample(arm, noise).arm_calls.tolist() == [2, 2, 2]
    assert jacobi_gs_sample(arm, noise, block=4).arm_calls.tolist() == [8, 8, 8]
    assert (jacobi_gs_sample(arm, noise, block=99).arm_calls == 24).all()


def test_cached_sequential_sampling_takes_a_call_a_dimension_and_one_full_pass_for_one_channel():
    arm = pixelcnn(LAYOUTS[0])
    trace = cached_sequential_sample(arm, noise_for(arm))
    assert trace.arm_calls.tolist() == [32, 32, 32]
    assert trace.arm_work.tolist() == pytest.approx([1.0] * 3)
    assert torch.equal(trace.settled_at, torch.arange(1, 33).expand(3, -1))


def test_blocks_of_one_dimension_take_a_call_or_two_each():
    arm = SpanTableArm(Layout(1, 3, 4, 3), 1)
    calls = gs_jacobi_sample(arm, noise_for(arm, 1), block=1).arm_calls.item()
    x = ancestral_sample(arm, noise_for(arm, 1)).x
    assert calls == 12 + (x != 0).sum().item()  # zero is what a block starts from


def test_an_empty_batch_takes_no_call():
    arm = SpanTableArm(Layout(1, 3, 4, 3), 1)
    for run in (jacobi_sample, cached_sequential_sample):
        assert run(arm, noise_for(arm, 0)).x.shape == (0, 12)


def test_blocks_that_are_none_are_refused():
    arm = SpanTableArm(Layout(1, 3, 4, 3), 1)
    for run in (gs_jacobi_sample, jacobi_gs_sample):
        with pytest.raises(InputError, match="at least 1"):
            run(arm, noise_for(arm), block=0)


def test_caching_peers_need_an_arm_with_spans():
    arm = TableArm(Layout(1, 3, 4, 3))
    for run in (cached_sequential_sample, lambda *args: gs_jacobi_sample(*args, block=4)):
        with pytest.raises(InputError, match="span_cache"):
            run(arm, noise_for(arm))
