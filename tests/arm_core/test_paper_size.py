"""The paper's models at their full size: one training step and one sampling call on a CPU (Table 1)."""

import pytest
import torch

from arm_core import Layout, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.step import step
from arm_core.training import AutoencoderTraining, AutoencoderTrainingConfig, Training, TrainingConfig, fit
from tests.conftest import work_of

MODELS = {
    "binary-mnist": (Layout(1, 28, 28, 2), PixelCNNConfig(resnets=2, filters=60), ForecastingConfig(20, 60), 3_393_122),
    "cifar10-8-bit": (Layout(3, 32, 32, 256), PixelCNNConfig(), ForecastingConfig(), 56_563_230),
    "cifar10-5-bit": (Layout(3, 32, 32, 32), PixelCNNConfig(), ForecastingConfig(), 55_147_326),
    "latents": (Layout(4, 8, 8, 128), PixelCNNConfig(filters=160), ForecastingConfig(filters=160), 54_662_752),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_paper_size_model_takes_a_step_and_a_sampling_call(name):
    layout, config, heads, parameters = MODELS[name]
    torch.manual_seed(0)
    arm = PixelCNN(layout, config)
    assert sum(p.numel() for p in arm.parameters()) == parameters
    modules = ForecastingModules(layout, heads, arm.hidden_features)
    data = torch.randint(layout.categories, (1, layout.dims), dtype=torch.uint8)
    (metrics,) = fit(Training(arm, modules, TrainingConfig(iterations=1, batch_size=1), seed=0), data)
    assert 0 < metrics.figures["train_bits_per_dim"] < 20
    with sampling_mode(arm):
        work = work_of(arm, sample_noise(layout, seed=0, sample_ids=[0]), lambda state: state.x)
        step(work, *work.spans())
    assert int(work.state.known) >= 1


@pytest.mark.slow
def test_the_paper_size_autoencoder_takes_a_step():
    torch.manual_seed(0)
    autoencoder = DiscreteAutoencoder(Layout(3, 32, 32, 256), AutoencoderConfig())
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    training = AutoencoderTraining(autoencoder, AutoencoderTrainingConfig(iterations=1, batch_size=2), seed=0)
    (metrics,) = fit(training, images)
    assert 0 < metrics.figures["train_mse"] < 4
    assert autoencoder.encode(images).shape == (2, 4, 8, 8)
