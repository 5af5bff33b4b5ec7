"""Contract checks for ARMs, forecasters and datasets: ours run them in the tests, yours by `harness check`.

Each check raises AssertionError with what it saw, under `python -O` too. They run in float64, on layouts small enough
to perturb every dimension.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from arm_core.checkpoint import load_arm, save_arm
from arm_core.contracts import ArmOutput, AutoregressiveModel, Contexts, Forecaster, select_contexts
from arm_core.decision import Decision
from arm_core.errors import InputError
from arm_core.forecasters import fixed_point, predict_last, row_above, zeros
from arm_core.gumbel import DenseNoise
from arm_core.layout import Layout
from arm_core.samplers import ancestral_sample, predictive_sample, sample_many
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import keyed_noise
from arm_core.samplers.step import step
from arm_core.samplers.work import Work

SMALL_LAYOUTS = (Layout(1, 8, 8, 3), Layout(3, 4, 8, 4), Layout(4, 8, 4, 2))
FORECASTERS: dict[str, Forecaster] = {
    "zeros": zeros,
    "predict_last": predict_last,
    "row_above": row_above,
    "fixed_point": fixed_point,
}
Check = tuple[str, Callable[[], None]]
FIRST = ("shapes", "the same x gives the same logits and hidden")
"""Properties without which the others say nothing."""


def randomise(module: torch.nn.Module, *, seed: int = 0, scale: float = 0.25) -> None:
    """Replace every parameter by normal draws, so that nothing hides behind zeros or symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * scale)


def require(holds: bool | torch.Tensor, message: str) -> None:
    """Raise an AssertionError unless it holds; an `assert` would vanish under PYTHONOPTIMIZE."""
    if not holds:
        raise AssertionError(message)


def check_triangular(arm: AutoregressiveModel) -> None:
    """Row i of logits and hidden depends on x_<i only: perturb every dimension and compare every row.

    Rows up to the perturbed one must not move at all beyond rounding; some later row must, or the ARM models nothing.
    """
    layout = arm.layout
    generator = torch.Generator().manual_seed(1)
    base = torch.randint(layout.categories, (1, layout.dims), generator=generator)
    x = base.repeat(layout.dims, 1)
    x.diagonal().add_(1).remainder_(layout.categories)
    with torch.inference_mode():
        moved, still = _evaluated(arm.eval(), x), _evaluated(arm, base.repeat(layout.dims, 1))
    for name, after, before in zip(("logits", "hidden"), moved, still, strict=True):
        apart = torch.where(after == before, 0.0, (after - before).abs())  # equal infinities are equal
        difference = apart.nan_to_num(torch.inf).amax(dim=-1) if after.shape[-1] else torch.zeros(x.shape)
        forbidden = difference.tril()  # (perturbed i, row j <= i)
        require(forbidden.max() < 1e-9, _leak(name, forbidden))
        depends = name == "hidden" or layout.dims == 1 or difference.max() > 1e-9
        require(depends, f"{name} do not depend on x at all")


def _evaluated(arm: AutoregressiveModel, x: torch.Tensor) -> ArmOutput:
    """With contexts, if the ARM offers some: all rows the same."""
    context = arm.example_contexts(1)
    return arm(x) if context is None else arm(x, context=select_contexts(context, [0] * len(x)))


def _leak(name: str, forbidden: torch.Tensor) -> str:
    i, j = divmod(int(forbidden.argmax()), forbidden.shape[1])
    return f"{name} of dimension {j} change by {forbidden.max():.3g} with x at dimension {i}, which is not before it"


def check_shapes(arm: AutoregressiveModel) -> None:
    """Logits are (batch, dims, categories), hidden (batch, dims, hidden_features), whatever the batch."""
    layout = arm.layout
    for batch in (1, 3):
        with torch.inference_mode():
            given = arm(torch.zeros(batch, layout.dims, dtype=torch.int64))
        require(
            isinstance(given, ArmOutput), f"forward must return ArmOutput(logits, hidden), got {type(given).__name__}"
        )
        logits, hidden = given
        for name, got, last in (("logits", logits, layout.categories), ("hidden", hidden, arm.hidden_features)):
            expected = (batch, layout.dims, last)
            require(tuple(got.shape) == expected, f"{name} must have shape {expected}, got {tuple(got.shape)}")


