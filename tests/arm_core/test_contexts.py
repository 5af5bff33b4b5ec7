"""Conditions: one context a sample, in every sampler; and guidance by them."""

import pytest
import torch

from arm_core import (
    InputError,
    Layout,
    ancestral_sample,
    predictive_sample,
    sample_many,
    sample_noise,
    stream_samples,
    top_k,
)
from arm_core.arms import Guided
from arm_core.forecasters import fixed_point, predict_last
from arm_core.samplers import cached_sequential_sample, gs_jacobi_sample, jacobi_gs_sample, jacobi_sample
from arm_core.testing import arm_checks, check_contexts, check_windows
from tests.conftest import ContextArm, SpanTableArm, TableArm

LAYOUT = Layout(2, 2, 3, 4)
COUNT = 6
CONTEXTS = {
    "tensor": torch.tensor([0, 1, 2, 3, 4, 1]),
    "rows of a tensor": torch.tensor([[0, 1], [2, 2], [3, 0], [1, 1], [0, 0], [4, 4]]),
    "lists of any length": [[0], [1, 1], [2, 0, 1], [4], [0, 0], [3]],
}


def arms():
    plain = ContextArm(LAYOUT, 2)
    return {"plain": plain, "guided": Guided(plain, scale=3.0, null_context=2)}


def noise_for(arm):
    return sample_noise(arm.layout, seed=4, sample_ids=range(COUNT), dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "guided"])
@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("processor", [None, top_k(2)], ids=["all", "top_k"])
def test_every_sampler_follows_the_contexts(name, kind, processor):
    arm, context = arms()[name], CONTEXTS[kind]
    options = {"context": context, "logits_processor": processor}
    noise = noise_for(arm)
    expected = ancestral_sample(arm, noise, **options).x
    assert not torch.equal(expected, ancestral_sample(arm, noise, logits_processor=processor).x)
    for window in (None, 2, 5, LAYOUT.dims):
        for forecaster in (fixed_point, predict_last):
            assert torch.equal(predictive_sample(arm, noise, forecaster, window=window, **options).x, expected)
        for slots in (1, 4):
            got = sample_many(arm, count=COUNT, seed=4, slots=slots, window=window, **options)
            assert torch.equal(got.x, expected)
    for peer in (jacobi_sample, cached_sequential_sample):
        assert torch.equal(peer(arm, noise, **options).x, expected)
    assert torch.equal(gs_jacobi_sample(arm, noise, block=4, **options).x, expected)
    assert torch.equal(jacobi_gs_sample(arm, noise, block=4, **options).x, expected)


def test_contexts_belong_to_samples_and_not_to_slots():
    arm, context = ContextArm(LAYOUT, 1), CONTEXTS["tensor"]
    expected = ancestral_sample(arm, noise_for(arm), context=context).x
    for sample_id, trace in stream_samples(arm, count=COUNT, seed=4, slots=3, window=3, context=context):
        assert torch.equal(trace.x[0], expected[sample_id])


def test_guidance_of_one_is_the_context_and_of_none_the_null_context():
    plain, context = ContextArm(LAYOUT, 1), CONTEXTS["tensor"]
    noise = noise_for(plain)
    by_scale = {
        s: ancestral_sample(Guided(plain, scale=s, null_context=2), noise, context=context).x for s in (0, 1, 3)
    }
    assert torch.equal(by_scale[1], ancestral_sample(plain, noise, context=context).x)
    assert torch.equal(by_scale[0], ancestral_sample(plain, noise, context=torch.full((COUNT,), 2)).x)
    assert not torch.equal(by_scale[3], by_scale[1])
    without = ancestral_sample(Guided(plain, scale=3, null_context=2), noise).x
    assert torch.equal(without, ancestral_sample(plain, noise).x)


def test_guided_spans_give_the_logits_of_a_pass_for_the_work_of_one():
    arm = Guided(ContextArm(LAYOUT, 2), scale=2.5, null_context=0)
    check_windows(arm)
    check_contexts(arm)
    trace = cached_sequential_sample(arm, noise_for(arm), context=CONTEXTS["tensor"])
    assert trace.arm_work.tolist() == pytest.approx([2.0] * COUNT)  # each of the two channels evaluates its pixel


def test_what_a_context_rules_out_stays_ruled_out():
    arm = Guided(ContextArm(LAYOUT), scale=3, null_context=0)
    own, null = torch.tensor([[0.0, -torch.inf, -torch.inf]]), torch.tensor([[-torch.inf, -torch.inf, 1.0]])
    assert arm.guided(own, null).tolist() == [[-torch.inf] * 3]
    assert arm.guided(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [[-2.0, -2.0]]


def test_the_checks_cover_contexts():
    names = [name for name, _ in arm_checks(lambda layout: ContextArm(layout), [Layout(1, 2, 2, 2)])]
    assert any("own context" in name for name in names)
    names = [name for name, _ in arm_checks(lambda layout: SpanTableArm(layout, 1), [Layout(1, 2, 2, 2)])]
    assert not any("own context" in name for name in names)


class Mixed(ContextArm):
    """Wrong: every sample reads the context of the first one."""

    def forward(self, x, context=None):
        return super().forward(x, None if context is None else [context[0]] * len(x))


def test_an_arm_that_mixes_its_contexts_up_is_found_out():
    with pytest.raises(AssertionError, match="context 1 alone: 1 of 1 samples differ"):
        check_contexts(Mixed(LAYOUT))


@pytest.mark.parametrize(
    ("arm", "context", "message"),
    [
        (TableArm(LAYOUT), CONTEXTS["tensor"], "TableArm takes no context"),
        (ContextArm(LAYOUT), torch.arange(5), "one context per sample, 6 in all, got 5"),
        (ContextArm(LAYOUT), torch.tensor(5), "6 in all, got a single one"),
        (ContextArm(LAYOUT), [], "6 in all, got 0"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(arm, context, message):
    for sample in (
        lambda: ancestral_sample(arm, noise_for(arm), context=context),
        lambda: predictive_sample(arm, noise_for(arm), fixed_point, context=context),
        lambda: sample_many(arm, count=COUNT, seed=0, slots=2, context=context),
        lambda: jacobi_sample(arm, noise_for(arm), context=context),
    ):
        with pytest.raises(InputError, match=message):
            sample()


def test_the_scale_of_guidance_must_be_finite():
    with pytest.raises(InputError, match="must be finite, got nan"):
        Guided(ContextArm(LAYOUT), scale=float("nan"), null_context=0)
