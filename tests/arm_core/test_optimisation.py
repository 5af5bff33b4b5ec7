"""What gradient steps promise, whatever is trained."""

import numpy as np
import pytest
import torch

from arm_core import InputError, Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.training import Training, TrainingConfig, evaluate, fit, learning_rate

LAYOUT = Layout(2, 4, 4, 3)


def images(count=12):
    shape = (count, LAYOUT.channels, LAYOUT.height, LAYOUT.width)
    return torch.randint(3, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def build(*, dropout=0.0, **options):
    torch.manual_seed(0)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4, dropout=dropout)).double()
    config = TrainingConfig(**{"iterations": 3, "batch_size": 6, "learning_rate": 1e-2, **options})
    return Training(arm, None, config, seed=0)


def trained(data=None, **options):
    training = build(**options)
    metrics = list(fit(training, images() if data is None else data))
    return training.arm.state_dict(), metrics


def assert_same(first, second, **tolerance):
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], **(tolerance or {"rtol": 0, "atol": 0}))


def test_accumulated_parts_take_the_same_step_as_the_whole_batch():
    (whole, metrics), (parts, accumulated) = trained(), trained(accumulate=4)
    assert_same(whole, parts, rtol=0, atol=1e-8)
    for first, second in zip(metrics, accumulated, strict=True):
        assert first.figures == pytest.approx(second.figures)


def test_autocast_computes_in_bfloat16_but_keeps_weights_and_losses():
    training = build(autocast=True)
    training.arm.float()
    seen = []
    training.arm.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    metrics = list(fit(training, images()))
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in training.arm.parameters()} == {torch.float32}
    assert 0 < metrics[-1].figures["train_bits_per_dim"] < 5


def test_only_the_rows_of_a_batch_are_read_from_a_memory_map(tmp_path):
    np.save(tmp_path / "images.npy", images().numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    assert_same(trained(dropout=0.5)[0], trained(mapped, dropout=0.5)[0])
    assert_same(trained()[0], trained(LAYOUT.flatten(images()))[0])
    arm = build().arm
    assert evaluate(arm, None, mapped) == evaluate(arm, None, LAYOUT.flatten(images()))


def test_the_learning_rate_decays_by_iteration_or_by_epoch():
    by_step = TrainingConfig(batch_size=4, learning_rate=1.0, lr_decay=0.5)
    assert [learning_rate(by_step, step, 10) for step in range(3)] == [1.0, 0.5, 0.25]
    by_epoch = TrainingConfig(batch_size=4, learning_rate=1.0, lr_decay=0.5, lr_decay_every="epoch")
    assert [learning_rate(by_epoch, step, 10) for step in range(6)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"accumulate": 2}, {"autocast": True}, {"lr_decay_every": "epoch"}])
def test_every_kind_of_training_resumes_with_the_same_bits(options):
    def fresh():
        training = build(dropout=0.5, iterations=5, **options)
        training.arm.float()
        return training

    whole, first, second = fresh(), fresh(), fresh()
    list(fit(whole, images()))
    for step in fit(first, images()):
        if step.step == 2:
            break
    # what comes out of a file has lost the memory format of the weights
    second.load_state(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in first.state().items()}
    )
    list(fit(second, images()))
    assert_same(whole.state(), second.state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 7}, r"accumulate must be at most batch_size \(6\), got 7"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)
