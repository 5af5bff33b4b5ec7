"""Certified samples are those of ancestral sampling in float64, whatever drew them."""

import copy

import pytest
import torch

from arm_core import (
    InputError,
    KeyedNoise,
    Layout,
    ancestral_sample,
    predictive_sample,
    sample_many,
    sample_noise,
    top_k,
)
from arm_core.arms import Guided, PixelCNN, PixelCNNConfig
from arm_core.contracts import SpanOutput
from arm_core.forecasters import fixed_point
from arm_core.samplers import cached_sequential_sample, certified, gs_jacobi_sample, jacobi_gs_sample, jacobi_sample
from arm_core.testing import randomise
from benchmarks.certified import OFFSET, forecasters, near_ties
from tests.conftest import ContextArm, SpanTableArm, TableSpans

LAYOUT = Layout(3, 4, 4, 64)
COUNT, SEED = 24, 5


def in_float64(arm, count=COUNT, noise=None, **options):
    noise = (
        sample_noise(arm.layout, seed=SEED, sample_ids=range(count), dtype=torch.float64) if noise is None else noise
    )
    return ancestral_sample(copy.deepcopy(arm).double(), noise, **options).x


@pytest.fixture(scope="module")
def arm():
    return near_ties(LAYOUT)


@pytest.fixture(scope="module")
def expected(arm):
    return in_float64(arm)


def test_the_arm_is_one_that_needs_a_proof(arm, expected):
    with torch.inference_mode():
        assert (arm(expected).logits - OFFSET).std() > 10
    plain = sample_many(arm, count=COUNT, seed=SEED, slots=8)
    assert (plain.x != expected).any(1).sum() >= 4 and not plain.repairs.any()


@pytest.mark.slow
@pytest.mark.parametrize("draft_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("slots", "window"), [(1, 12), (7, None), (24, 1), (64, LAYOUT.dims)])
def test_certified_streams_are_the_float64_samples(arm, expected, slots, window, draft_dtype):
    how = {"slots": slots, "window": window, "draft_dtype": draft_dtype}
    count = COUNT if slots > 1 else 6
    trace = sample_many(arm, count=count, seed=SEED, certified=True, **how)
    assert torch.equal(trace.x, expected[:count])
    assert (trace.repairs > 0).sum() >= count / 6
    assert (trace.converged_at.diff(dim=1) >= 0).all()
    assert (trace.converged_at[:, -1] == trace.arm_calls).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", forecasters(near_ties(LAYOUT)))
def test_whatever_forecasts(arm, expected, name, dtype):
    how = {"slots": 8, "window": 12, "forecaster": forecasters(arm)[name], "draft_dtype": dtype}
    assert torch.equal(sample_many(arm, count=8, seed=SEED, certified=True, **how).x, expected[:8])


def test_weights_of_16_bits_are_those_that_count():
    arm = near_ties(LAYOUT).bfloat16()
    assert torch.equal(sample_many(arm, count=8, seed=SEED, slots=8, certified=True).x, in_float64(arm, 8))


@pytest.mark.slow
def test_batches_and_the_samplers_of_other_papers(arm, expected):
    keyed = KeyedNoise(LAYOUT, seed=SEED, sample_ids=range(4))
    runs = [
        predictive_sample(arm, keyed, fixed_point, certified=True),
        predictive_sample(arm, keyed, fixed_point, window=12, certified=True, draft_dtype=torch.bfloat16),
        predictive_sample(arm, keyed.to(torch.float64).dense(), fixed_point, certified=True),
        jacobi_sample(arm, keyed, certified=True),
        gs_jacobi_sample(arm, keyed, block=12, certified=True, draft_dtype=torch.bfloat16),
        jacobi_gs_sample(arm, keyed, block=12, certified=True),
        cached_sequential_sample(arm, keyed, certified=True),
    ]
    for trace in runs:
        assert torch.equal(trace.x, expected[:4])
    noise = keyed.dense()
    drawn = predictive_sample(arm, noise, fixed_point, certified=True)  # noise in a tensor counts as it is
    assert torch.equal(drawn.x, in_float64(arm, noise=noise.double()))


@pytest.mark.slow
def test_all_that_decides_rows_is_part_of_the_proof():
    arm = near_ties(LAYOUT, classes=3)
    guided = Guided(arm, scale=2.0, null_context=-1)
    count, context = 4, torch.arange(4) - 1
    for options in (
        {"temperature": 0.5, "logits_processor": top_k(3)},
        {"prefix": torch.arange(2 * 4).view(4, 2), "temperature": 0},
        {"prefix": torch.zeros(4, LAYOUT.dims - 1).long()},
        {"prefix": torch.zeros(4, LAYOUT.dims).long()},
    ):
        for each in (arm, guided):
            expected = in_float64(each, count, context=context, **options)
            got = sample_many(
                each, count=count, seed=SEED, slots=3, window=12, context=context, certified=True, **options
            )
            assert torch.equal(got.x, expected)


def test_samples_that_end_are_proved_up_to_their_end(arm, expected):
    ends = [int(expected[0, 20]), 7]
    plain = sample_many(copy.deepcopy(arm).double(), count=COUNT, seed=SEED, slots=6, window=12, end=ends)
    got = sample_many(arm, count=COUNT, seed=SEED, slots=6, window=12, end=ends, certified=True)
    assert torch.equal(got.x, plain.x)


def test_a_proof_in_float32_gives_the_samples_of_whole_float32_passes(arm):
    trace = sample_many(arm, count=8, seed=SEED, slots=8, certified=torch.float32, draft_dtype=torch.bfloat16)
    noise = sample_noise(LAYOUT, seed=SEED, sample_ids=range(8))
    with torch.inference_mode():
        assert torch.equal((arm(trace.x).logits + noise).argmax(-1), trace.x)


def test_contexts_reach_the_proof():
    arm = ContextArm(Layout(1, 3, 4, 3))
    contexts = [[k, 1] for k in range(5)]
    got = sample_many(arm, count=5, seed=SEED, slots=2, window=3, context=contexts, certified=True)
    assert torch.equal(got.x, in_float64(arm, 5, context=contexts))
    assert (got.repairs == 0).all()


@pytest.mark.slow
def test_a_bound_proves_what_was_close_and_spares_the_rest(monkeypatch):
    monkeypatch.setattr(certified, "CALIBRATED", 8)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=12)).eval()
    randomise(arm, scale=0.2)
    with torch.no_grad():
        arm.head.bias += 2.0**12  # a resolution of 1/2048: some decisions are as close
    options = {"count": 96, "seed": SEED, "slots": 8, "window": 12}
    plain, trace = sample_many(arm, **options), sample_many(arm, certified="bound", **options)
    spared = trace.arm_work < plain.arm_work + 0.5
    assert 0 < spared.sum() < 88 and not trace.repairs[spared].any()
    assert torch.equal(trace.x, sample_many(copy.deepcopy(arm).double(), **options).x)
    with pytest.raises(InputError, match="certified='bound' knows nothing of processors"):
        sample_many(arm, certified="bound", logits_processor=top_k(2), **options)


