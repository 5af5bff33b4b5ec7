"""Forecasters: guesses at the dimensions past the frontier. A wrong one costs calls, never a sample."""

from arm_core.forecasters.baselines import predict_last, row_above, zeros
from arm_core.forecasters.fixed_point import fixed_point
from arm_core.forecasters.learned import ForecastingConfig, ForecastingModules, LearnedForecaster

__all__ = [
    "ForecastingConfig",
    "ForecastingModules",
    "LearnedForecaster",
    "fixed_point",
    "predict_last",
    "row_above",
    "zeros",
]
