"""Contract checks for ARMs, forecasters and datasets: ours run them in the tests, yours by `harness check`.

Each check raises AssertionError with what it saw. They run in float64, on layouts small enough to perturb every
dimension.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from arm_core.checkpoint import load_arm, save_arm
from arm_core.contracts import AutoregressiveModel, Forecaster
from arm_core.errors import InputError
from arm_core.forecasters import fixed_point, predict_last, row_above, zeros
from arm_core.gumbel import sample_noise
from arm_core.layout import Layout
from arm_core.samplers import ancestral_sample, predictive_sample, sample_many
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.slots import Slots

SMALL_LAYOUTS = (Layout(1, 8, 8, 3), Layout(3, 4, 8, 4), Layout(4, 8, 4, 2))
FORECASTERS: dict[str, Forecaster] = {
    "zeros": zeros,
    "predict_last": predict_last,
    "row_above": row_above,
    "fixed_point": fixed_point,
}
Check = tuple[str, Callable[[], None]]


def randomise(module: torch.nn.Module, *, seed: int = 0, scale: float = 0.25) -> None:
    """Replace every parameter by normal draws, so that nothing hides behind zeros or symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * scale)


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
        moved, still = arm.eval()(x), arm(base.repeat(layout.dims, 1))
    for name, after, before in zip(("logits", "hidden"), moved, still, strict=True):
        difference = (after - before).abs().amax(dim=-1) if after.shape[-1] else torch.zeros(x.shape)
        forbidden = difference.tril()  # (perturbed i, row j <= i)
        assert forbidden.max() < 1e-9, _leak(name, forbidden)
        assert name == "hidden" or layout.dims == 1 or difference.max() > 1e-9, f"{name} do not depend on x at all"


def _leak(name: str, forbidden: torch.Tensor) -> str:
    i, j = divmod(int(forbidden.argmax()), forbidden.shape[1])
    return f"{name} of dimension {j} change by {forbidden.max():.3g} with x at dimension {i}, which is not before it"


def check_shapes(arm: AutoregressiveModel) -> None:
    """Logits are (batch, dims, categories), hidden (batch, dims, hidden_features), whatever the batch."""
    layout = arm.layout
    for batch in (1, 3):
        with torch.inference_mode():
            logits, hidden = arm(torch.zeros(batch, layout.dims, dtype=torch.int64))
        for name, got, last in (("logits", logits, layout.categories), ("hidden", hidden, arm.hidden_features)):
            expected = (batch, layout.dims, last)
            assert tuple(got.shape) == expected, f"{name} must have shape {expected}, got {tuple(got.shape)}"


def _ancestral(arm: AutoregressiveModel, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in the ARM's dtype, and the ancestral samples under it."""
    dtype = next(arm.parameters(), torch.empty(0, dtype=torch.float64)).dtype
    noise = sample_noise(arm.layout, seed=seed, sample_ids=range(count), dtype=dtype)
    return noise, ancestral_sample(arm, noise).x


def check_exact(arm: AutoregressiveModel, forecaster: Forecaster, *, count: int = 3, seed: int = 0) -> None:
    """Predictive samples equal the ancestral ones under the same noise, in at most `dims` calls."""
    noise, expected = _ancestral(arm, count, seed)
    got = predictive_sample(arm, noise, forecaster)
    assert torch.equal(got.x, expected), f"{int((got.x != expected).any(1).sum())} of {count} samples differ"
    assert bool((got.arm_calls <= arm.layout.dims).all()), (
        f"more than {arm.layout.dims} calls: {got.arm_calls.tolist()}"
    )


def check_exact_in_windows(arm: AutoregressiveModel, forecaster: Forecaster, *, count: int = 3, seed: int = 0) -> None:
    """The same in cached windows, with fewer slots than samples."""
    (_, expected), window = _ancestral(arm, count, seed), arm.layout.width * arm.layout.channels + 1
    got = sample_many(arm, count=count, seed=seed, slots=2, forecaster=forecaster, window=window).x
    differ = int((got != expected).any(1).sum())
    assert differ == 0, f"window {window}: {differ} of {count} samples differ"


def check_windows(arm: AutoregressiveModel, *, count: int = 5, seed: int = 0) -> None:
    """Cached windows, narrow and wide, give the ancestral samples while slots are refilled, and the logits of a pass.

    Logits and hidden features of the spans may differ from those of a whole pass by rounding only.
    """
    row = arm.layout.width * arm.layout.channels
    noise, expected = _ancestral(arm, count, seed)
    for window in (1, row + 1, 2 * row):
        got = sample_many(arm, count=count, seed=seed, slots=2, window=window)
        differ = int((got.x != expected).any(1).sum())
        assert differ == 0, f"window {window}: {differ} of {count} samples differ from the ancestral ones"
        with sampling_mode(arm):
            work = Slots(arm, count, arm.span_cache(count, window), fixed_point)
            work.begin(list(range(count)), noise)
            while not all(work.finished()):
                work.step()
            for name, whole in arm(work.state.x)._asdict().items():
                error = (getattr(work.state, name) - whole).abs().max() if whole.numel() else 0.0
                allowed = 1e-9 * max(1.0, float(whole.abs().max())) if whole.numel() else 0.0
                assert error <= allowed, f"window {window}: {name} differ by {error:.3g} from those of a whole pass"


def check_saves(arm: AutoregressiveModel) -> None:
    """A saved and loaded ARM gives the same logits, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        save_arm(arm, Path(folder) / "arm")
        loaded = load_arm(Path(folder) / "arm", arm=type(arm))
    x = torch.zeros(2, arm.layout.dims, dtype=torch.int64)
    with torch.inference_mode():
        assert torch.equal(arm.eval()(x).logits, loaded(x).logits), "logits differ after saving and loading"


def check_moves(arm: AutoregressiveModel) -> None:
    """The ARM computes in the dtype that it was moved to."""
    x = torch.zeros(1, arm.layout.dims, dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        with torch.inference_mode():
            got = arm.to(dtype)(x).logits.dtype
        assert got == dtype, f"moved to {dtype}, the ARM gives {got}"


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
        yield f"{on}: shapes", partial(check_shapes, arm)
        yield f"{on}: logits and hidden depend on earlier dimensions only", partial(check_triangular, arm)
        for name, forecaster in FORECASTERS.items():
            yield f"{on}: {name} gives the ancestral samples", partial(check_exact, arm, forecaster)
        if arm.granule is not None:
            yield (
                f"{on}: windows give the ancestral samples, and the logits of a whole pass",
                partial(check_windows, arm),
            )
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
        assert images.dtype == torch.uint8, f"{name} must be uint8, got {images.dtype}"
        assert tuple(images.shape[1:]) == expected, f"{name} must be (n, {expected}), got {tuple(images.shape)}"
        assert len(images) > 0, f"{name} is empty"
        assert int(images.max()) < layout.categories, (
            f"{name} has the value {int(images.max())}, categories are {layout.categories}"
        )
        assert torch.equal(images, dataset.split(name)), f"{name} differs between two readings"
