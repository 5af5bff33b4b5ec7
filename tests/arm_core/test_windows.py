"""Cached windows: the ancestral samples whatever the window, the slots and the forecaster, for less work."""

import itertools
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from arm_core import InputError, Layout, ancestral_sample, predictive_sample, sample_many, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    GatedForecaster,
    LearnedForecaster,
    fixed_point,
    fixed_point_above,
    predict_last,
    row_above,
    zeros,
)
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.recorded import Steps
from arm_core.samplers.window import LONGER, PAUSE, TURN, WindowChoice
from arm_core.testing import randomise
from tests.conftest import SpanTableArm, TableArm, finish, work_of

FORECASTERS = [zeros, predict_last, row_above, fixed_point, fixed_point_above]
LAYOUTS = [Layout(1, 8, 8, 3), Layout(3, 4, 8, 4), Layout(4, 8, 4, 2), Layout(1, 12, 4, 3)]


def by_shape(layout):
    return f"{layout.channels}x{layout.height}x{layout.width}"


@cache
def pixelcnn(layout, resnets=1, filters=12, scale=0.25):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=resnets, filters=filters)).double()
    randomise(arm, scale=scale)
    return arm


def noise_for(arm, count=3, seed=0):
    return sample_noise(arm.layout, seed=seed, sample_ids=range(count), dtype=torch.float64)


@cache
def ancestral(layout, known=0):
    """The samples of `pixelcnn(layout)`, the first dimensions of which are random where they are known."""
    arm = pixelcnn(layout)
    prefix = torch.randint(layout.categories, (3, known), generator=torch.Generator().manual_seed(0))
    return ancestral_sample(arm, noise_for(arm), prefix=prefix)


@pytest.mark.slow
@given(
    st.sampled_from([Layout(1, 3, 4, 3), Layout(2, 3, 3, 2), Layout(3, 2, 2, 3)]),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(0, 100),
    st.sampled_from([*FORECASTERS, None]),
)
def test_samplers_keep_their_promise_to_any_cache_and_never_change_a_sample(
    layout, by_pixel, window, slots, seed, forecaster
):
    arm = SpanTableArm(layout, layout.channels if by_pixel else 1, seed)
    expected = ancestral_sample(arm, noise_for(arm, 6)).x
    trace = sample_many(arm, count=6, seed=0, slots=slots, forecaster=forecaster, window=window)
    assert torch.equal(trace.x, expected)
    assert torch.equal(sample_many(arm, count=6, seed=0, slots=slots, forecaster=forecaster).x, expected)


@pytest.mark.parametrize(
    "layout",
    [pytest.param(one, marks=pytest.mark.slow if place else ()) for place, one in enumerate(LAYOUTS)],
    ids=by_shape,
)
@pytest.mark.parametrize(
    "forecaster",
    [pytest.param(one, marks=[] if one is fixed_point_above else pytest.mark.slow) for one in FORECASTERS],
)
def test_pixelcnn_windows_give_the_ancestral_samples(layout, forecaster):
    arm, expected = pixelcnn(layout), ancestral(layout).x
    row = layout.width * layout.channels
    for window in (1, row // 2, row, row + 1, 3 * row, layout.dims):
        trace = predictive_sample(arm, noise_for(arm), forecaster, window=window)
        assert torch.equal(trace.x, expected), window
        assert (trace.arm_calls <= layout.dims).all()


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["dimension", "pixel"])
@pytest.mark.parametrize("kind", [LearnedForecaster, GatedForecaster])
def test_learned_forecasters_work_inside_windows(unit, kind):
    for layout in LAYOUTS[:3]:
        arm, expected = pixelcnn(layout), ancestral(layout).x
        config = ForecastingConfig(horizon=3, filters=12, unit=unit, inputs=("hidden", "x", "noise"))
        modules = ForecastingModules(layout, config, arm.hidden_features).double()
        randomise(modules, seed=1)
        row = layout.width * layout.channels
        for window in (1, row + 3):
            forecaster = kind(modules, fallback=fixed_point_above)
            assert torch.equal(predictive_sample(arm, noise_for(arm), forecaster, window=window).x, expected), layout


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(1, 5), st.integers(1, 40), st.sampled_from(FORECASTERS))
def test_neither_slots_nor_order_change_a_sample_or_its_trace_in_windows(slots, window, forecaster):
    arm = pixelcnn(Layout(1, 8, 4, 3), filters=6)
    alone = [predictive_sample(arm, noise_for(arm, 5)[k : k + 1], forecaster, window=window) for k in range(5)]
    trace = sample_many(arm, count=5, seed=0, slots=slots, forecaster=forecaster, window=window)
    for row, expected in enumerate(alone):
        for name in ("x", "arm_calls", "converged_at", "settled_at", "mistakes", "window"):
            assert torch.equal(getattr(trace, name)[row], getattr(expected, name)[0]), name