def check_repeats(arm: AutoregressiveModel) -> None:
    """In eval mode an ARM is a function: two calls on one x agree."""
    x = torch.zeros(1, arm.layout.dims, dtype=torch.int64)
    with torch.inference_mode():
        first, second = _evaluated(arm.eval(), x), _evaluated(arm, x)
    for name, one, other in zip(("logits", "hidden"), first, second, strict=True):
        require(
            torch.equal(one.nan_to_num(), other.nan_to_num()),
            f"{name} of two calls on the same x differ: something is random in eval mode, such as "
            "functional.dropout without training=self.training",
        )


def _ancestral(
    arm: AutoregressiveModel, count: int, seed: int, context: Contexts | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as samplers want it, and the ancestral samples under it."""
    noise = keyed_noise(arm, seed=seed, sample_ids=range(count)).dense()
    return noise, ancestral_sample(arm, noise, context=context).x


def _require_equal(got: torch.Tensor, expected: torch.Tensor, where: str = "") -> None:
    differ = int((got != expected).any(1).sum())
    require(differ == 0, f"{where}{differ} of {len(expected)} samples differ from the ancestral ones")


def check_exact(arm: AutoregressiveModel, forecaster: Forecaster, *, count: int = 3, seed: int = 0) -> None:
    """Predictive samples equal the ancestral ones under the same noise, in at most `dims` calls."""
    noise, expected = _ancestral(arm, count, seed)
    got = predictive_sample(arm, noise, forecaster)
    _require_equal(got.x, expected)
    dims = arm.layout.dims
    require((got.arm_calls <= dims).all(), f"more than {dims} calls: {got.arm_calls.tolist()}")


def check_exact_in_windows(arm: AutoregressiveModel, forecaster: Forecaster, *, count: int = 3, seed: int = 0) -> None:
    """The same in cached windows, with fewer slots than samples."""
    (_, expected), window = _ancestral(arm, count, seed), arm.layout.width * arm.layout.channels + 1
    got = sample_many(arm, count=count, seed=seed, slots=2, forecaster=forecaster, window=window).x
    _require_equal(got, expected, f"window {window}: ")


def check_windows(arm: AutoregressiveModel, *, count: int = 5, seed: int = 0) -> None:
    """Cached windows, narrow and wide, give the ancestral samples while slots are refilled, and the logits of a pass.

    Logits and hidden features of the spans may differ from those of a whole pass by rounding only. An ARM that offers
    contexts is checked under them.
    """
    row, context = arm.layout.width * arm.layout.channels, arm.example_contexts(count)
    noise, expected = _ancestral(arm, count, seed, context)
    rows = list(range(count))
    for window in (1, row + 1, 2 * row):
        got = sample_many(arm, count=count, seed=seed, slots=2, window=window, context=context)
        _require_equal(got.x, expected, f"window {window}: ")
        with sampling_mode(arm):
            work = Work(arm, count, arm.span_cache(count, window), fixed_point, DenseNoise(noise), Decision())
            work.begin(rows, rows, contexts=context)
            streamed = {"logits": work.state.logits, "hidden": work.state.hidden}
            while not all(work.finished()):
                step(work, *work.spans())
            whole = arm(work.state.x) if context is None else arm(work.state.x, context=context)
            for name, full in whole._asdict().items():
                finite = full.isfinite()
                require(torch.equal(streamed[name][~finite], full[~finite]), f"window {window}: {name} differ")
                apart = (streamed[name] - full)[finite].abs()
                error, largest = (
                    float(values.max()) if apart.numel() else 0.0 for values in (apart, full[finite].abs())
                )
                message = f"window {window}: {name} differ by {error:.3g} from those of a whole pass"
                require(error <= 1e-9 * max(1.0, largest), message)


def check_contexts(arm: AutoregressiveModel, *, count: int = 4, seed: int = 0) -> None:
    """Every sample reads its own context and no other, on whole images, and contexts make a difference."""
    context = arm.example_contexts(count)
    if context is None or len(context) != count:
        raise AssertionError(f"example_contexts({count}) must give {count} contexts")
    noise, expected = _ancestral(arm, count, seed, context)
    _require_equal(predictive_sample(arm, noise, fixed_point, context=context).x, expected, "whole images: ")
    for row in range(count):
        alone = ancestral_sample(arm, noise[row : row + 1], context=select_contexts(context, [row])).x
        _require_equal(alone, expected[row : row + 1], f"context {row} alone: ")
    x = expected[:1].expand(count, -1)
    with torch.inference_mode():
        logits = arm(x, context=context).logits
    require((logits != logits[:1]).any(), "the logits do not depend on the context at all")


def check_saves(arm: AutoregressiveModel) -> None:
    """A saved and loaded ARM gives the same logits, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        save_arm(arm, Path(folder) / "arm")
        loaded = load_arm(Path(folder) / "arm", arm=type(arm))
    x = torch.zeros(2, arm.layout.dims, dtype=torch.int64)
    with torch.inference_mode():
        equal = torch.equal(arm.eval()(x).logits, loaded(x).logits)
    require(equal, "logits differ after saving and loading")


def check_moves(arm: AutoregressiveModel) -> None:
    """The ARM computes in the dtype that it was moved to."""
    x = torch.zeros(1, arm.layout.dims, dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        with torch.inference_mode():
            got = arm.to(dtype)(x).logits.dtype
        require(got == dtype, f"moved to {dtype}, the ARM gives {got}")


def arm_checks(
    build: Callable[[Layout], AutoregressiveModel], layouts: Sequence[Layout] = SMALL_LAYOUTS
) -> Iterator[Check]:
    """(property, check) for an ARM on every layout that it takes.

    Raises:
        InputError: it takes none of the layouts.
    """
    refused = []
    for layout in layouts:
        try:
            arm = build(layout).double().eval()
        except InputError as error:
            refused.append(f"{layout}: {error}")
            continue
        randomise(arm)
        on = f"{layout.channels}x{layout.height}x{layout.width}, {layout.categories} categories"
        for name, first in zip(FIRST, (check_shapes, check_repeats), strict=True):
            yield f"{on}: {name}", partial(first, arm)
        yield f"{on}: logits and hidden depend on earlier dimensions only", partial(check_triangular, arm)
        for name, forecaster in FORECASTERS.items():
            yield f"{on}: {name} gives the ancestral samples", partial(check_exact, arm, forecaster)
        if arm.granule is not None:
            yield (
                f"{on}: windows give the ancestral samples, and the logits of a whole pass",
                partial(check_windows, arm),
            )
        if arm.example_contexts(1) is not None:
            yield f"{on}: every sample follows its own context", partial(check_contexts, arm)
        yield f"{on}: saves and loads", partial(check_saves, arm)
        yield f"{on}: moves between dtypes", partial(check_moves, arm)
    if len(refused) == len(layouts):
        raise InputError("the ARM takes none of the layouts that are tried:\n" + "\n".join(refused))


def forecaster_checks(build: Callable[[Layout], Forecaster], arms: Sequence[AutoregressiveModel]) -> Iterator[Check]:
    """(property, check) for a forecaster, on ARMs in float64."""
    for arm in arms:
        layout = arm.layout
        on = f"{layout.channels}x{layout.height}x{layout.width}, {layout.categories} categories"
        forecaster = build(layout)
        yield f"{on}: gives the ancestral samples", partial(check_exact, arm, forecaster)
        if arm.granule is not None:
            yield f"{on}: and in cached windows", partial(check_exact_in_windows, arm, forecaster)


def check_dataset(dataset: Any) -> None:
    """Three splits of uint8 images that fit the layout, none of them empty, the same at every reading."""
    layout = dataset.layout
    for name in ("train", "valid", "test"):
        images = dataset.split(name)
        expected = (layout.channels, layout.height, layout.width)
        require(images.dtype == torch.uint8, f"{name} must be uint8, got {images.dtype}")
        require(tuple(images.shape[1:]) == expected, f"{name} must be (n, {expected}), got {tuple(images.shape)}")
        require(len(images) > 0, f"{name} is empty")
        most = int(images.max())
        require(most < layout.categories, f"{name} has the value {most}, categories are {layout.categories}")
        require(torch.equal(images, dataset.split(name)), f"{name} differs between two readings")
