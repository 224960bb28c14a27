"""Forecasts of values (ratings, prices, dwell times) and what came into a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from variseq.evaluation.calibration import interval_coverage


@dataclass(frozen=True, eq=False)
class ValueForecasts:
    """Per query the forecast of the target event's value in its own units, and the value (NaN where there is none).

    `train_mean` is the mean value of the training part: what a forecast that knows nothing would say.
    `standard_deviation` is None for a model that gives none.
    """

    mean: Float[np.ndarray, " query"]
    standard_deviation: Float[np.ndarray, " query"] | None
    value: Float[np.ndarray, " query"]
    train_mean: float

    def summary(self) -> dict[str, float | int | None]:
        """Root mean squared error, that of the training mean, and the share of values inside their 90 % intervals.

        >>> ValueForecasts(np.array([3.0, 4.0]), None, np.array([3.0, 2.0]), 3.0).summary()["value_rmse"]
        1.4142135623730951
        """
        known = ~np.isnan(self.value)
        value = self.value[known]
        coverage = None
        if self.standard_deviation is not None:
            coverage = interval_coverage(self.mean, self.standard_deviation, self.value)
        return {
            "num_values": len(value),
            "value_rmse": float(np.sqrt(np.mean((self.mean[known] - value) ** 2))),
            "value_rmse_of_train_mean": float(np.sqrt(np.mean((self.train_mean - value) ** 2))),
            "value_interval_coverage_90": coverage,
        }

    def __str__(self) -> str:
        found = self.summary()
        coverage = found["value_interval_coverage_90"]
        held = "" if coverage is None else f"; 90 % intervals hold {coverage:.1%}"
        return (
            f"values of {found['num_values']:,} targets: root mean squared error {found['value_rmse']:.3f} "
            f"({found['value_rmse_of_train_mean']:.3f} for the mean of the training part){held}"
        )
