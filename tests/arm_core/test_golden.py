"""Samples drawn with a seed stay the same: noise and samples of the first version, by their sha256.

No change may break these. The digests were written before noise became a source and the three steps became one.
"""

import hashlib

import numpy as np
import pytest
import torch

from arm_core import Layout, ancestral_sample, load_arm, predictive_sample, resampled_sample, sample_many, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import fixed_point, predict_last
from arm_core.testing import randomise

LAYOUTS = [Layout(1, 8, 8, 2), Layout(3, 4, 8, 5), Layout(1, 1, 7, 3), Layout(1, 2, 3, 1031), Layout(4, 4, 4, 128)]
IDS = [0, 1, 17, 2**32 - 1, 2**32, 2**40 + 3, 2**63, 2**64 - 1]
SEEDS = [0, 10, 2**33 + 1, 2**64 - 1]


def _digest(*tensors: torch.Tensor) -> str:
    """Of the bytes, little-endian, of whatever dtype."""
    text = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        text.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return text.hexdigest()[:16]


NOISE = {
    "1x8x8x2 torch.float64": "ded9439bcea4bbaa",
    "1x8x8x2 torch.float32": "8bd92b6956eb0e22",
    "3x4x8x5 torch.float64": "7ad8fbff5d594d73",
    "3x4x8x5 torch.float32": "e4c4d6e3c043a4f6",
    "1x1x7x3 torch.float64": "5edc7e995bbdacaa",
    "1x1x7x3 torch.float32": "c663381014c4c06f",
    "1x2x3x1031 torch.float64": "b9a751ab210c63fa",
    "1x2x3x1031 torch.float32": "7175161a5c9a7f32",
    "4x4x4x128 torch.float64": "0f48c75ace49f177",
    "4x4x4x128 torch.float32": "9bd63f2f975cfe45",
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_noise_is_that_of_the_first_version(layout: Layout, dtype: torch.dtype) -> None:
    drawn = [sample_noise(layout, seed=seed, sample_ids=IDS, dtype=dtype) for seed in SEEDS]
    key = f"{layout.channels}x{layout.height}x{layout.width}x{layout.categories} {dtype}"
    assert _digest(*drawn) == NOISE[key]


SAMPLES = {
    "1x8x8x2 T=1.0 known=0": "3a3bee5c9f401957",
    "1x8x8x2 T=1.0 known=13": "df9c7fce144b2aa3",
    "1x8x8x2 T=0.7 known=0": "3a3bee5c9f401957",
    "1x8x8x2 T=0.7 known=13": "df9c7fce144b2aa3",
    "1x8x8x2 T=0.0 known=0": "3a3bee5c9f401957",
    "1x8x8x2 T=0.0 known=13": "df9c7fce144b2aa3",
    "3x4x8x5 T=1.0 known=0": "ed6dffb2543ecdb5",
    "3x4x8x5 T=1.0 known=13": "1688f20a9e7afd74",
    "3x4x8x5 T=0.7 known=0": "ed6dffb2543ecdb5",
    "3x4x8x5 T=0.7 known=13": "7513393bb7e800f3",
    "3x4x8x5 T=0.0 known=0": "ed6dffb2543ecdb5",
    "3x4x8x5 T=0.0 known=13": "7513393bb7e800f3",
    "4x4x4x16 T=1.0 known=0": "08ae33b7b96b7f43",
    "4x4x4x16 T=1.0 known=13": "870849e3619b0b46",
    "4x4x4x16 T=0.7 known=0": "91db8aaefa3400e5",
    "4x4x4x16 T=0.7 known=13": "1ea99f36bf4fa1b8",
    "4x4x4x16 T=0.0 known=0": "bb3267431a2cd9bf",
    "4x4x4x16 T=0.0 known=13": "24866e33baba46b2",
    "results/checkpoint": "b71941c2a231e137",
    "resampled": "383a1e2a7a1db70d",
}


def _arm(layout: Layout) -> PixelCNN:
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=12)).double().eval()
    randomise(arm, scale=0.3)
    return arm


@pytest.mark.slow
@pytest.mark.parametrize("layout", [Layout(1, 8, 8, 2), Layout(3, 4, 8, 5), Layout(4, 4, 4, 16)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("known", [0, 13])
def test_the_samples_are_those_of_the_first_version(layout: Layout, temperature: float, known: int) -> None:
    arm = _arm(layout)
    generator = torch.Generator().manual_seed(5)
    prefix = torch.randint(layout.categories, (6, known), generator=generator) if known else None
    kept = {"prefix": prefix, "temperature": temperature}
    first = 2**32 - 3
    noise = sample_noise(layout, seed=11, sample_ids=range(first, first + 6), dtype=torch.float64)
    ancestral = ancestral_sample(arm, noise, **kept).x
    key = f"{layout.channels}x{layout.height}x{layout.width}x{layout.categories} T={temperature} known={known}"
    assert _digest(ancestral) == SAMPLES[key]
    assert torch.equal(predictive_sample(arm, noise, fixed_point, **kept).x, ancestral)
    window = layout.width * layout.channels
    assert torch.equal(predictive_sample(arm, noise, predict_last, window=window, **kept).x, ancestral)
    assert torch.equal(sample_many(arm, count=6, seed=11, slots=2, first_id=first, **kept).x, ancestral)


def test_the_samples_of_the_reference_checkpoint_are_those_of_the_first_version() -> None:
    arm = load_arm("results/checkpoint", dtype=torch.float64)
    assert _digest(sample_many(arm, count=16, seed=10, slots=8).x) == SAMPLES["results/checkpoint"]


def test_samples_with_fresh_noise_are_those_of_the_first_version() -> None:
    arm = _arm(Layout(3, 4, 8, 5))
    drawn = resampled_sample(arm, batch=3, generator=torch.Generator().manual_seed(7), forecaster=fixed_point)
    assert _digest(drawn.x) == SAMPLES["resampled"]
