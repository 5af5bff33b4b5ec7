"""Theory first: what is known of every sampler, whatever the model."""

import itertools
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig, TransformersConfig
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    LearnedForecaster,
    fixed_point,
    predict_last,
    row_above,
    zeros,
)
from arm_core.forecasters.modules import INPUTS
from arm_core.gumbel import DenseNoise
from arm_core.registry import ARMS, FORECASTERS
from arm_core.samplers.mode import sampling_mode
from arm_core.testing import SMALL_LAYOUTS, check_exact, randomise
from tests.conftest import ConstantArm, TableArm

LAYOUT = Layout(2, 3, 3, 3)


def noise_for(arm, count=3, seed=0):
    return sample_noise(arm.layout, seed=seed, sample_ids=range(count), dtype=torch.float64)


def random_forecasts(state):
    generator = torch.Generator().manual_seed(int(state.known.sum()))
    return torch.randint(-2, state.layout.categories + 2, state.x.shape, generator=generator)  # out of range too


def oracle(x):
    return lambda state: x


def always_wrong(x):
    return lambda state: (x + 1) % state.layout.categories


@given(
    st.builds(Layout, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)),
    st.integers(0, 1000),
    st.sampled_from([zeros, predict_last, row_above, fixed_point, random_forecasts]),
)
def test_a_forecaster_never_changes_the_sample(layout, seed, forecaster):
    arm = TableArm(layout, seed=seed)
    check_exact(arm, forecaster, seed=seed)


SMALL_CONFIGS = {
    "pixelcnn": PixelCNNConfig(resnets=1, filters=12),
    "transformers": TransformersConfig(width=16, heads=2, layers=1),
}


@cache
def registered(arm_name, layout):
    """A small ARM of that name, the noise of two samples, and what ancestral sampling makes of it."""
    arm = ARMS.resolve(arm_name)(layout, SMALL_CONFIGS[arm_name]).double()
    randomise(arm)
    noise = noise_for(arm, count=2)
    return arm, noise, ancestral_sample(arm, noise).x


@pytest.mark.slow
@pytest.mark.parametrize("arm_name", ARMS.names())
@pytest.mark.parametrize("forecaster_name", FORECASTERS.names())
@pytest.mark.parametrize("layout", SMALL_LAYOUTS, ids=lambda layout: f"{layout.channels}-channels")
def test_every_registered_pair_samples_exactly_in_float64(arm_name, forecaster_name, layout):
    arm, noise, expected = registered(arm_name, layout)
    found = FORECASTERS.resolve(forecaster_name)
    if forecaster_name not in ("learned", "gated"):
        trace = predictive_sample(arm, noise, found)
        assert torch.equal(trace.x, expected)
        assert (trace.arm_calls <= layout.dims).all()
        return
    for unit in ("dimension", "pixel"):
        for inputs in INPUTS if forecaster_name == "learned" else INPUTS[::3]:
            config = ForecastingConfig(horizon=3, filters=12, unit=unit, inputs=inputs)
            modules = ForecastingModules(layout, config, arm.hidden_features).double()
            randomise(modules, seed=1)
            assert torch.equal(predictive_sample(arm, noise, found(modules)).x, expected), (unit, inputs)
        other = found(modules, horizon=1, fallback=row_above, mode=True)
        assert torch.equal(predictive_sample(arm, noise, other).x, expected), unit


@pytest.mark.parametrize("layout", [LAYOUT, Layout(1, 1, 1, 2), Layout(1, 5, 2, 4)])
def test_an_oracle_needs_one_call(layout):
    arm = TableArm(layout)
    noise = noise_for(arm)
    x = ancestral_sample(arm, noise).x
    trace = predictive_sample(arm, noise, oracle(x))
    assert trace.arm_calls.tolist() == [1, 1, 1]
    assert not trace.mistakes.any()