@pytest.mark.parametrize(("window", "calls"), [(1, 36), (5, 8), (12, 3), (13, 3), (35, 2), (36, 1), (99, 1)])
def test_an_oracle_needs_a_call_a_window_and_an_always_wrong_forecaster_one_a_dimension(window, calls):
    arm = SpanTableArm(Layout(1, 6, 6, 3), 1)
    x = ancestral_sample(arm, noise_for(arm)).x
    oracle = predictive_sample(arm, noise_for(arm), lambda state: x, window=window)
    assert oracle.arm_calls.tolist() == [calls] * 3
    assert not oracle.mistakes.any()
    wrong = predictive_sample(arm, noise_for(arm), lambda state: (x + 1) % 3, window=window)
    assert wrong.arm_calls.tolist() == [36] * 3
    assert wrong.mistakes.all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_shape)
@pytest.mark.parametrize("resnets", [1, 2])
def test_streamed_logits_and_hidden_equal_the_full_pass(layout, resnets):
    arm = pixelcnn(layout, resnets, scale=0.1)  # larger weights multiply rounding itself, not what is tested
    with sampling_mode(arm):
        for window in (1, 5 * layout.channels, 2 * layout.width * layout.channels + 1):
            work = work_of(arm, noise_for(arm), fixed_point_above, cache=arm.span_cache(3, window))
            kept = work.state.logits, work.state.hidden
            whole = arm(finish(work).state.x)
            for streamed, full in zip(kept, whole, strict=True):
                assert (streamed - full).abs().max() <= 1e-12 * full.abs().max()


@pytest.mark.slow
def test_fixed_shapes_give_the_same_samples_in_the_same_shapes_at_every_call():
    for layout in LAYOUTS:
        arm, expected = pixelcnn(layout), ancestral(layout).x
        row = layout.width * layout.channels
        for window in (1, row, 2 * row + 1):
            with sampling_mode(arm):
                cache = PixelCNNSpans(arm, 3, window, compact=False)
                shapes = set()
                evaluate = cache.evaluate

                def recorded(*spans, evaluate=evaluate, shapes=shapes):
                    output = evaluate(*spans)
                    shapes.add((tuple(output.logits.shape), output.work))
                    return output

                cache.evaluate = recorded
                work = finish(work_of(arm, noise_for(arm), fixed_point_above, cache=cache))
            assert torch.equal(work.trace().x, expected)
            assert len(shapes) == 1


@pytest.mark.slow
def test_arm_work_in_windows_agrees_with_the_flop_counter():
    arm = PixelCNN(Layout(1, 16, 16, 2), PixelCNNConfig(resnets=1, filters=12)).eval()
    start, stop = torch.zeros(1, dtype=torch.int64), torch.full((1,), 256)
    with FlopCounterMode(display=False) as one, torch.inference_mode():  # a full pass without the rows of padding
        work = PixelCNNSpans(arm, 1, 256).evaluate(torch.zeros(1, 256, dtype=torch.int64), start, stop).work
    assert work == 1
    for window in (1, 16, 40):
        with FlopCounterMode(display=False) as run:
            trace = sample_many(arm, count=3, seed=0, slots=2, window=window)
        assert trace.arm_work.sum().item() * one.get_total_flops() == pytest.approx(run.get_total_flops(), rel=0.1)


def test_cached_sequential_sampling_does_each_pixel_once():
    arm = pixelcnn(Layout(1, 8, 8, 3))
    trace = predictive_sample(arm, noise_for(arm), zeros, window=1)
    assert trace.arm_calls.tolist() == [64] * 3
    assert trace.arm_work.sum().item() == pytest.approx(3)


