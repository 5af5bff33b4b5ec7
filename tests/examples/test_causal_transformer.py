"""The transformer of the examples: the ancestral samples with every sampler and window, for less work."""

import itertools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arm_core import (
    InputError,
    Layout,
    ancestral_sample,
    predictive_sample,
    resampled_sample,
    sample_many,
    sample_noise,
    stream_samples,
)
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    GatedForecaster,
    LearnedForecaster,
    fixed_point,
    fixed_point_above,
    row_above,
    zeros,
)
from arm_core.registry import config_type
from arm_core.testing import arm_checks, randomise

FORECASTERS = [zeros, row_above, fixed_point, fixed_point_above]
LAYOUTS = [Layout(1, 4, 5, 3), Layout(3, 3, 2, 4), Layout(1, 1, 1, 2)]


def by_shape(layout):
    return f"{layout.channels}x{layout.height}x{layout.width}"


def built(transformer, layout, dtype=torch.float64, **size):
    arm = transformer(layout, config_type(transformer)(**{"layers": 2, "width": 16, "heads": 2, **size}))
    arm = arm.to(dtype).eval()
    randomise(arm)
    return arm


def noise_for(arm, count=4):
    return sample_noise(arm.layout, seed=0, sample_ids=range(count), dtype=arm.head.weight.dtype)


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_shape)
@pytest.mark.parametrize("forecaster", FORECASTERS)
def test_every_sampler_gives_the_ancestral_samples_in_every_window(transformer, layout, forecaster):
    arm = built(transformer, layout)
    expected = ancestral_sample(arm, noise_for(arm)).x
    assert torch.equal(predictive_sample(arm, noise_for(arm), forecaster).x, expected)
    row = layout.width * layout.channels
    for window, slots in ((1, 3), (2, 1), (row, 2), (row + 1, 4), (layout.dims, 3)):
        got = predictive_sample(arm, noise_for(arm), forecaster, window=window)
        assert torch.equal(got.x, expected), window
        assert (got.arm_calls <= layout.dims).all()
        got = sample_many(arm, count=4, seed=0, slots=slots, forecaster=forecaster, window=window)
        assert torch.equal(got.x, expected), (window, slots)


def test_the_window_may_change_while_sampling_and_samples_may_be_continued(transformer):
    arm = built(transformer, Layout(1, 6, 6, 3))
    expected = ancestral_sample(arm, noise_for(arm)).x
    finished = dict(stream_samples(arm, count=4, seed=0, slots=2))  # no window is given: they take turns
    assert torch.equal(torch.cat([finished[k].x for k in range(4)]), expected)
    continued = sample_many(arm, count=4, seed=0, slots=3, window=5, prefix=expected[:, :17])
    assert torch.equal(continued.x, expected)


@pytest.mark.parametrize("kind", [LearnedForecaster, GatedForecaster])
def test_forecasting_modules_read_its_hidden_features_in_windows(transformer, kind):
    arm = built(transformer, Layout(3, 3, 4, 2))
    config = ForecastingConfig(horizon=4, filters=6, inputs=("hidden", "x", "noise"))
    modules = ForecastingModules(arm.layout, config, arm.hidden_features).double()
    randomise(modules, seed=1)
    expected = ancestral_sample(arm, noise_for(arm)).x
    for window in (None, 1, 7):
        assert torch.equal(predictive_sample(arm, noise_for(arm), kind(modules), window=window).x, expected)


def test_resampling_works_too(transformer):
    arm = built(transformer, Layout(1, 4, 4, 3))
    trace = resampled_sample(arm, batch=3, generator=torch.Generator().manual_seed(0), forecaster=zeros)
    assert trace.x.shape == (3, 16) and (trace.arm_calls <= 16).all()


def test_its_contract_holds(transformer):
    names = []
    for name, check in arm_checks(lambda layout: built(transformer, layout), LAYOUTS[:2]):
        check()
        names.append(name)
    assert sum("windows give the ancestral samples" in name for name in names) == 2


def test_one_dimension_a_call_does_every_row_once_and_windows_take_fewer_calls(transformer):
    arm = built(transformer, Layout(1, 8, 8, 2))
    one = predictive_sample(arm, noise_for(arm), zeros, window=1)
    assert one.arm_calls.tolist() == [64] * 4
    assert one.arm_work.max() < 1  # later rows are attended to by later rows only, and the pass computes all pairs
    x = one.x
    oracle = predictive_sample(arm, noise_for(arm), lambda state: x, window=8)
    assert oracle.arm_calls.tolist() == [8] * 4


@pytest.mark.slow
def test_arm_work_agrees_with_the_flop_counter(transformer):
    arm = built(transformer, Layout(1, 8, 8, 5), torch.float32, width=32)
    with sdpa_kernel(SDPBackend.MATH):  # the counter knows its products
        with FlopCounterMode(display=False) as one, torch.inference_mode():
            arm(torch.zeros(1, 64, dtype=torch.int64))
        for window, slots in itertools.product((1, 6, 17), (1, 3)):
            with FlopCounterMode(display=False) as run:
                trace = sample_many(arm, count=4, seed=0, slots=slots, window=window)
            counted = run.get_total_flops() / one.get_total_flops()
            assert trace.arm_work.sum().item() == pytest.approx(counted, rel=0.1), (window, slots)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 18, "heads": 4}, r"width must be a multiple of the heads \(4\), got 18; nearest: 16"),
        ({"layers": 0}, "layers, width and heads must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(transformer, size, message):
    with pytest.raises(InputError, match=message):
        config_type(transformer)(**size)
