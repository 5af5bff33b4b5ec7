"""Samplers by drafts and ratios: what they keep of a sampler's promises; their law is tested in benchmarks/test_law."""

import pytest
import torch

from arm_core import InputError, Layout, ancestral_sample, sample_noise, scd_sample, sjd_sample
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import row_above
from arm_core.samplers import pac_sample
from arm_core.testing import randomise
from tests.conftest import ConstantArm, ContextArm, SpanTableArm

LAYOUT = Layout(2, 3, 4, 3)
SAMPLERS = {
    "sjd": sjd_sample,
    "gumbel": scd_sample,
    "maximal": lambda arm, **options: scd_sample(arm, coupling="maximal", **options),
    "pac": pac_sample,
}
each = pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
in_slots = pytest.mark.parametrize("slots", [None, 3], ids=["lock-step", "slots"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@each
@in_slots
@pytest.mark.parametrize("window", [1, 5, 24])
def test_a_cache_gets_what_it_is_promised_and_the_trace_holds_together(sample, slots, window):
    arm = SpanTableArm(LAYOUT, 2)
    trace = sample(arm, batch=7, generator=seeded(), window=window, slots=slots)
    assert trace.x.shape == (7, 24) and (trace.x < 3).all()
    assert (trace.converged_at.diff(dim=1) >= 0).all()
    assert torch.equal(trace.converged_at[:, -1], trace.arm_calls)
    assert (trace.arm_calls <= 24).all()
    one_call = (trace.converged_at[:, :1] == trace.converged_at).sum(dim=1)
    assert (one_call <= -(-window // 2) * 2).all()


@each
@in_slots
def test_at_temperature_0_there_is_one_sample(sample, slots):
    arm, noise = SpanTableArm(LAYOUT, 2), sample_noise(LAYOUT, seed=0, sample_ids=range(5), dtype=torch.float64)
    expected = ancestral_sample(arm, noise, temperature=0).x
    trace = sample(arm, batch=5, generator=seeded(), window=8, slots=slots, temperature=0)
    assert torch.equal(trace.x, expected)


@each
@in_slots
def test_a_prefix_is_completed_and_contexts_follow_their_samples(sample, slots):
    arm, contexts = ContextArm(LAYOUT, 2), torch.arange(5)
    prefix = torch.randint(3, (5, 7), generator=seeded())
    options = {"prefix": prefix, "context": contexts, "temperature": 0}
    noise = sample_noise(LAYOUT, seed=0, sample_ids=range(5), dtype=torch.float64)
    trace = sample(arm, batch=5, generator=seeded(), window=6, slots=slots, **options)
    assert torch.equal(trace.x[:, :7], prefix)
    assert torch.equal(trace.x, ancestral_sample(arm, noise, **options).x)


@each
def test_drafts_of_an_arm_that_forgets_are_never_rejected(sample):
    """Constant logits: p = q from the second call on, so that a window costs two calls at most."""
    layout = Layout(1, 4, 8, 4)
    arm = ConstantArm(layout, torch.randn(1, 32, 4, generator=seeded(), dtype=torch.float64))
    trace = sample(arm, batch=50, generator=seeded(), window=32)
    assert (trace.arm_calls <= 2).all()


def test_couplings_need_fewer_calls_than_independent_drafts_and_slots_fewer_than_lock_step():
    arm = SpanTableArm(Layout(1, 4, 8, 3), 1)
    arm.table *= 0.5
    calls = {
        (name, slots): sample(arm, batch=64, generator=seeded(), window=16, slots=slots).arm_calls.double().mean()
        for name, sample in SAMPLERS.items()
        for slots in (None, 64)
    }
    for name in ("gumbel", "maximal"):
        assert calls[name, 64] < calls["sjd", 64]
    assert calls["pac", 64] < calls["maximal", 64], "several drafts beside one"
    for name in SAMPLERS:
        assert calls[name, 64] < calls[name, None]


@each
def test_a_first_guess_from_the_row_above_is_what_the_first_call_is_fed(sample):
    layout = Layout(1, 3, 4, 3)
    arm = SpanTableArm(layout, 1)
    prefix = torch.tensor([[1, 2, 0, 1]])
    trace = sample(arm, batch=1, generator=seeded(), window=4, prefix=prefix, first=row_above, temperature=0)
    first = trace.converged_at[0, 4:8] == 2  # the prefix takes a call
    assert torch.equal((trace.x[0, 4:8] != prefix[0])[first], trace.mistakes[0, 4:8][first])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pixelcnn_is_sampled_on_its_cache(dtype):
    arm = PixelCNN(Layout(3, 8, 4, 4), PixelCNNConfig(resnets=1, filters=12)).to(dtype)
    randomise(arm)
    for sample in SAMPLERS.values():
        lock_step = sample(arm, batch=6, generator=seeded(), window=12)
        slots = sample(arm, batch=6, generator=seeded(), window=12, slots=3)
        for trace in (lock_step, slots):
            assert (trace.converged_at[:, -1] == trace.arm_calls).all() and (trace.arm_work < 96).all()


@each
def test_what_is_drawn_depends_on_the_generator_only(sample):
    arm = SpanTableArm(LAYOUT, 2)
    first, again, other = (sample(arm, batch=4, generator=seeded(seed), window=6).x for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@each
def test_an_empty_batch_takes_no_call_and_what_does_not_fit_is_refused(sample):
    arm = SpanTableArm(LAYOUT, 2)
    assert sample(arm, batch=0, generator=seeded(), window=4).x.shape == (0, 24)
    assert sample(arm, batch=0, generator=seeded(), window=4, slots=2).x.shape == (0, 24)
    with pytest.raises(InputError, match="batch must be at least 0 and slots, if any, at least 1, got -1"):
        sample(arm, batch=-1, generator=seeded(), window=4)
    with pytest.raises(InputError, match="branches must be a whole number of at least 1, got 0"):
        pac_sample(arm, batch=1, generator=seeded(), window=4, branches=0)
    with pytest.raises(InputError, match="window must be a whole number of at least 1, got 0"):
        sample(arm, batch=1, generator=seeded(), window=0)
    with pytest.raises(InputError, match="leaves no category of dimension 0"):
        sample(arm, batch=1, generator=seeded(), window=4, logits_processor=lambda rows: rows - torch.inf)


@pytest.mark.parametrize(
    ("option", "why"), [("temprature", "valid: prefix, temperature"), ("certified", "in law only")]
)
@each
def test_an_option_that_is_none_is_refused_not_ignored(sample, option, why):
    arm = SpanTableArm(LAYOUT, 2)
    with pytest.raises(TypeError, match=why):
        sample(arm, batch=1, generator=seeded(), window=8, **{option: True})
