"""Forecasting modules of every kind: what they may read, and that each kind trains and resumes."""

import itertools

import pytest
import torch

from arm_core import InputError, Layout, posterior_gumbel, predictive_sample, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules, GatedForecaster, LearnedForecaster, fixed_point
from arm_core.forecasters.modules import INPUTS
from arm_core.horizon import choose_horizon
from arm_core.testing import randomise
from arm_core.training import Training, TrainingConfig, evaluate, fit

LAYOUTS = [Layout(1, 4, 4, 3), Layout(3, 2, 4, 2)]


def build(layout, *, double=True, **options):
    modules = ForecastingModules(layout, ForecastingConfig(**{"horizon": 4, "filters": 6, **options}), 3)
    randomise(modules)
    return modules.double() if double else modules


def inputs_for(layout, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, layout.dims, 3, generator=generator, dtype=torch.float64)
    x = torch.randint(layout.categories, (batch, layout.dims), generator=generator)
    return hidden, x, sample_noise(layout, seed=seed, sample_ids=range(batch), dtype=torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.channels}-channels")
@pytest.mark.parametrize("unit", ["dimension", "pixel"])
def test_modules_read_values_before_their_unit_and_noise_up_to_two_before_their_target(layout, unit):
    """Perturb x and noise at every dimension: no module may move for what it must not know, at any horizon."""
    modules = build(layout, unit=unit, inputs=("hidden", "x", "noise"))
    hidden, x, noise = inputs_for(layout)
    width = modules.unit_dims
    with torch.inference_mode():
        before = modules(hidden, x, noise)[0]
        for i in range(layout.dims):
            other, louder = x.clone(), noise.clone()
            other[0, i] = (x[0, i] + 1) % layout.categories
            louder[0, i, 0] += 1
            by_x = (modules(hidden, other, noise)[0] - before).abs().amax(dim=(-1, -2))  # (units, horizon)
            by_noise = (modules(hidden, x, louder)[0] - before).abs().amax(dim=(-1, -2))
            unit_of_i = i // width
            for m, t in itertools.product(range(layout.dims // width), range(1, 5)):
                assert m > unit_of_i or by_x[m, t - 1] < 1e-9, f"module {t} at unit {m} reads x of dimension {i}"
                late = unit_of_i > m + t - 2
                assert not late or by_noise[m, t - 1] < 1e-9, f"module {t} at unit {m} reads noise of dimension {i}"
                if unit_of_i == m + t - 2:
                    assert by_noise[m, t - 1] > 1e-9, f"module {t} at unit {m} is deaf to dimension {i}"
            if (unit_of_i + 1) % (
                layout.width * layout.channels // width
            ):  # the first of a row sees only the row above
                assert by_x[unit_of_i + 1].max() > 1e-9, f"no module after dimension {i} sees its value"


def test_missing_inputs_are_refused_by_name():
    hidden, x, _ = inputs_for(LAYOUTS[0])
    with pytest.raises(InputError, match="read x"):
        build(LAYOUTS[0], inputs=("hidden", "x"))(hidden)
    with pytest.raises(InputError, match="read noise"):
        build(LAYOUTS[0], inputs=("hidden", "noise"))(hidden, x)


def training(layout=LAYOUTS[1], *, iterations=3, **options):
    torch.manual_seed(0)
    arm = PixelCNN(Layout(layout.channels, 4, 4, layout.categories), PixelCNNConfig(resnets=1, filters=6))
    modules = ForecastingModules(arm.layout, ForecastingConfig(horizon=2, filters=6, **options), arm.hidden_features)
    return Training(arm, modules, TrainingConfig(iterations=iterations, batch_size=4, learning_rate=1e-2), seed=0)


def images(layout, count=8):
    return torch.randint(
        layout.categories, (count, layout.dims), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.mark.slow
@pytest.mark.parametrize("pairs", ["posterior", "model"])
@pytest.mark.parametrize("inputs", INPUTS, ids="+".join)
def test_every_kind_trains_and_resumes_with_the_same_bits(inputs, pairs):
    whole, first, second = (training(inputs=inputs, pairs=pairs) for _ in range(3))
    data = images(whole.arm.layout)
    metrics = list(fit(whole, data))
    assert all(step.figures["forecasting_kl_nats"] >= 0 for step in metrics)
    next(fit(first, data))
    second.load_state({name: value.clone() for name, value in first.state().items()})
    assert list(fit(second, data)) == metrics[1:]
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name
    assert evaluate(whole.arm, whole.modules, data) == evaluate(second.arm, second.modules, data)


def test_pairs_from_the_model_are_its_samples_under_their_noise(monkeypatch):
    seen = []
    real = ForecastingModules.forward

    def watch(self, hidden, x=None, noise=None):
        seen.append((x, noise))
        return real(self, hidden, x, noise)

    monkeypatch.setattr(ForecastingModules, "forward", watch)
    started = training(inputs=("hidden", "noise"), pairs="model")
    next(fit(started, images(started.arm.layout)))
    ((x, noise),) = seen
    started = training(inputs=("hidden", "noise"), pairs="model")  # the weights before the step
    assert torch.equal(predictive_sample(started.arm, noise, fixed_point).x, x)


def test_posterior_noise_tells_a_module_what_follows():
    """One dimension decides the next; with T=2 only the noise of the first can tell module 2 the second."""
    layout = Layout(1, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    config = ForecastingConfig(horizon=2, filters=8, inputs=("hidden", "noise"))
    torch.manual_seed(0)
    modules = ForecastingModules(layout, config, 1)
    optimiser = torch.optim.Adam(modules.parameters(), lr=0.02)
    fair = torch.zeros(256, 2)
    for _ in range(150):
        first = torch.randint(2, (256,), generator=generator)
        noise = torch.stack([posterior_gumbel(fair, first, generator=generator)] * 2, dim=1)
        said = modules(torch.zeros(256, 2, 1), None, noise)[:, 0, 1, 0]  # module 2 at unit 0: dimension 1, equal to 0
        loss = torch.nn.functional.cross_entropy(said, first)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2  # without the noise it cannot fall below log 2 = 0.69


@pytest.mark.slow
def test_the_chosen_setting_needs_the_fewest_calls_and_the_fixed_point_is_among_them():
    started = training(iterations=1)
    settings = choose_horizon(started.arm, started.modules, seed=1, sample_ids=range(5), batch_size=2)
    assert [s.mean_calls for s in settings] == sorted(s.mean_calls for s in settings)
    tried = {(s.horizon, s.gate) for s in settings}
    assert {(0, None), (1, None), (2, None), (2, 0.5), (2, 1.0), (2, 2.0)} <= tried
    noise = sample_noise(started.arm.layout, seed=1, sample_ids=range(5))
    for setting in settings:
        trace = predictive_sample(started.arm, noise, setting.forecaster(started.modules))
        assert trace.arm_calls.double().mean().item() == pytest.approx(setting.mean_calls)
    with pytest.raises(InputError, match="at least one sample id"):
        choose_horizon(started.arm, started.modules, seed=1, sample_ids=range(0))


def test_a_gate_of_zero_is_no_gate_and_a_closed_one_is_the_fallback():
    started = training(iterations=1)
    noise = sample_noise(started.arm.layout, seed=1, sample_ids=range(4))

    def calls(forecaster):
        return predictive_sample(started.arm, noise, forecaster).arm_calls.tolist()

    assert calls(GatedForecaster(started.modules, gate=0.0)) == calls(LearnedForecaster(started.modules))
    closed = GatedForecaster(started.modules, gate=1e9)
    open_at_first = calls(closed)
    assert all(abs(a - b) <= 2 for a, b in zip(open_at_first, calls(fixed_point), strict=True))
    with pytest.raises(InputError, match="gate must be finite and not negative, got -1"):
        GatedForecaster(started.modules, gate=-1.0)
