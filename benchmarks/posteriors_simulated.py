"""A simulated shop into how often the intervals of a model trained there hold the true probabilities.

The model learns from most shoppers, and is asked about others, of whom it is shown the first 1, 2, 4, ... events; the
simulator knows what each does next with which probability.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from posteriors_answers import Answers, answers
from posteriors_measures import Record

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.bootstrap import mean_interval, percentile_interval, resampled_sums, sums_by_user
from variseq.events.shoppers import BEHAVIORS
from variseq.events.simulate import Simulation, SimulationOptions, simulate
from variseq.events.table import Columns
from variseq.log import Log, read
from variseq.recommend.forecast import Forecast
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories
from variseq.training.display import Display

K = 10
NUM_EVENTS_SHOWN = (1, 2, 4, 8, 16, 32)
TINY = 1e-30


@dataclass(frozen=True)
class Shops:
    """The shops, one a seed, and how a model learns there; repeats are allowed, as the truth allows them."""

    num_seeds: int = 3
    num_known: int = 3_000
    num_new: int = 1_000
    num_items: int = 100
    mean_events: int = 25
    model: dict[str, Any] = field(
        default_factory=lambda: {"num_layers": 1, "attention_dim": 16, "max_seq_len": 50, "dropout": 0.1}
    )
    training: dict[str, Any] = field(
        default_factory=lambda: {
            "max_epochs": 8,
            "batch_tokens": 1024,
            "learning_rate": 0.005,
            "exclude_seen": False,
            "value_loss_weight": 0.0,
        }
    )

    def options(self, seed: int) -> SimulationOptions:
        """Shoppers who differ a lot, so that there is something to be unsure of."""
        return SimulationOptions(
            num_users=self.num_known + self.num_new,
            num_items=self.num_items,
            num_categories=5,
            mean_events=self.mean_events,
            pull_share=0.4,
            taste_prior_events=1.0,
            seed=seed,
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """Beginnings of the histories of new shoppers, by what is shown, and the true distribution of what comes next."""

    shopper: Int[np.ndarray, " history"]
    num_events: Int[np.ndarray, " history"]
    histories: Histories
    truth: Float[np.ndarray, "history item"]


@dataclass(frozen=True, eq=False)
class Held:
    """Each history against the truth; `divergence` is KL(truth ‖ forecast) in nats."""

    asked: Asked
    answers: Answers
    true_probability: Float[np.ndarray, "history k"]
    divergence: Float[np.ndarray, " history"]


def measure(shops: Shops) -> Record:
    """The record of all shops together; shoppers of different shops are different people."""
    held = [hold_against_truth(shops, seed) for seed in range(shops.num_seeds)]
    shopper = np.concatenate([one.asked.shopper + seed * shops.num_new for seed, one in enumerate(held)])
    columns = {name: np.concatenate([_columns(one)[name] for one in held]) for name in _columns(held[0])}
    num_events = columns["num_events"]
    rows = []
    for shown in NUM_EVENTS_SHOWN:
        rows_of = num_events == shown
        if rows_of.any():
            row: Record = {"num_events": shown, "num_shoppers": int(rows_of.sum())}
            row |= {name: float(value[rows_of].mean()) for name, value in columns.items() if name != "num_events"}
            for name in ("inside", "epistemic"):
                row[f"{name}_interval"] = mean_interval(shopper[rows_of], columns[name][rows_of])
            rows.append(row)
    return {
        "k": K,
        "by_num_events": rows,
        "inside": float(columns["inside"].mean()),
        "inside_interval": _interval(shopper, columns["inside"]),
        "epistemic_with_num_events": rank_correlation(columns["epistemic"], num_events),
        "epistemic_with_divergence": rank_correlation(columns["epistemic"], columns["divergence"]),
    }


def _interval(shopper: Int[np.ndarray, " history"], value: Float[np.ndarray, " history"]) -> tuple[float, float]:
    """Of a mean over all histories, of which a shopper has several: shoppers are resampled."""
    sums = resampled_sums(sums_by_user(shopper, np.stack([value, np.ones_like(value)], axis=1)))
    return percentile_interval(sums[:, 0] / sums[:, 1])


def hold_against_truth(shops: Shops, seed: int) -> Held:
    """Train in one shop and ask about its new shoppers."""
    simulation = simulate(shops.options(seed))
    forecast, everybody = _trained(shops, simulation, seed)
    asked = _asked(shops, simulation, everybody)
    wish = Wish(shops.num_items, K, exclude_seen=False)
    found = answers(forecast, asked.histories, wish)
    with torch.no_grad():
        log_p = forecast.scores(forecast.query(asked.histories), 0, shops.num_items).double().numpy()
    divergence = (asked.truth * (np.log(np.maximum(asked.truth, TINY)) - log_p)).sum(axis=1)
    return Held(asked, found, np.take_along_axis(asked.truth, found.item, axis=1), divergence)


def _columns(held: Held) -> dict[str, np.ndarray]:
    """What is averaged, a value each history; `reach` is log(high / low)."""
    found, true = held.answers, held.true_probability
    truth = held.asked.truth
    return {
        "num_events": held.asked.num_events,
        "inside": ((found.low <= true) & (true <= found.high)).mean(axis=1),
        "below": (true < found.low).mean(axis=1),
        "above": (true > found.high).mean(axis=1),
        "reach": np.log(found.high / found.low).mean(axis=1),
        "epistemic": found.epistemic,
        "total": found.total,
        "true_entropy": -(truth * np.log(np.maximum(truth, TINY))).sum(axis=1),
        "divergence": held.divergence,
    }


def _trained(shops: Shops, simulation: Simulation, seed: int) -> tuple[Forecast, Log]:
    """The forecast of a model that has met the known shoppers, and the log of everybody. Raises InputError."""
    events = simulation.events()
    known = pc.is_in(events[Columns.USER], value_set=pa.array(simulation.user_ids()[: shops.num_known]))
    log, everybody = read(events.filter(known)), read(events)
    if log.vocabulary.items.to_pylist() != simulation.item_ids() or len(log.vocabulary.behaviors) < len(BEHAVIORS):
        raise InputError("The known shoppers do not meet all items and behaviors. Simulate more of them.")
    train, valid, _ = log.split("leave-one-out")
    model = VariationalAttention("small", seed, "cpu", shops.model, shops.training)
    model.fit(train, valid, display=Display(quiet=True))
    return model._forecast(), everybody


def _asked(shops: Shops, simulation: Simulation, everybody: Log) -> Asked:
    """Users and items of the log of everybody stand in the order of their ids, which is the simulation's own."""
    log = everybody.histories
    new, lengths = np.arange(shops.num_known, shops.num_known + shops.num_new), log.lengths
    pairs = [(user, shown) for user in new for shown in NUM_EVENTS_SHOWN if shown <= lengths[user]]
    user, num_events = np.array(pairs).T
    histories = log.select(log.offsets[user], log.offsets[user] + num_events)
    behavior = np.array([BEHAVIORS.index(name) for name in everybody.vocabulary.behaviors])[histories.behavior]
    truth = np.exp(
        simulation.log_probabilities(histories.offsets, histories.item.astype(np.int64), histories.timestamp, behavior)
    )
    return Asked(user - shops.num_known, num_events, histories, truth)


def rank_correlation(first: Float[np.ndarray, " value"], second: Float[np.ndarray, " value"]) -> float:
    """Spearman's: the correlation of ranks, equal values having their mean rank."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(value: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(value, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
