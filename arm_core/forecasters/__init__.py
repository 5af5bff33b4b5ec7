"""Forecasters: guesses at the dimensions past the frontier. A wrong one costs calls, never a sample."""

from arm_core.fixed_point import fixed_point, fixed_point_above, most_likely
from arm_core.forecasters.baselines import predict_last, row_above, zeros
from arm_core.forecasters.learned import GatedForecaster, LearnedForecaster
from arm_core.forecasters.modules import ForecastingConfig, ForecastingModules

__all__ = [
    "ForecastingConfig",
    "ForecastingModules",
    "GatedForecaster",
    "LearnedForecaster",
    "fixed_point",
    "fixed_point_above",
    "most_likely",
    "predict_last",
    "row_above",
    "zeros",
]
