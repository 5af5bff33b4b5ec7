import itertools
import math

import pytest
import torch

from arm_core import InputError, Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import DynamicImages
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.objectives import bits_per_dim, forecasting_kl
from arm_core.training import DivergedError, Training, TrainingConfig, batch_rows, evaluate, fit

LAYOUT = Layout(1, 4, 4, 3)
CONFIG = TrainingConfig(iterations=6, batch_size=5, learning_rate=1e-2)


def build(config=CONFIG, *, seed=0, detach=False):
    torch.manual_seed(seed)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4, dropout=0.5))
    modules = ForecastingModules(
        LAYOUT, ForecastingConfig(horizon=3, filters=4, detach_hidden=detach), arm.hidden_features
    )
    return Training(arm, modules, config, seed=seed)


def images(count=13):
    return torch.randint(3, (count, LAYOUT.dims), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def weights(training):
    return {name: value for name, value in training.state().items() if not name.startswith("adam")}


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_and_resumed_training_ends_with_the_same_bits(stop):
    whole = build()
    metrics = list(fit(whole, images()))
    first = build()
    for step in fit(first, images()):
        if step.step == stop:
            break
    second = build(seed=0)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    torch.manual_seed(99)  # the state of the global generator must not matter
    rest = list(fit(second, images()))
    assert rest == metrics[stop:]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(second)[name]), name


def test_dynamic_binarisation_is_drawn_anew_at_every_step_and_resumes_with_the_same_bits():
    grey = torch.randint(256, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = DynamicImages(grey.numpy())
    seen = []

    class Spy(DynamicImages):
        def draw(self, rows, generator):
            seen.append((rows, super().draw(rows, generator)))
            return seen[-1][1]

    whole = build()
    metrics = list(fit(whole, Spy(grey.numpy())))
    ordered = [drawn[rows.argsort()] for rows, drawn in seen]  # batches of all five images
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(ordered))
    first = build()
    next(fit(first, data))
    second = build()
    second.load_state({name: value.clone() for name, value in first.state().items()})
    assert list(fit(second, data)) == metrics[1:]


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(fit(build_quietly(), images()))
    assert torch.equal(before, torch.get_rng_state())


def build_quietly():
    with torch.random.fork_rng():
        return build()


@pytest.mark.slow
def test_training_lowers_the_loss():
    config = TrainingConfig(iterations=60, batch_size=13, learning_rate=1e-2)
    training = build(config)
    before, _ = evaluate(training.arm, training.modules, images())
    list(fit(training, images()))
    after, _ = evaluate(training.arm, training.modules, images())
    assert after < before - 0.02


def test_every_epoch_has_every_image_once():
    rows = torch.cat([batch_rows(7, 3, step=step, seed=1) for step in range(14)])
    for epoch in rows.view(6, 7):
        assert sorted(epoch.tolist()) == list(range(7))
    assert rows.view(6, 7).unique(dim=0).shape[0] > 1


def test_the_learning_rate_decays_at_every_iteration():
    config = TrainingConfig(iterations=3, batch_size=2, learning_rate=0.5, lr_decay=0.5)
    assert [step.learning_rate for step in fit(build(config), images())] == [0.5, 0.25, 0.125]


def test_detached_modules_do_not_train_the_arm():
    for detach in (True, False):
        training = build(detach=detach)
        x = images()[:4].long()
        output = training.arm.train()(x)
        forecasting_kl(output.logits, training.modules(output.hidden)).backward()
        touched = any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in training.arm.parameters())
        assert touched is not detach


def test_a_diverging_training_says_where():
    training = build(TrainingConfig(iterations=5, batch_size=2, learning_rate=1e20))
    with pytest.raises(DivergedError, match=r"the loss became .* at step \d"):
        list(fit(training, images()))


def test_divergence_is_told_from_noise_that_is_impossible():
    torch.manual_seed(0)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4))
    modules = ForecastingModules(LAYOUT, ForecastingConfig(2, 4, inputs=("hidden", "noise")), arm.hidden_features)
    with torch.no_grad():
        next(arm.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match="the loss became nan"):
        next(fit(Training(arm, modules, CONFIG, seed=0), images()))


def test_evaluation_does_not_depend_on_the_batch_size():
    training = build()
    expected = evaluate(training.arm, training.modules, images(), batch_size=13)
    assert evaluate(training.arm, training.modules, images(), batch_size=4) == pytest.approx(expected, rel=1e-5)
    assert training.arm.training


def test_uniform_logits_cost_log2_of_the_categories():
    logits = torch.zeros(2, LAYOUT.dims, 3)
    assert bits_per_dim(logits, images(2).long()).tolist() == pytest.approx([math.log2(3)] * 2)


def test_the_forecasting_loss_is_the_sum_over_modules_of_mean_divergences():
    generator = torch.Generator().manual_seed(0)
    for unit_dims in (1, 3):
        units, horizon, k = 4, 3, 5
        logits = torch.randn(2, units * unit_dims, k, generator=generator, dtype=torch.float64)
        said = torch.randn(2, units, horizon, unit_dims, k, generator=generator, dtype=torch.float64)
        total = 0.0
        for t in range(1, horizon + 1):
            divergences = []
            for b in range(2):
                for m in range(units - t + 1):
                    for c in range(unit_dims):
                        p = logits[b, (m + t - 1) * unit_dims + c].softmax(0)
                        q = said[b, m, t - 1, c].softmax(0)
                        divergences.append((p * (p / q).log()).sum())
            total += sum(divergences) / len(divergences)
        torch.testing.assert_close(forecasting_kl(logits, said), total)


@pytest.mark.parametrize(
    "options", [{"iterations": 0}, {"learning_rate": 0.0}, {"lr_decay": 1.5}, {"weight_decay": -1.0}, {"batch_size": 0}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        TrainingConfig(**options)


def test_no_image_is_no_training():
    with pytest.raises(InputError, match="at least one image"):
        next(fit(build(), images(0)))
