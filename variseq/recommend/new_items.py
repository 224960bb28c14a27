"""Fits how new items are forecast, and the biases of new items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from variseq.model.network import Network
from variseq.ranking.calibration import Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.new_items import NewItemForecast
from variseq.ranking.softmax import Softmaxes
from variseq.sequences.histories import Histories

SCALES, UNIFORM = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25), (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""What is tried for the fields of `NewItemForecast`."""
LEAST_SCALE = 0.25
MIN_TARGETS = 20
"""With fewer targets that are new, the usual scale and uniform part are taken."""
MAX_HISTORIES = 512
LATEST_SHARE = 0.1
"""The share of a log in which it is counted how often new items are taken."""
RARE = 0.25
"""In a log without times an item that is added later is taken as often as an item of this quantile."""


def fit_new_items(
    model: MixtureModel, histories: Histories, target: Int[np.ndarray, " query"], known: Histories
) -> tuple[Calibration, Float[np.ndarray, "item hidden_plus_one"]]:
    """How new items are forecast, and the item vectors with the biases of new items.

    Args:
        model: A calibrated model that forecasts new items as all others.
        histories: Those of validation queries whose target is no repeat.
        target: Their targets.
        known: The training events.

    Returns:
        The calibration with the forecast of new items, and the vectors.
    """
    is_new, rate = model.tables.is_new, rate_of_new_items(known, model.num_items)
    vectors = model.tables.vectors[:]
    if not is_new.any() or not len(target):
        return _with(model.calibration, NewItemForecast(0.0, rate=rate)), vectors
    of_new = is_new[target]
    forecast = NewItemForecast(float((of_new.sum() + 0.5) / (len(target) + 1)), rate=rate)
    if of_new.sum() >= MIN_TARGETS:
        log_p = _log_p(model, histories)
        column = np.searchsorted(model.new_items, target[of_new])
        fits = []
        for scale in SCALES:
            level = _level(log_p, scale)
            for uniform in UNIFORM if scale else (1.0,):
                tried = replace(forecast, scale=scale, uniform=uniform)
                p = tried.of_logits(log_p[of_new] - level)[np.arange(len(column)), column]
                fits.append((float(np.log(p).mean()), tried))
        forecast = max(fits, key=lambda fit: fit[0])[1]
    return _with(model.calibration, forecast), biased(model, forecast, histories)


def _with(calibration: Calibration, forecast: NewItemForecast) -> Calibration:
    at_request = calibration.at_request
    known = None if at_request is None else replace(at_request, new=forecast)
    return replace(calibration, new=forecast, at_request=known)


def biased(
    model: MixtureModel, forecast: NewItemForecast, histories: Histories
) -> Float[np.ndarray, "item hidden_plus_one"]:
    """Item vectors with biases under which each new item is as likely as an average item, over some histories.

    So a new item is told from another by whom it suits, and not by how well it suits everybody, which is not known.
    """
    vectors, new = model.tables.vectors[:].copy(), model.new_items
    if len(new) and len(histories):
        vectors[new, -1] = 0.0
        chosen = np.unique(np.linspace(0, len(histories) - 1, min(MAX_HISTORIES, len(histories))).astype(np.int64))
        some = histories.rows(chosen)
        without = MixtureModel(model.encoder, replace(model.tables, vectors=vectors), model.calibration)
        level = _level(_log_p(without, some), forecast.scale)
        temperature = float(model.calibration.of(some).temperature(some.lengths).mean())
        vectors[new, -1] = -temperature * (level + np.log(model.num_items))
    return vectors


def write_new_item_biases(network: Network, model: MixtureModel, histories: Histories) -> None:
    """Write the biases of new items to a network, which the model is of."""
    forecast = model.calibration.new
    if forecast is not None:
        bias = biased(model, forecast, histories)[:, -1]
        with torch.no_grad():
            network.item_bias.copy_(torch.from_numpy(bias))


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
    num_new = len(np.unique(known.item[is_new]))
    return float(is_new.sum() / is_late.sum() / num_new) if num_new else rare


def _log_p(model: MixtureModel, histories: Histories) -> Float[np.ndarray, "history new"]:
    """The logits of new items over the temperature, less log Z of all other items, at the posterior mean."""
    new, found = model.new_items, []
    encoded = model.encoder.encode(histories, model.noise(0))
    size = model.rows_at_once(1)
    for first in range(0, len(histories), size):
        rows = np.arange(first, min(first + size, len(histories)))
        scaled = model.scaled(encoded.rows(rows), histories.rows(rows))
        log_mass = Softmaxes(model.everything, scaled, new[None]).log_mass
        found.append(scaled[:, 0] @ model.tables.vectors[new].T - log_mass)
    return np.concatenate(found)


def _level(log_p: Float[np.ndarray, "history new"], scale: float) -> Float[np.ndarray, " new"]:
    """The generalized mean of the probabilities of each new item over histories, as a logarithm."""
    scale = max(scale, LEAST_SCALE)
    highest = log_p.max(axis=0)
    level: Float[np.ndarray, " new"] = highest + np.log(np.exp(scale * (log_p - highest)).mean(axis=0)) / scale
    return level