@pytest.mark.parametrize("layout", [LAYOUT, Layout(1, 1, 1, 2), Layout(1, 5, 2, 4)])
def test_an_always_wrong_forecaster_needs_a_call_per_dimension(layout):
    arm = TableArm(layout)
    noise = noise_for(arm)
    x = ancestral_sample(arm, noise).x
    trace = predictive_sample(arm, noise, always_wrong(x))
    assert torch.equal(trace.x, x)
    assert trace.arm_calls.tolist() == [layout.dims] * 3
    assert trace.mistakes.all()
    assert torch.equal(trace.converged_at, torch.arange(1, layout.dims + 1).expand(3, -1))


def test_constant_logits_are_a_fixed_point_after_two_calls_or_one_if_all_are_zeros():
    layout = Layout(1, 2, 2, 2)
    arm = ConstantArm(layout, torch.zeros(1, layout.dims, 2, dtype=torch.float64))
    noise = noise_for(arm, count=64)
    trace = predictive_sample(arm, noise, fixed_point)
    lucky = (trace.x[:, :-1] == 0).all(dim=1)
    assert 0 < int(lucky.sum()) < 64
    assert torch.equal(trace.arm_calls, torch.where(lucky, 1, 2))


@given(st.integers(0, 500), st.sampled_from([zeros, predict_last, row_above, fixed_point, random_forecasts]))
def test_calls_exceed_mistakes_by_one_unless_the_last_dimension_was_mistaken(seed, forecaster):
    arm = TableArm(LAYOUT, seed=seed)
    trace = predictive_sample(arm, noise_for(arm, seed=seed), forecaster)
    difference = trace.arm_calls - trace.mistakes.sum(dim=1)
    assert torch.equal(difference, (~trace.mistakes[:, -1]).long())


@given(st.integers(0, 500), st.sampled_from([zeros, fixed_point, random_forecasts]))
def test_traces_are_consistent(seed, forecaster):
    arm = TableArm(LAYOUT, seed=seed)
    trace = predictive_sample(arm, noise_for(arm, seed=seed), forecaster)
    assert (trace.converged_at.diff(dim=1) >= 0).all()
    assert torch.equal(trace.converged_at[:, -1], trace.arm_calls)
    assert (trace.settled_at <= trace.converged_at).all()
    assert (trace.settled_at >= 1).all()
    assert trace.arm_work.sum() == 3 * trace.arm_calls.max()  # the batch waits for its slowest
    assert (trace.arm_work >= trace.arm_calls).all()


def test_arm_work_agrees_with_the_flop_counter():
    arm = PixelCNN(Layout(1, 8, 8, 3), PixelCNNConfig(resnets=1, filters=8)).double()
    randomise(arm)
    noise = noise_for(arm)
    with FlopCounterMode(display=False) as one, torch.inference_mode():
        arm.eval()(torch.zeros(1, 64, dtype=torch.int64))
    with FlopCounterMode(display=False) as all_calls:
        trace = predictive_sample(arm, noise, fixed_point)
    assert trace.arm_work.sum().item() * one.get_total_flops() == pytest.approx(all_calls.get_total_flops(), rel=0.1)


def test_sampling_alone_or_in_a_batch_gives_the_same_sample():
    arm = TableArm(LAYOUT)
    together = predictive_sample(arm, noise_for(arm, count=4), fixed_point)
    for k in range(4):
        alone = sample_noise(LAYOUT, seed=0, sample_ids=[k], dtype=torch.float64)
        assert torch.equal(predictive_sample(arm, alone, fixed_point).x[0], together.x[k])


def test_an_empty_batch_gives_an_empty_trace_without_a_call():
    arm = TableArm(LAYOUT)
    for trace in (ancestral_sample(arm, noise_for(arm, 0)), predictive_sample(arm, noise_for(arm, 0), zeros)):
        assert trace.x.shape == (0, LAYOUT.dims)
        assert trace.arm_calls.shape == (0,)


