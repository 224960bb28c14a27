"""Forecasts of the values of target events (ratings, prices, dwell times), and the baselines that they are held to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from variseq.evaluation.metrics import auc
from variseq.sequences.histories import Histories
from variseq.sequences.value_biases import ValueBiases, best_half_life, running_bias, two_values

REACH = NormalDist().inv_cdf(0.95)
"""The central 90 % of a Gaussian reaches so many standard deviations to both sides."""
GROUPS = {"targets": "", "warm targets (user and item have training events)": "_warm", "cold targets": "_cold"}


class ValueBaselines:
    """Four forecasts of values, counted in the events that a model was trained on and in the given history.

    The mean; the mean of the item; item bias + the user's mean residual; item bias + the user's residual of late, whose
    half-life and prior are chosen in the training events (in the last one of each user where `targets` is "last").
    """

    def __init__(self, known: Histories, num_items: int, targets: str) -> None:
        self.biases = ValueBiases.of(known, num_items)
        self.half_life, self.prior = best_half_life(known, self.biases, of_last=targets == "last")

    def forecasts(self, queried: Histories) -> dict[str, Float[np.ndarray, " query"]]:
        """The forecasts for the last event of each history, each from the events before it."""
        biases, residual = self.biases, self.biases.residual(queried)
        item = queried.item[queried.offsets[1:] - 1]
        of_item = biases.mean + biases.item[item]
        user = running_bias(queried, residual, np.inf, biases.user_prior)
        running = running_bias(queried, residual, self.half_life, self.prior)
        return {
            "mean": np.full(len(queried), biases.mean),
            "item mean": biases.mean + biases.item_mean[item],
            "item and user bias": of_item + user,
            "item and running user bias": of_item + running,
        }


@dataclass(frozen=True, eq=False)
class ValueForecasts:
    """Forecasts of the values of the target events, in their own units.

    Attributes:
        mean: The forecast for each query.
        standard_deviation: Its deviation; None for a model that gives none.
        value: The value that came; NaN where there is none.
        is_warm: Whether both the user and the item of the query have training events.
        baselines: By name the forecasts of `ValueBaselines`.
    """

    mean: Float[np.ndarray, " query"]
    standard_deviation: Float[np.ndarray, " query"] | None
    value: Float[np.ndarray, " query"]
    is_warm: Bool[np.ndarray, " query"]
    baselines: dict[str, Float[np.ndarray, " query"]]

    def summary(self) -> dict[str, Any]:
        """Root mean squared errors and the share of values inside their 90 % intervals; None where there is no value.

        Returns:
            `num_values`, `value_rmse`, `value_interval_coverage_90`, each also with the ending `_warm` (user and item
            have training events) and `_cold` (one of them has none), and `value_baselines`: by the name of each
            baseline its `value_rmse` in the three groups. Where the targets have two different values, `value_auc` is
            beside each `value_rmse`: the probability that a forecast of the larger value is above one of the smaller.
        """
        return {
            **{f"num_values{end}": int(rows.sum()) for end, rows in self._groups().items()},
            **self._errors(self.mean),
            **{f"value_interval_coverage_90{end}": self._coverage(rows) for end, rows in self._groups().items()},
            "value_baselines": {name: self._errors(mean) for name, mean in self.baselines.items()},
        }

    def _groups(self) -> dict[str, Bool[np.ndarray, " query"]]:
        known = ~np.isnan(self.value)
        return {"": known, "_warm": known & self.is_warm, "_cold": known & ~self.is_warm}

    @cached_property
    def _two_values(self) -> tuple[float, float] | None:
        return two_values(self.value)

    def _errors(self, mean: Float[np.ndarray, " query"]) -> dict[str, float | None]:
        square = np.square(mean - self.value)
        groups = self._groups().items()
        errors = {
            f"value_rmse{end}": float(np.sqrt(square[rows].mean())) if rows.any() else None for end, rows in groups
        }
        if self._two_values is None:
            return errors
        is_larger = self.value == self._two_values[1]
        return errors | {f"value_auc{end}": auc(mean[rows], is_larger[rows]) for end, rows in groups}

    def _coverage(self, rows: Bool[np.ndarray, " query"]) -> float | None:
        if self.standard_deviation is None or not rows.any():
            return None
        return float((np.abs(self.mean - self.value) <= REACH * self.standard_deviation)[rows].mean())

    def __str__(self) -> str:
        """A sentence for all targets; where some are cold, one for the warm and one for the cold ones."""
        found, sentences = self.summary(), []
        for group, end in GROUPS.items():
            is_some = 0 < found["num_values_cold"] < found["num_values"]
            if found[f"num_values{end}"] and (not end or is_some):
                others = (f"{name} {row['value_rmse' + end]:.3f}" for name, row in found["value_baselines"].items())
                coverage = found[f"value_interval_coverage_90{end}"]
                sentences.append(
                    f"Values of {found['num_values' + end]:,} {group}: root mean squared error "
                    f"{found['value_rmse' + end]:.3f} ({', '.join(others)})"
                    + ("." if coverage is None else f"; 90 % intervals contain {coverage:.1%}.")
                )
                if (area := found.get(f"value_auc{end}")) is not None:
                    others = (f"{name} {row['value_auc' + end]:.3f}" for name, row in found["value_baselines"].items())
                    sentences.append(f"AUC of the larger value: {area:.3f} ({', '.join(others)}).")
        return "\n".join(sentences)