def test_a_window_costs_less_work_than_whole_images():
    arm = pixelcnn(Layout(1, 12, 8, 3))
    whole = predictive_sample(arm, noise_for(arm), fixed_point)
    row = predictive_sample(arm, noise_for(arm), fixed_point_above, window=8)
    assert row.arm_work.sum() < whole.arm_work.sum() / 3


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "filters"), [(Layout(4, 8, 8, 128), 12), (Layout(3, 32, 32, 4), 6)], ids=str)
def test_layouts_of_the_paper_sample_exactly_in_windows(layout, filters):
    arm = pixelcnn(layout, filters=filters, scale=0.1)
    noise = noise_for(arm, 2)
    row = layout.width * layout.channels
    x = sample_many(arm, count=2, seed=0, slots=2).x
    with torch.inference_mode():  # the ancestral sample is the only fixed point
        assert torch.equal((arm.eval()(x).logits + noise).argmax(dim=-1), x)
    for window in (row, 3 * row):
        assert torch.equal(predictive_sample(arm, noise, fixed_point_above, window=window).x, x)


def test_an_empty_batch_gives_an_empty_trace_in_windows_too():
    arm = pixelcnn(Layout(1, 8, 4, 3))
    assert predictive_sample(arm, noise_for(arm, 0), zeros, window=4).x.shape == (0, 32)


@pytest.mark.parametrize("window", [None, 5, 8, 64])
@pytest.mark.parametrize("known", [0, 3, 20, 63, 64])
def test_a_prefix_is_kept_and_completed_as_ancestral_sampling_would(window, known):
    layout = Layout(1, 8, 8, 3)
    arm, expected = pixelcnn(layout), ancestral(layout, known)
    prefix = torch.randint(3, (3, known), generator=torch.Generator().manual_seed(0))
    assert torch.equal(expected.x[:, :known], prefix)
    assert expected.arm_calls.tolist() == [64 - known] * 3
    trace = predictive_sample(arm, noise_for(arm), fixed_point_above, window=window, prefix=prefix)
    assert torch.equal(trace.x, expected.x)
    assert not trace.converged_at[:, :known].any() and not trace.mistakes[:, :known].any()
    assert torch.equal(sample_many(arm, count=3, seed=0, slots=2, window=window, prefix=prefix).x, expected.x)


@pytest.mark.parametrize("slots", [1, 3])
def test_what_is_given_is_evaluated_in_the_widest_calls_there_are(slots):
    layout, known = Layout(1, 8, 8, 3), 60
    arm, expected = pixelcnn(layout), ancestral(layout, known)
    prefix = expected.x[:, :known]
    chosen, by_rows = (
        sample_many(arm, count=3, seed=0, slots=slots, window=window, prefix=prefix) for window in (None, 8)
    )
    assert torch.equal(chosen.x, expected.x) and torch.equal(by_rows.x, expected.x)
    # Twice three rows, and the row in which samples begin; or seven rows and that one.
    assert chosen.arm_calls.tolist() == (by_rows.arm_calls - 4).tolist()


