"""The mixture written down plainly, without any thought of speed: what the answering core is compared with."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from variseq.ranking.calibration import length_group
from variseq.ranking.content_table import DECAY
from variseq.ranking.mixture import MixtureModel
from variseq.sequences.histories import Histories


def kilometers(one: np.ndarray, other: np.ndarray) -> float:
    """The great-circle distance of two points in degrees, by the haversine formula."""
    (a, b), (c, d) = np.radians(one), np.radians(other)
    return 2 * 6371 * np.arcsin(np.sqrt(np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2))


def plain_near(model: MixtureModel, items: np.ndarray, allowed: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """p of every item that is allowed, by its distance to the items of one history without visits."""
    degrees, options, p, total = model.tables.coordinates, model.calibration.near, np.zeros(len(otherwise)), 0.0
    allowed = allowed & ~np.isnan(degrees[:, 0])
    for age, item in enumerate(items[::-1][:16]):
        if not np.isnan(degrees[item, 0]):
            distance = np.array([kilometers(degrees[item], one) for one in degrees])
            kernel = np.where(allowed, 1 / (1 + (np.nan_to_num(distance) / options.scale_km) ** 2), 0)
            p += options.decay**age * kernel / kernel.sum()
            total += options.decay**age
    return p / total if total else otherwise


def plain_mixture(model: MixtureModel, histories: Histories) -> np.ndarray:
    """p of every item under each sample of the posterior: [history, sample, item]."""
    encoded, tables, calibration = model.encode(histories), model.tables, model.calibration
    popularity, trend = np.exp(tables.log_share.astype(float)), np.exp(tables.log_trend.astype(float))
    found = []
    for row in range(len(histories)):
        items = histories.history(row).item
        temperature = calibration.temperatures[int(length_group(np.array([len(items)]))[0])]
        logits = (encoded.preference[:, row] @ tables.vectors[:, :-1].T + tables.vectors[:, -1]) / temperature
        is_new, new = tables.is_new, calibration.new
        mass = np.exp(logits.astype(float))[:, ~is_new if new else slice(None)].sum(axis=1, keepdims=True)
        count = np.zeros(len(popularity))
        if len(items):
            span = slice(tables.offsets[items[-1]], tables.offsets[items[-1] + 1])
            count[tables.follower[span]] = tables.count[span]
        counted = (count + 100 * popularity) / (count.sum() + 100)
        own, steps = np.zeros(len(popularity)), calibration.own
        if steps is not None:
            for age, item in enumerate(items[::-1]):
                own[item] += steps.decay**age
            for age, (before, item) in enumerate(zip(items[-2::-1], items[:0:-1], strict=True)):
                own[item] += steps.transitions * steps.decay**age * (before == items[-1])
        own = (own + popularity) / (own.sum() + 1)
        inputs = np.array([1.0, np.log(mass).mean(), encoded.log_variance[row]])
        weight = np.exp(
            [0.0, *(sum(w * x for w, x in zip(of, inputs, strict=True)) for of in astuple(calibration.gate))]
        )
        a, b, c, d, e, f = weight / weight.sum()
        p = a * np.exp(logits) / mass + b * counted + c * trend + d / len(popularity) + e * own
        if model.near is not None:
            p += f * plain_near(model, items, ~tables.is_new, popularity)
        if new and is_new.any():
            like = 0.0
            if tables.content is not None:
                direction = tables.content.directions(slice(None)).astype(float)
                weight = DECAY ** np.arange(len(items))[::-1]
                like = direction[is_new] @ (weight @ direction[items] / max(weight.sum(), 1e-9))
            power = np.exp(new.scale * logits[:, is_new].astype(float) + new.likeness * like)
            if model.near is not None:
                near = plain_near(model, items, is_new, is_new / is_new.sum())[is_new]
                near[np.isnan(tables.coordinates[is_new, 0])] = 1 / is_new.sum()
                power *= near**new.near
            among = (1 - new.uniform) * power / power.sum(axis=1, keepdims=True) + new.uniform / is_new.sum()
            p *= (1 - new.share) / p.mean(axis=0)[~is_new].sum()
            p[:, is_new] = new.share * among
        found.append(p)
    return np.stack(found)
