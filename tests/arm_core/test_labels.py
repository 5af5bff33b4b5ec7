"""A PixelCNN that is conditioned on labels: in whole images, in windows, in training, in checkpoints."""

import itertools

import pytest
import torch

from arm_core import (
    InputError,
    Layout,
    ancestral_sample,
    load_arm,
    predictive_sample,
    sample_many,
    sample_noise,
    save_arm,
)
from arm_core.arms import Guided, PixelCNN, PixelCNNConfig
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.forecasters import ForecastingConfig, ForecastingModules, fixed_point_above
from arm_core.testing import check_triangular, randomise
from arm_core.training import Training, TrainingConfig, evaluate, fit

LAYOUTS = [Layout(1, 8, 8, 3), Layout(3, 4, 8, 4)]
CLASSES = 4
LABELS = torch.tensor([0, 3, -1, 1, 3])


def pixelcnn(layout, resnets=1, classes=CLASSES, scale=0.2):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=resnets, filters=12, classes=classes)).double()
    randomise(arm, scale=scale)
    return arm.eval()


def images(layout, count=5):
    return torch.randint(layout.categories, (count, layout.dims), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_label_changes_every_dimension_and_none_changes_nothing():
    arm = pixelcnn(LAYOUTS[1])
    x = images(LAYOUTS[1])
    plain, labelled = arm(x).logits, arm(x, context=LABELS).logits
    assert torch.equal(arm(x, context=[-1] * 5).logits, plain)
    moved = (labelled - plain).abs().amax(dim=2)
    assert not moved[2].any() and (moved[[0, 1, 3, 4]] > 1e-9).all()
    assert torch.equal(arm(x[[4, 1]], context=LABELS[[4, 1]]).logits, labelled[[4, 1]])
    check_triangular(arm)


def test_labels_cost_a_bias_on_the_gates_of_every_resnet_and_nothing_where_there_are_none():
    def parameters(classes):
        with torch.device("meta"):
            arm = PixelCNN(LAYOUTS[0], PixelCNNConfig(resnets=2, filters=12, classes=classes))
        return sum(p.numel() for p in arm.parameters())

    resnets = 2 * (3 * 2 + 2 + 3 + 3)
    assert parameters(10) - parameters(0) == resnets * 10 * 2 * 12
    without = PixelCNN(LAYOUTS[0], PixelCNNConfig(resnets=1, filters=12)).state_dict()
    assert not any(name.endswith("label") for name in without)


def test_labels_begin_at_zero():
    torch.manual_seed(0)
    plain = PixelCNN(LAYOUTS[0], PixelCNNConfig(resnets=1, filters=12, dropout=0.0))
    torch.manual_seed(0)
    arm = PixelCNN(LAYOUTS[0], PixelCNNConfig(resnets=1, filters=12, dropout=0.0, classes=3))
    x = images(LAYOUTS[0])
    torch.testing.assert_close(arm(x, context=[2] * 5).logits, plain(x).logits, rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("compact", [True, False])
def test_spans_know_the_labels_of_their_slots(layout, compact):
    arm, x = pixelcnn(layout, 2, scale=0.1), images(layout)
    spans = PixelCNNSpans(arm, 5, layout.dims, compact=compact)
    half, dims = torch.full((5,), layout.dims // 2), torch.full((5,), layout.dims)
    with torch.inference_mode():
        for labels in ([-1] * 5, LABELS.tolist(), [2, 3, 0, 1, -1]):
            if labels != [-1] * 5:  # nothing is a label before the first begins
                spans.begin([4, 0, 1, 2, 3], torch.tensor(labels).roll(1))
            whole = arm(x, context=labels)
            for start, stop in ((0 * half, half), (half, dims)):
                got = spans.narrowed(int(half[0])).evaluate(x, start, stop)
                real = got.where < dims.sum()
                for streamed, full in ((got.logits, whole.logits), (got.hidden, whole.hidden)):
                    full = full.flatten(0, 1)[got.where[real]]
                    assert (streamed[real] - full).abs().max() <= 1e-12 * full.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_sampler_draws_the_samples_of_the_labels(layout, guided):
    arm = pixelcnn(layout)
    arm = Guided(arm, scale=2.0, null_context=-1) if guided else arm
    noise = sample_noise(layout, seed=0, sample_ids=range(5), dtype=torch.float64)
    expected = ancestral_sample(arm, noise, context=LABELS).x
    assert not torch.equal(expected, ancestral_sample(arm, noise).x)
    row = layout.width * layout.channels
    for window, context in itertools.product((None, layout.channels, row + 1), (LABELS, LABELS.tolist())):
        got = predictive_sample(arm, noise, fixed_point_above, window=window, context=context)
        assert torch.equal(got.x, expected)
        assert torch.equal(sample_many(arm, count=5, seed=0, slots=2, window=window, context=context).x, expected)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ([0, 4, 1], r"labels must be in \[0, 4\), or -1 for none, got 4"),
        ([0, -2, 1], "or -1 for none, got -2"),
        ([0, 1], r"one integer label for each of the 3 samples, got torch.int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], "one integer label for each of the 3 samples, got torch.float32"),
        (torch.zeros(3, 1, dtype=torch.int64), r"of shape \(3, 1\)"),
        (["cat", "dog", "cow"], "context must hold integer labels"),
    ],
)
def test_what_is_no_label_is_refused(context, message):
    arm = pixelcnn(LAYOUTS[0])
    with pytest.raises(InputError, match=message):
        arm(images(LAYOUTS[0], 3), context=context)
    with pytest.raises(InputError, match=message):
        arm.span_cache(3, 8).begin([0, 1, 2], context)


def test_labels_for_a_pixelcnn_without_classes_are_refused():
    with pytest.raises(InputError, match="this PixelCNN has no classes; leave context out, or train one with classes"):
        pixelcnn(LAYOUTS[0], classes=0)(images(LAYOUTS[0], 1), context=[0])
    with pytest.raises(InputError, match="classes must be a whole number of at least 0, got -1"):
        PixelCNN(LAYOUTS[0], PixelCNNConfig(resnets=1, filters=12, classes=-1))


def test_a_checkpoint_keeps_the_classes(tmp_path):
    arm, x = pixelcnn(LAYOUTS[0]), images(LAYOUTS[0])
    save_arm(arm, tmp_path / "labelled")
    with torch.inference_mode():
        assert torch.equal(load_arm(tmp_path / "labelled")(x, context=LABELS).logits, arm(x, context=LABELS).logits)


def build(config, *, classes=2, **heads):
    torch.manual_seed(0)
    layout = Layout(1, 4, 4, 2)
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=4, dropout=0.5, classes=classes))
    modules = ForecastingModules(layout, ForecastingConfig(2, 4, **heads), arm.hidden_features) if heads else None
    return Training(arm, modules, config, seed=0)