def test_one_prefix_may_serve_all_samples():
    arm = pixelcnn(Layout(1, 8, 8, 3))
    trace = sample_many(arm, count=3, seed=0, slots=2, prefix=torch.tensor([2, 1, 0, 1]))
    assert trace.x[:, :4].tolist() == [[2, 1, 0, 1]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_divides_the_logits_in_every_sampler(temperature):
    arm = pixelcnn(Layout(1, 8, 8, 3))
    expected = ancestral_sample(arm, noise_for(arm), temperature=temperature).x
    for window in (None, 8):
        got = predictive_sample(arm, noise_for(arm), fixed_point_above, window=window, temperature=temperature)
        assert torch.equal(got.x, expected)
        got = sample_many(arm, count=3, seed=0, slots=2, window=window, temperature=temperature)
        assert torch.equal(got.x, expected)


def test_temperature_zero_takes_the_mode():
    arm = pixelcnn(Layout(1, 8, 8, 3))
    x = ancestral_sample(arm, noise_for(arm), temperature=0.0).x
    with torch.inference_mode():
        assert torch.equal(arm.eval()(x).logits.argmax(dim=-1), x)


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_that_is_no_positive_number_is_refused(window):
    arm = pixelcnn(Layout(1, 8, 8, 3))
    with pytest.raises(InputError, match=f"window must be a whole number of at least 1, got {window}"):
        predictive_sample(arm, noise_for(arm), zeros, window=window)


def test_a_window_of_an_arm_without_spans_is_refused():
    arm = TableArm(Layout(1, 3, 3, 2))
    with pytest.raises(InputError, match="TableArm has no cached windows, so window=4 is not possible"):
        predictive_sample(arm, noise_for(arm), zeros, window=4)


class Stream:
    """Endless samples of which every `run`-th dim is forecast wrongly, chosen windows, and a clock that is made up."""

    def __init__(self, run, seconds, slots=2):
        arm = SpanTableArm(Layout(1, 8, 8, 2), 1)
        self.slots, self.now, self.windows, self.trials = list(range(slots)), 0.0, [], 0
        self.choice = WindowChoice(arm, None, slots, clock=lambda: self.now)
        noise = noise_for(arm, slots)
        x = ancestral_sample(arm, noise).x
        wrong = (torch.arange(64) + 1) % run == 0
        forecaster = lambda state: torch.where(wrong, 1 - x, x)  # noqa: E731
        self.work = work_of(arm, noise, forecaster, cache=arm.span_cache(slots, self.choice.widest))
        evaluate, self.take = self.work.evaluate, Steps(self.work)

        def timed(window):
            self.now += seconds(window, len(self.windows))
            self.windows.append(window)
            return evaluate(window)

        self.work.evaluate = timed

    def go_on(self, calls):
        for _ in range(calls):
            if all(self.work.finished()):
                self.work.begin(self.slots, self.slots)
            self.trials += bool(self.choice.turns)
            self.choice.step(self.take)
        return self.choice


def line(call, dim):
    return lambda window, number: call + dim * window


COMPARED = 3 * 3 * TURN + PAUSE * (1 + LONGER + LONGER**2)
"""Calls until three comparisons are over: 354."""


@pytest.mark.parametrize(
    ("run", "seconds", "window"),
    [
        (4, line(1.0, 0.1), 4),
        (8, line(1.0, 0.02), 8),
        (16, line(1.0, 0.01), 16),
        (65, line(1.0, 0.0), 24),
        (65, line(0.0, 1.0), 8),
        (2, line(0.2, 1.0), 2),
        (1, line(1.0, 1.0), 1),
    ],
    ids=["half-a-row", "a-row", "two-rows", "dear-calls", "all-the-same", "a-quarter", "a-granule"],
)
def test_the_window_that_confirms_most_a_second_is_chosen_within_three_comparisons(run, seconds, window):
    stream = Stream(run, seconds)
    assert stream.choice.rung.window == 8
    assert stream.go_on(COMPARED).rung.window == window
    assert stream.go_on(1000).rung.window == window


def test_a_window_that_is_far_too_large_is_left_at_the_first_comparison():
    stream = Stream(1, line(1.0, 1.0))
    assert stream.go_on(PAUSE + 3 * TURN).rung.window == 1


def test_a_call_that_comes_late_does_not_mislead():
    for late in range(PAUSE, PAUSE + 3 * TURN):
        seconds = lambda window, number, late=late: (1 + 0.02 * window) * (100 if number == late else 1)  # noqa: E731
        assert Stream(8, seconds).go_on(PAUSE + 3 * TURN).rung.window == 8, late


@pytest.mark.slow
def test_comparisons_become_ever_rarer_whatever_calls_cost():
    generator = torch.Generator().manual_seed(0)
    stream = Stream(8, lambda window, number: float(torch.rand((), generator=generator)))
    stream.go_on(PAUSE * LONGER**4)
    assert 0 < stream.trials <= 3 * TURN * 4


def test_spans_of_an_arm_begin_with_a_seam_where_its_layers_are_what_a_call_costs():
    light = PixelCNN(Layout(3, 8, 8, 64), PixelCNNConfig(resnets=1, filters=12))
    heavy = PixelCNN(Layout(1, 8, 8, 2), PixelCNNConfig(resnets=1, filters=12))
    assert WindowChoice(light, None, 4).rung == (36, None)
    assert WindowChoice(light, None, 64).rung == (24, None)
    assert WindowChoice(heavy, None, 16).rung == (8, 8)


def test_a_window_that_is_asked_for_is_used_and_recorded():
    arm = pixelcnn(Layout(1, 8, 8, 3))
    assert sample_many(arm, count=3, seed=0, slots=2, window=11).window.tolist() == [11] * 3
    assert sample_many(arm, count=3, seed=0, slots=2, window=64).window.tolist() == [64] * 3
    assert set(sample_many(arm, count=9, seed=0, slots=2).window.tolist()) <= {
        rung.window for rung in WindowChoice(arm, None, 2).ladder
    }


@pytest.mark.slow
def test_windows_keep_samples_apart_that_share_a_slot():
    arm = pixelcnn(Layout(1, 8, 8, 3))
    expected = ancestral_sample(arm, noise_for(arm, 7)).x
    for slots, window in itertools.product((1, 3, 7), (3, 8)):
        assert torch.equal(sample_many(arm, count=7, seed=0, slots=slots, window=window).x, expected)
