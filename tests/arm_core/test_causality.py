"""The triangularity of everything that claims it, by perturbing every dimension."""

import pytest
import torch

from arm_core import InputError, Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.testing import check_shapes, check_triangular, randomise

LAYOUTS = [
    Layout(channels, height, width, categories)
    for channels, categories in ((1, 3), (3, 4), (4, 2))
    for height, width in ((4, 4), (8, 8), (12, 4))
]


def name(layout):
    return f"{layout.channels}x{layout.height}x{layout.width}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_pixelcnn_depends_on_earlier_dimensions_only(layout):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=2, filters=12)).double()
    randomise(arm)
    check_shapes(arm)
    check_triangular(arm)


@pytest.mark.parametrize("layout", LAYOUTS[::3], ids=name)
def test_pixelcnn_sees_the_dimension_just_before_wherever_that_is_a_neighbour(layout):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=2, filters=24)).double().eval()
    randomise(arm, scale=0.1)  # small: large random weights saturate the gates, and nothing passes
    x = torch.zeros(1, layout.dims, dtype=torch.int64)
    with torch.inference_mode():
        before = arm(x).logits[0]
        for i in range(layout.dims - 1):
            moved = x.clone()
            moved[0, i] = 1
            change = (arm(moved).logits[0] - before).abs().amax(dim=-1)
            pixel, row = i // layout.channels, layout.channels * layout.width
            if pixel < layout.height * layout.width - 1:
                assert change[(pixel + 1) * layout.channels :].max() > 1e-9, f"no later pixel depends on dimension {i}"
            for j in range(i + 1, (pixel + 1) * layout.channels):
                assert change[j] > 1e-9, f"dimension {j} does not depend on {i}, an earlier channel of its pixel"
            if i + row < layout.dims:
                assert change[i + row] > 1e-9, f"dimension {i + row} does not depend on {i}, just above it"


@pytest.mark.parametrize("unit", ["dimension", "pixel"])
@pytest.mark.parametrize("layout", [Layout(1, 4, 4, 3), Layout(3, 4, 4, 2), Layout(4, 4, 4, 2)], ids=name)
def test_modules_read_only_what_is_right_at_the_frontier_at_every_horizon(layout, unit):
    """With n dimensions known, hidden features from n on are wrong: no module may read them, at any n."""
    config = PixelCNNConfig(resnets=1, filters=12)
    arm = PixelCNN(layout, config).double().eval()
    randomise(arm)
    modules = ForecastingModules(
        layout, ForecastingConfig(horizon=5, filters=12, unit=unit), arm.hidden_features
    ).double()
    randomise(modules, seed=1)
    x = torch.randint(layout.categories, (1, layout.dims), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = modules(arm(x).hidden)
        for n in range(layout.dims):
            wrong = x.clone()
            wrong[:, n:] = (wrong[:, n:] + 1) % layout.categories
            hidden = arm(wrong).hidden.clone()
            if unit == "dimension":
                hidden[:, n:] = torch.nan
            else:
                hidden[:, n // layout.channels * layout.channels :] = torch.nan
            hidden = hidden.nan_to_num(1e6)
            unit_of_n = n // modules.unit_dims
            said = modules(hidden)[:, unit_of_n]
            torch.testing.assert_close(said, right[:, unit_of_n], rtol=0, atol=1e-9)
            assert said.shape[1] == 5


@pytest.mark.parametrize(
    ("layout", "options", "parameters"),
    [
        (Layout(3, 32, 32, 256), {}, 56_563_230),
        (Layout(3, 32, 32, 32), {}, 55_147_326),
        (Layout(1, 28, 28, 2), {"resnets": 2, "filters": 60}, 3_393_122),
        (Layout(4, 8, 8, 128), {"filters": 160}, 54_662_752),
    ],
)
def test_parameter_counts_are_those_of_the_description(layout, options, parameters):
    with torch.device("meta"):
        arm = PixelCNN(layout, PixelCNNConfig(**options))
    assert sum(p.numel() for p in arm.parameters()) == parameters


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (Layout(1, 10, 8, 2), {}, "height must be a multiple of 4 .* got 10; nearest: 8"),
        (Layout(1, 8, 7, 2), {}, "width must be a multiple of 4 .* got 7; nearest: 8"),
        (Layout(3, 8, 8, 2), {"filters": 20}, r"multiple of the channels \(3\), got 20; nearest: 21"),
        (Layout(1, 8, 8, 2), {"resnets": 0}, "resnets must be a whole number of at least 1, got 0"),
        (Layout(1, 8, 8, 2), {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_sizes_are_refused(layout, options, message):
    with pytest.raises(InputError, match=message):
        PixelCNN(layout, PixelCNNConfig(**{"resnets": 1, "filters": 12, **options}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, r"horizon must be in \[1, 48\]"),
        ({"horizon": 17, "unit": "pixel"}, r"horizon must be in \[1, 16\] \(pixels of the image\), got 17"),
        ({"filters": 7}, r"multiple of the channels \(3\), got 7; nearest: 6"),
        ({"inputs": ("x", "noise")}, r"inputs must be one of \['hidden'\], .* got \['x', 'noise'\]"),
    ],
)
def test_impossible_modules_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ForecastingModules(Layout(3, 4, 4, 2), ForecastingConfig(**{"filters": 12, **options}), 4)