def test_sampling_restores_the_modes_that_it_changes():
    arm = PixelCNN(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4)).double()
    arm.train()
    arm.stem.eval()
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    try:
        cudnn.benchmark = cudnn.allow_tf32 = True
        with sampling_mode(arm):
            assert not arm.training
            assert not cudnn.benchmark and not cudnn.allow_tf32
            assert torch.is_inference_mode_enabled()
        assert cudnn.benchmark
        assert cudnn.allow_tf32
        assert arm.training
        assert not arm.stem.training
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


def test_dropout_is_off_while_sampling():
    arm = PixelCNN(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4, dropout=0.9)).double()
    randomise(arm)
    arm.train()
    check_exact(arm, fixed_point)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n[:, :-1], r"noise must have shape .* \(batch, 32, 3\)"),
        (lambda n: n.float(), "noise must have the ARM's dtype, torch.float64, got torch.float32"),
    ],
)
def test_noise_that_does_not_fit_is_refused(change, message):
    arm = PixelCNN(Layout(2, 4, 4, 3), PixelCNNConfig(resnets=1, filters=4)).double()
    noise = torch.zeros(2, 32, 3, dtype=torch.float64)
    for sample in (ancestral_sample, lambda arm, noise: predictive_sample(arm, noise, zeros)):
        with pytest.raises(InputError, match=message):
            sample(arm, change(noise))


def test_autocast_is_refused():
    arm = TableArm(LAYOUT)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="autocast"):
        predictive_sample(arm, noise_for(arm), zeros)


@pytest.mark.parametrize("wrong", [lambda s: None, lambda s: s.x[:, :-1], lambda s: s.x.double()])
def test_a_forecaster_that_returns_something_else_is_refused(wrong):
    arm = TableArm(LAYOUT)
    with pytest.raises(InputError, match="a forecaster must return integers"):
        predictive_sample(arm, noise_for(arm), wrong)


@pytest.mark.slow
def test_modules_at_the_frontier_equal_modules_on_the_whole_image():
    for layout in SMALL_LAYOUTS:
        for unit, horizon, inputs in itertools.product(("dimension", "pixel"), (1, 4), INPUTS[::3]):
            config = ForecastingConfig(horizon=horizon, filters=12, unit=unit, inputs=inputs)
            modules = ForecastingModules(layout, config, 5).double()
            randomise(modules)
            generator = torch.Generator().manual_seed(0)
            hidden = torch.randn(2, layout.dims, 5, generator=generator, dtype=torch.float64)
            x = torch.randint(layout.categories, (2, layout.dims), generator=generator)
            noise = sample_noise(layout, seed=0, sample_ids=range(2), dtype=torch.float64)
            whole = modules(hidden, x, noise)
            for n in range(layout.dims):
                at = modules.at(hidden, torch.tensor([n, n]), x, DenseNoise(noise))
                torch.testing.assert_close(at, whole[:, n // modules.unit_dims], rtol=0, atol=1e-12)


def test_a_perfect_module_needs_no_second_call_within_its_horizon():
    layout = Layout(1, 4, 4, 2)
    arm = ConstantArm(layout, torch.zeros(1, 16, 2, dtype=torch.float64))
    arm.hidden_features = 1
    arm.forward = lambda x: (arm.logits.expand(len(x), -1, -1), torch.zeros(len(x), 16, 1, dtype=torch.float64))
    modules = ForecastingModules(layout, ForecastingConfig(horizon=16, filters=1), 1).double()
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.zero_()  # equal logits, as the ARM's: noise alone decides, and it is the same noise
    trace = predictive_sample(arm, noise_for(arm), LearnedForecaster(modules))
    assert trace.arm_calls.tolist() == [1, 1, 1]


@pytest.mark.parametrize("horizon", [0, 5])
def test_a_horizon_beyond_the_trained_modules_is_refused(horizon):
    modules = ForecastingModules(LAYOUT, ForecastingConfig(horizon=4, filters=4), 2)
    with pytest.raises(InputError, match=rf"horizon must be in \[1, 4\].* got {horizon}"):
        LearnedForecaster(modules, horizon=horizon)
