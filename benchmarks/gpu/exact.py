"""Question 1: does the device give the samples of the CPU?

In float64 every sampler, window and number of slots must give the samples that ancestral sampling in float64 gives on
the CPU, bit for bit. In float32 the share of samples that are the same is reported, and with `certified` it must be 1.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import arm_core
from arm_core import (
    AutoregressiveModel,
    Forecaster,
    InputError,
    Layout,
    ancestral_sample,
    load_checkpoint,
    predictive_sample,
    sample_many,
    sample_noise,
)
from arm_core.arms import PixelCNNConfig
from arm_core.forecasters import LearnedForecaster, fixed_point, fixed_point_above
from arm_core.samplers import cached_sequential_sample
from arm_core.samplers.mode import sampling_mode
from benchmarks.gpu.models import RESULTS, SIZES, SMALL, Model, Size, model_of
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import NotThereError, Setting, attempt
from benchmarks.gpu.spans import best_way, spans_by, ways

SEED = 2026
Draw = Callable[[], Tensor]
COLOUR = Size("R2 F12", Layout(3, 8, 8, 16), PixelCNNConfig(2, 12, dropout=0.0), 1.5, None)


def noise(setting: Setting) -> Iterator[Row]:
    """Whether the noise that the device makes is the noise that the CPU makes."""
    layout = Layout(1, 8, 8, 5)
    ids, dims = [0, 3, 2**40], 64
    rows, at = (part.flatten() for part in torch.meshgrid(torch.arange(3), torch.arange(dims), indexing="ij"))

    def equal(dtype: torch.dtype) -> Row:
        keyed = offered(arm_core, "KeyedNoise")
        expected = sample_noise(layout, seed=SEED, sample_ids=ids, dtype=dtype).flatten(0, 1)
        source = keyed(layout, seed=SEED, sample_ids=ids, dtype=dtype, device=setting.device)
        found = source.at(rows.to(setting.device), at.to(setting.device)).cpu()
        furthest = (found.double() - expected.double()).abs().max().item()
        share = (found == expected).double().mean().item()
        return {"kind": "checked", "held": share == 1, "share": share, "amount": furthest, "unit": "furthest apart"}

    for dtype in (torch.float32, torch.float64):
        what = f"KeyedNoise on the device is sample_noise on the CPU, {_name(dtype)}"
        yield attempt(setting, {"what": what, "dtype": _name(dtype)}, partial(equal, dtype))
    yield attempt(setting, {"what": "Philox bits of the device are NumPy's"}, partial(_same_bits, setting.device))


def float64(size: Size, count: int, *, slow: bool) -> Callable[[Setting], Iterator[Row]]:
    """An item: all samplers in float64 against the ancestral samples of the CPU.

    Args:
        size: of the ARM.
        count: samples.
        slow: make those by ancestral sampling, and run what takes a call a dimension on the device too; otherwise
            they are found as the fixed point, and proved.
    """

    def run(setting: Setting) -> Iterator[Row]:
        model = model_of(size, setting.device, torch.float64)
        there = model_of(size, torch.device("cpu"), torch.float64)
        on_cpu = sample_noise(size.layout, seed=SEED, sample_ids=range(count), dtype=torch.float64)
        reference = ancestral_sample(there.arm, on_cpu).x if slow else _fixed_point_of(there.arm, on_cpu)
        for head, draw in _contestants(model, on_cpu.to(setting.device), slow=slow):
            head = {**model.columns, "slots": count, "samples": count, **head}
            yield attempt(setting, head, partial(_compared, draw, reference, must=True))

    return run


def float32(size: Size, count: int, slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: the share of float32 samples that are those of float64 on the same device."""

    def run(setting: Setting) -> Iterator[Row]:
        exact, model = (model_of(size, setting.device, dtype) for dtype in (torch.float64, torch.float32))
        source = partial(sample_noise, size.layout, seed=SEED, sample_ids=range(count), device=setting.device)
        reference = _fixed_point_of(exact.arm, source(dtype=torch.float64))
        many = partial(sample_many, model.arm, count=count, seed=SEED, slots=slots)
        draws: dict[str, Draw] = {
            "fixed point, whole batch": lambda: (
                predictive_sample(model.arm, source(dtype=torch.float32), fixed_point).x
            ),
            "windows, refilled": lambda: many(window=size.row).x,
        }
        head = {**model.columns, "slots": slots, "samples": count}
        for what, draw in draws.items():
            yield attempt(setting, {**head, "what": what}, partial(_compared, draw, reference, must=False))

        def certified() -> Tensor:
            return many(window=size.row, certified=True).x

        head["what"] = "windows, certified"
        yield attempt(setting, head, partial(_compared, certified, reference, must=True))

    return run


def items(small: bool) -> Iterator[tuple[str, Callable[[Setting], Iterator[Row]], float]]:
    """(name, run, seconds) of all items of this question."""
    yield "noise", noise, 3
    if small:
        for size in SMALL:
            yield f"float64 {size.name}", float64(size, 3, slow=True), 10
        yield f"float32 {SMALL[0].name}", float32(SMALL[0], 4, 2), 5
        return
    yield f"float64 {SIZES[0].name}", float64(SIZES[0], 3, slow=False), 25
    yield f"float64 {COLOUR.name}", float64(COLOUR, 5, slow=True), 25
    yield f"float32 {SIZES[0].name}", float32(SIZES[0], 512, 128), 15


