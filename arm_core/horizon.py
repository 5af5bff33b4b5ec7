"""How far forecasting modules should be believed: measured on held-out noise.

Long horizons can cost calls instead of saving them: a module that is wrong where the ARM's last output was right ends
the step. The measurements use sample ids that no later comparison should use again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster
from arm_core.errors import InputError
from arm_core.forecasters import ForecastingModules, GatedForecaster, LearnedForecaster, fixed_point
from arm_core.samplers import sample_many

HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 20)
GATES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Setting:
    """A way to use modules, and what it costs.

    Attributes:
        horizon: modules used; 0 for the fixed-point forecast alone.
        gate: of a `GatedForecaster`; None for a fixed horizon.
        mean_calls: ARM calls a sample at batch 1, mean over the ids.
    """

    horizon: int
    gate: float | None
    mean_calls: float

    def forecaster(self, modules: ForecastingModules) -> Forecaster:
        """The forecaster that this setting describes."""
        if self.horizon == 0:
            return fixed_point
        if self.gate is None:
            return LearnedForecaster(modules, horizon=self.horizon)
        return GatedForecaster(modules, horizon=self.horizon, gate=self.gate)


def choose_horizon(
    arm: AutoregressiveModel,
    modules: ForecastingModules,
    *,
    seed: int,
    sample_ids: range,
    horizons: Sequence[int] | None = None,
    gates: Sequence[float] = GATES,
    batch_size: int = 32,
) -> list[Setting]:
    """Measure the settings on held-out samples; the first of the result is the one to use.

    Args:
        arm: in the dtype and on the device of the modules.
        modules: trained with it.
        seed, sample_ids: of the noise; at least one id, and no gaps.
        horizons: to try, each in [1, modules.config.horizon]; None: a ladder of them up to the trained one.
        gates: to try, at the best fixed horizon and at the trained one; empty: fixed horizons only.
        batch_size: samples at a time; changes nothing but time.

    Returns:
        All settings, the fewest calls first; the fixed-point forecast alone is among them.
    """
    if len(sample_ids) == 0 or sample_ids.step != 1:
        raise InputError(f"choose_horizon needs at least one sample id and no gaps between them, got {sample_ids}")
    trained = modules.config.horizon
    ladder = horizons if horizons is not None else sorted({t for t in HORIZONS if t < trained} | {trained})
    plain = [Setting(0, None, 0.0), *(Setting(t, None, 0.0) for t in ladder)]
    found = _measure(arm, modules, plain, seed, sample_ids, batch_size)
    fixed = min((setting for setting in found if setting.horizon), key=lambda setting: setting.mean_calls)
    gated = [Setting(t, gate, 0.0) for t in sorted({fixed.horizon, trained}) for gate in gates]
    found += _measure(arm, modules, gated, seed, sample_ids, batch_size)
    return sorted(found, key=lambda setting: setting.mean_calls)


def _measure(
    arm: AutoregressiveModel,
    modules: ForecastingModules,
    settings: Sequence[Setting],
    seed: int,
    sample_ids: range,
    batch_size: int,
) -> list[Setting]:
    calls = (
        arm_calls(arm, s.forecaster(modules), seed=seed, sample_ids=sample_ids, slots=batch_size) for s in settings
    )
    return [replace(s, mean_calls=taken.double().mean().item()) for s, taken in zip(settings, calls, strict=True)]


def arm_calls(
    arm: AutoregressiveModel, forecaster: Forecaster, *, seed: int, sample_ids: range, slots: int = 32
) -> Int[Tensor, " ids"]:
    """The ARM calls of every sample on whole images: what it takes at batch 1, whatever stands beside it."""
    count, whole = len(sample_ids), arm.layout.dims
    trace = sample_many(
        arm, count=count, seed=seed, slots=slots, forecaster=forecaster, window=whole, first_id=sample_ids.start
    )
    return trace.arm_calls
