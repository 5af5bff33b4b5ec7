import pytest
import torch

from arm_core import InputError, Layout, load_checkpoint, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.training import (
    AutoencoderTraining,
    AutoencoderTrainingConfig,
    encode_all,
    evaluate_autoencoder,
    fit,
)

LAYOUT = Layout(3, 16, 16, 256)
CONFIG = AutoencoderConfig(width=16, channels=2, categories=5)


def build(seed=0):
    torch.manual_seed(seed)
    return DiscreteAutoencoder(LAYOUT, CONFIG)


def photos(count=12):
    """Smooth colour ramps: something that few latents can describe."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(256, (count, 3, 2, 2), generator=generator).float()
    return torch.nn.functional.interpolate(ends, size=(16, 16), mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize(
    ("layout", "config", "latents", "parameters"),
    [
        (Layout(3, 32, 32, 256), AutoencoderConfig(), Layout(4, 8, 8, 128), 30_040_835),
        (Layout(1, 28, 28, 2), AutoencoderConfig(width=8, channels=1, categories=2), Layout(1, 7, 7, 2), None),
    ],
)
def test_latents_are_a_quarter_of_the_size_and_the_paper_size_has_its_parameters(layout, config, latents, parameters):
    with torch.device("meta"):
        autoencoder = DiscreteAutoencoder(layout, config)
    assert autoencoder.latent_layout == latents
    if parameters is not None:
        assert sum(p.numel() for p in autoencoder.parameters()) == parameters
        assert sum(p.numel() for p in autoencoder.encoder.parameters()) == 13_447_680


def test_decoding_what_was_encoded_is_the_rounded_reconstruction():
    autoencoder = build().double().eval()
    latents = autoencoder.encode(photos())
    assert latents.shape == (12, 2, 4, 4) and latents.max() < 5 and latents.dtype == torch.int64
    images = autoencoder.decode(latents)
    assert images.shape == (12, 3, 16, 16) and images.dtype == torch.uint8
    expected = ((autoencoder(photos()) + 1) / 2 * 255).round().clamp(0, 255)
    assert torch.equal(images, expected.to(torch.uint8))


def test_the_code_does_not_depend_on_the_mode_or_the_rest_of_the_batch():
    autoencoder = build()
    list(fit(AutoencoderTraining(autoencoder, AutoencoderTrainingConfig(iterations=2, batch_size=4), seed=0), photos()))
    assert autoencoder.training
    together = autoencoder.encode(photos())
    assert autoencoder.training, "the mode is as it was"
    assert torch.equal(together[:1], autoencoder.eval().encode(photos()[:1]))
    assert torch.equal(together, encode_all(autoencoder, photos(), batch_size=5))


def test_training_lowers_the_error_and_a_resumed_one_ends_with_the_same_bits():
    config = AutoencoderTrainingConfig(iterations=40, batch_size=6, learning_rate=2e-3)
    before, _ = evaluate_autoencoder(build(), photos())
    whole = AutoencoderTraining(build(), config, seed=0)
    list(fit(whole, photos()))
    after, usage = evaluate_autoencoder(whole.autoencoder, photos())
    assert after < before * 0.9
    assert 0 < usage.used_fraction <= 1 <= usage.perplexity <= 5
    first = AutoencoderTraining(build(), config, seed=0)
    for step in fit(first, photos()):
        if step.step == 13:
            break
    second = AutoencoderTraining(build(1), config, seed=0)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    list(fit(second, photos()))
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_a_checkpoint_keeps_the_autoencoder(tmp_path):
    autoencoder = build()
    arm = PixelCNN(autoencoder.latent_layout, PixelCNNConfig(resnets=1, filters=4))
    save_arm(arm, tmp_path / "arm", autoencoder=autoencoder)
    loaded = load_checkpoint(tmp_path / "arm").autoencoder
    assert not loaded.training
    assert torch.equal(loaded.encode(photos()), autoencoder.encode(photos()))
    with pytest.raises(InputError, match="the ARM models"):
        save_arm(PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=6)), tmp_path / "x", autoencoder=autoencoder)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (Layout(3, 30, 32, 256), {}, "height must be a multiple of 4 .* got 30; nearest: 32"),
        (LAYOUT, {"width": 7}, "width must be even .* got 7"),
        (LAYOUT, {"channels": 0}, "channels must be at least 1, got 0"),
        (LAYOUT, {"categories": 257}, r"categories must be in \[2, 256\] .* got 257"),
    ],
)
def test_impossible_sizes_are_refused(layout, options, message):
    with pytest.raises(InputError, match=message):
        DiscreteAutoencoder(layout, AutoencoderConfig(**options))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"latents must have shape \(n, 2, 4, 4\), got \(1, 2, 4, 5\)"):
        build().decode(torch.zeros(1, 2, 4, 5, dtype=torch.int64))