def offered(place: Any, name: str) -> Any:
    """A public name that this version may lack."""
    try:
        return getattr(place, name)
    except (AttributeError, InputError) as error:  # the latter: a package that it needs is missing
        raise NotThereError(f"{place.__name__} offers no {name} here ({error})") from None


def _contestants(model: Model, dense: Tensor, *, slow: bool) -> Iterator[tuple[Row, Draw]]:
    """Every way to the samples of this noise, on the device of the model.

    Args:
        model: in float64.
        dense: the noise.
        slow: also ancestral sampling and cached sequential sampling, a call a dimension without recording.
    """
    arm, count, row = model.arm, len(dense), model.size.row
    granule, best = model.size.layout.channels, best_way(model.arm)
    if slow:
        yield {"what": "ancestral"}, lambda: ancestral_sample(arm, dense).x
        yield {"what": "cached sequential", "window": granule}, lambda: cached_sequential_sample(arm, dense).x
    yield {"what": "fixed point, whole batch"}, lambda: predictive_sample(arm, dense, fixed_point).x
    yield {"what": "fixed point, keyed noise"}, lambda: predictive_sample(arm, _keyed(arm, count), fixed_point).x
    for way in ways(arm):
        several = {granule, -(-row // 2 // granule) * granule, row, 2 * row}
        for window in sorted(several) if way == best else (row,):
            head = {"what": "windows", "mode": way, "window": window}
            yield head, partial(_by, arm, way, partial(_windows, arm, dense, fixed_point_above), window)
    for asked in (row, None):
        head = {"what": "windows, refilled", "mode": best, "window": asked, "slots": 2}
        yield head, partial(_by, arm, best, partial(_many, arm, count), asked)
    if model.trained and model.size.checkpoint is not None:
        kept = load_checkpoint(RESULTS / model.size.checkpoint, device=dense.device, dtype=dense.dtype)
        if kept.modules is not None:
            learned = LearnedForecaster(kept.modules)
            yield {"what": "learned, whole batch"}, lambda: predictive_sample(arm, dense, learned).x
            yield {"what": "learned, windows", "window": row}, lambda: _windows(arm, dense, learned, row)


def _fixed_point_of(arm: AutoregressiveModel, noise: Tensor) -> Tensor:
    """The ancestral sample, which is the only fixed point that there is: found in few passes, and proved by one more.

    Raises:
        ArithmeticError: it is none.
    """
    x = predictive_sample(arm, noise, fixed_point).x
    with sampling_mode(arm):
        if not torch.equal((arm(x).logits + noise).argmax(dim=-1), x):
            raise ArithmeticError(f"one more pass in {noise.dtype} changes the fixed point")
    return x


def _by(arm: AutoregressiveModel, way: str, draw: Callable[[Any], Tensor], window: int | None) -> Tensor:
    with spans_by(arm, way):
        return draw(window)


def _windows(arm: AutoregressiveModel, dense: Tensor, forecaster: Forecaster, window: int) -> Tensor:
    return predictive_sample(arm, dense, forecaster, window=window).x


def _many(arm: AutoregressiveModel, count: int, window: int | None) -> Tensor:
    return sample_many(arm, count=count, seed=SEED, slots=2, window=window).x


def _keyed(arm: AutoregressiveModel, count: int) -> Any:
    weight = next(arm.parameters())
    keyed = offered(arm_core, "KeyedNoise")
    return keyed(arm.layout, seed=SEED, sample_ids=range(count), dtype=weight.dtype, device=weight.device)


def _compared(draw: Draw, reference: Tensor, *, must: bool) -> Row:
    found = draw().cpu()
    wrong = found != reference.cpu()
    share = 1 - wrong.any(dim=1).double().mean().item()
    row: Row = {"kind": "checked", "share": share, "amount": int(wrong.sum()), "unit": "dims differ"}
    return {**row, "held": share == 1} if must else row


def _same_bits(device: torch.device) -> Row:
    if importlib.util.find_spec("arm_core.philox") is None:
        raise NotThereError("arm_core.philox is not there in this version")
    philox_bits = importlib.import_module("arm_core.philox").philox_bits
    ids, count = [0, 1, 2**62], 1001
    keys, first = torch.tensor(ids, device=device), torch.tensor([0, 3, 2**40], device=device)
    found = philox_bits(SEED, keys, first, count).cpu().numpy().view(np.uint64)
    expected = [_numpy_bits(sample_id, at, count) for sample_id, at in zip(ids, first.tolist(), strict=True)]
    share = float((found == np.stack(expected)).mean())
    return {"kind": "checked", "held": share == 1, "share": share}


def _numpy_bits(sample_id: int, first: int, count: int) -> np.ndarray:
    stream = np.random.Philox(key=np.array([SEED, sample_id], np.uint64), counter=first // 4)
    return stream.random_raw(first % 4 + count)[first % 4 :]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
