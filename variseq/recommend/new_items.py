"""Fits how new items are forecast to validation targets that are new."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Int

from variseq.distinct import distinct
from variseq.ranking.calibration import Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.new_items import NewItemForecast
from variseq.sequences.histories import Histories

SCALES, LIKENESS, NEAR = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 2.0, 4.0, 8.0, 12.0), (0.0, 0.5, 0.75, 1.0)
UNIFORM = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""What is tried for the fields of `NewItemForecast`."""
MIN_TARGETS = 20
"""With fewer targets that are new, the usual numbers are taken."""
LATEST_SHARE = 0.1
"""The share of a log in which it is counted how often new items are taken."""
RARE = 0.25
"""In a log without times an item that is added later is taken as often as an item of this quantile."""


def fit_new_items(
    model: MixtureModel, histories: Histories, target: Int[np.ndarray, " query"], known: Histories
) -> Calibration:
    """The calibration with the forecast of new items.

    Args:
        model: A calibrated model that forecasts new items as all others.
        histories: Those of validation queries whose target is no repeat.
        target: Their targets.
        known: The training events.
    """
    is_new, rate = model.tables.is_new, rate_of_new_items(known, model.num_items)
    forecast = NewItemForecast(0.0, rate=rate)
    if is_new.any() and len(target):
        of_new = np.flatnonzero(is_new[target])
        forecast = replace(forecast, share=float((len(of_new) + 0.5) / (len(target) + 1)))
        if len(of_new) >= MIN_TARGETS:
            forecast = _likeliest(model, histories.rows(of_new), target[of_new], forecast)
    return replace(model.calibration, new=forecast)


def _likeliest(
    model: MixtureModel, histories: Histories, target: Int[np.ndarray, " query"], forecast: NewItemForecast
) -> NewItemForecast:
    """The forecast under which targets, all new, are most likely."""
    new, column = model.new_items, np.searchsorted(model.new_items, target)
    encoded = model.encoder.encode(histories, model.noise(0))
    total: dict[tuple[float, float, float, float], float] = {}
    size = model.rows_at_once(1)
    for first in range(0, len(histories), size):
        rows = np.arange(first, min(first + size, len(histories)))
        some = histories.rows(rows)
        logits = model.scaled(encoded.rows(rows), some) @ model.tables.vectors[new].T
        likeness, log_near = model.like(some)
        trusts = (LIKENESS if likeness is not None else LIKENESS[:1]), (NEAR if log_near is not None else NEAR[:1])
        for scale, weight, near in product(SCALES, *trusts):
            tried = replace(forecast, scale=scale, likeness=weight, near=near, uniform=0.0)
            softmax = tried.of_logits(logits, likeness, log_near)[np.arange(len(rows)), 0, column[rows]]
            for uniform in UNIFORM:
                log_p = np.log((1 - uniform) * softmax + uniform / len(new)).sum()
                key = (scale, weight, near, uniform)
                total[key] = total.get(key, 0.0) + float(log_p)
    scale, weight, near, uniform = max(total, key=lambda key: total[key])
    return replace(forecast, scale=scale, likeness=weight, near=near, uniform=uniform)


def rate_of_new_items(known: Histories, num_items: int) -> float:
    """The probability of one new item in its first days, counted in the latest tenth of the events.

    An item is new there if no event before has it. Without times, the share of a rare item is taken.
    """
    count = np.bincount(known.item, minlength=num_items)
    rare = float(np.quantile(count[count > 0], RARE) / max(1, count.sum())) if count.any() else 0.0
    if not known.has_times:
        return rare
    is_late = known.timestamp > np.quantile(known.timestamp, 1 - LATEST_SHARE)
    is_new = is_late & ~np.isin(known.item, known.item[~is_late])
    num_new = len(distinct(known.item[is_new]))
    return float(is_new.sum() / is_late.sum() / num_new) if num_new else rare