class FaultySpans(TableSpans):
    """Gives one row in `RARE` of the samples of a slot logits that are not the ARM's."""

    RARE, seen = 300, 0

    def evaluate(self, x, start, stop):
        where, logits, hidden, work = super().evaluate(x, start, stop)
        rows = torch.arange(FaultySpans.seen, FaultySpans.seen + len(where))
        FaultySpans.seen += len(where)
        return SpanOutput(where, torch.where(rows[:, None] % self.RARE == 0, logits.flip(1), logits), hidden, work)


class FaultyArm(SpanTableArm):
    def span_cache(self, slots, window):
        return FaultySpans(self, slots, window)


def test_a_fault_of_a_span_cache_is_caught_repaired_and_named():
    arm = FaultyArm(Layout(1, 5, 6, 5), granule=1)
    expected = in_float64(arm, 40)
    plain = sample_many(arm, count=40, seed=SEED, slots=4, window=6)
    wrong = (plain.x != expected).any(1)
    FaultySpans.seen = 0
    trace = sample_many(arm, count=40, seed=SEED, slots=4, window=6, certified=True)
    assert wrong.any() and torch.equal(trace.x, expected)
    assert ((trace.repairs > 0) >= wrong).all()
    first = (plain.x != expected).int().argmax(1)[wrong]
    assert (trace.overruled[wrong, first] > 1e-3).all(), "where, and by more than rounding could"


def test_work_is_that_of_the_draft_a_pass_a_proof_and_the_repairs(arm):
    plain = sample_many(arm, count=COUNT, seed=SEED, slots=8, window=12)
    trace = sample_many(arm, count=COUNT, seed=SEED, slots=8, window=12, certified=True)
    right, extra = trace.repairs == 0, trace.arm_work - plain.arm_work
    assert right.any() and torch.allclose(extra[right], torch.ones(1).double(), atol=0.2)
    assert (extra[~right] > 1.9).all() and torch.equal(trace.arm_calls[right], plain.arm_calls[right])


def test_nothing_is_copied_or_changed_that_is_the_callers(arm):
    before = {name: value.clone() for name, value in arm.state_dict().items()}
    trace = sample_many(arm.train(), count=0, seed=0, slots=2, certified=True)
    assert trace.x.shape == (0, LAYOUT.dims) and trace.repairs.shape == (0,)
    sample_many(arm, count=2, seed=0, slots=2, certified=True, draft_dtype=torch.bfloat16)
    assert arm.training and all(torch.equal(value, before[name]) for name, value in arm.state_dict().items())
    arm.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft_dtype": torch.bfloat16}, "draft_dtype=torch.bfloat16 .*; add certified=True"),
        ({"certified": True, "draft_dtype": torch.int32}, "draft_dtype must be a floating type, got torch.int32"),
        ({"certified": torch.float16}, "certified must be True, False, .*, got torch.float16"),
    ],
)
def test_what_cannot_be_proved_is_refused(arm, options, message):
    with pytest.raises(InputError, match=message):
        sample_many(arm, count=1, seed=0, slots=1, **options)
    with pytest.raises(InputError, match=message):
        predictive_sample(arm, sample_noise(LAYOUT, seed=0, sample_ids=[0]), fixed_point, **options)
