"""Sampling without reparametrisation: the law is right, and only the law."""

import itertools

import pytest
import torch

from arm_core import InputError, Layout, resampled_sample
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    LearnedForecaster,
    fixed_point,
    most_likely,
    zeros,
)
from arm_core.samplers.step import step
from tests.conftest import ConstantArm, TableArm, work_of

LAYOUT = Layout(1, 1, 3, 3)
COUNT = 20_000


def modules_of(arm):
    torch.manual_seed(0)
    arm.hidden_features = 1
    real = arm.forward
    arm.forward = lambda x: real(x)._replace(hidden=torch.zeros(*x.shape, 1, dtype=torch.float64))
    config = ForecastingConfig(horizon=3, filters=2, inputs=("hidden", "x", "noise"))
    return ForecastingModules(LAYOUT, config, 1).double()


@pytest.mark.parametrize("name", ["zeros", "fixed_point", "most_likely", "draws", "mode"])
def test_every_sequence_comes_as_often_as_the_arm_says(name):
    """All 27 sequences, each within 5.5 standard deviations.

    The draws are seeded; over seeds a right sampler fails with a probability of about 27 x 4e-8 = 1e-6.
    """
    arm = TableArm(LAYOUT, seed=3)
    if name in ("draws", "mode"):
        forecaster = LearnedForecaster(modules_of(arm), mode=name == "mode")
    else:
        forecaster = {"zeros": zeros, "fixed_point": fixed_point, "most_likely": most_likely}[name]
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    expected = arm.log_prob(every).exp()
    assert expected.sum().item() == pytest.approx(1)
    trace = resampled_sample(arm, batch=COUNT, generator=torch.Generator().manual_seed(0), forecaster=forecaster)
    counts = torch.bincount(trace.x @ torch.tensor([9, 3, 1]), minlength=27).double()
    deviation = (counts - COUNT * expected) / (COUNT * expected * (1 - expected)).sqrt()
    assert deviation.abs().max() < 5.5
    assert (trace.arm_calls <= 3).all()
    assert torch.equal(trace.converged_at[:, -1], trace.arm_calls)


def test_the_law_test_would_notice_a_forecaster_that_sees_the_noise_of_its_call(monkeypatch):
    """Forecasts that know the noise and are kept are biased: here the sampler is broken on purpose."""
    import arm_core.samplers.resampled as module

    noises = []

    def same(like, generator):
        if not noises or noises[-1][1] == 1:
            noises.append([torch.empty_like(like).exponential_(generator=generator).log().neg(), 0])
        else:
            noises[-1][1] = 1
        return noises[-1][0]

    arm = ConstantArm(LAYOUT, torch.zeros(1, 3, 3, dtype=torch.float64))

    def arm_noise(state):
        slots, dims = (index.flatten() for index in torch.meshgrid(torch.arange(200), torch.arange(3), indexing="ij"))
        return state.noise.at(slots, dims).argmax(-1).view(200, 3)

    fair = resampled_sample(arm, batch=200, generator=torch.Generator().manual_seed(0), forecaster=arm_noise)
    assert fair.arm_calls.double().mean() > 1.5  # a third of the forecasts hit by chance
    monkeypatch.setattr(module, "standard_gumbel", same)
    peeking = resampled_sample(arm, batch=200, generator=torch.Generator().manual_seed(0), forecaster=arm_noise)
    assert (peeking.arm_calls == 1).all(), "the forecaster must not get the noise of the call"


def test_without_reparametrisation_the_fixed_point_needs_many_more_calls():
    layout = Layout(1, 4, 8, 4)
    arm = ConstantArm(layout, torch.zeros(1, layout.dims, 4, dtype=torch.float64))
    trace = resampled_sample(arm, batch=100, generator=torch.Generator().manual_seed(0), forecaster=fixed_point)
    assert trace.arm_calls.double().mean() > 20  # with fixed noise: 2


def test_an_empty_batch_takes_no_call_and_a_negative_one_is_refused():
    arm = TableArm(LAYOUT)
    generator = torch.Generator()
    assert resampled_sample(arm, batch=0, generator=generator, forecaster=zeros).x.shape == (0, 3)
    with pytest.raises(InputError, match="batch must be at least 0, got -1"):
        resampled_sample(arm, batch=-1, generator=generator, forecaster=zeros)


def test_most_likely_is_the_mode_of_the_last_logits():
    logits = torch.tensor([[[0.0, 1.0, 0.5], [2.0, 0.0, 0.0], [0.0, 0.0, 9.0]]], dtype=torch.float64)
    work = work_of(ConstantArm(LAYOUT, logits), torch.zeros(1, 3, 3, dtype=torch.float64), most_likely)
    assert most_likely(work.state).tolist() == [[0, 0, 0]]
    step(work, *work.spans())
    assert most_likely(work.state).tolist() == [[1, 0, 2]]