LABELLED = (
    torch.arange(12) % 2,
    (torch.arange(12) % 2)[:, None].expand(12, 16).to(torch.uint8),
)  # the label is the image


@pytest.mark.slow
def test_training_with_labels_learns_both_distributions():
    labels, data = LABELLED
    training = build(TrainingConfig(iterations=120, batch_size=12, learning_rate=2e-2, label_dropout=0.3))
    list(fit(training, data, labels))
    told, _ = evaluate(training.arm, None, data, labels=labels, batch_size=5)
    alone, _ = evaluate(training.arm, None, data)
    lied, _ = evaluate(training.arm, None, data, labels=1 - labels)
    assert told < alone - 0.02 and told < lied - 0.1


@pytest.mark.parametrize(("share", "seen"), [(0.0, {0, 1}), (1.0, {-1}), (0.5, {-1, 0, 1})])
def test_a_share_of_the_labels_is_dropped(share, seen):
    training = build(TrainingConfig(iterations=4, batch_size=12, label_dropout=share))
    found = set()
    training.arm.register_forward_pre_hook(
        lambda module, args, kwargs: found.update(kwargs["context"].tolist()), with_kwargs=True
    )
    list(fit(training, *LABELLED[::-1]))
    assert found == seen


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulate": 5}, {"autocast": True}])
def test_training_with_labels_resumes_with_the_same_bits(options):
    def fresh():
        return build(TrainingConfig(iterations=5, batch_size=7, **options), inputs=("hidden", "noise"), pairs="model")

    labels, data = LABELLED
    whole, first, second = fresh(), fresh(), fresh()
    metrics = list(fit(whole, data, labels))
    for step in fit(first, data, labels):
        if step.step == 2:
            break
    second.load_state({name: value.clone() for name, value in first.state().items()})
    assert list(fit(second, data, labels)) == metrics[2:]
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_labels_that_do_not_stand_beside_the_images_are_refused():
    training = build(TrainingConfig(iterations=1))
    with pytest.raises(InputError, match="a label for each image, got 11 labels for 12 images"):
        next(fit(training, LABELLED[1], LABELLED[0][:11]))
    with pytest.raises(InputError, match="a label for each image, got 11 labels for 12 images"):
        evaluate(training.arm, None, LABELLED[1], labels=LABELLED[0][:11])
    with pytest.raises(InputError, match=r"label_dropout must be in \[0, 1\], got 1.5"):
        TrainingConfig(label_dropout=1.5)
