"""A forecast asked as users ask it into what it says of itself: intervals, uncertainties, sizes of sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from posteriors_measures import COVERAGE, Record, size_of_sets
from posteriors_runs import Run

from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.groups import by_length
from variseq.recommend.forecast import Forecast
from variseq.recommend.lists import Lists
from variseq.recommend.posteriors import posteriors_of_tile
from variseq.recommend.recommender import ranked_tiles
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

NUM_USERS = 1_000
SEED = 0


@dataclass(frozen=True, eq=False)
class Answers:
    """The best items of each history with their probabilities and intervals; uncertainties in nats."""

    item: Int[np.ndarray, "history k"]
    probability: Float[np.ndarray, "history k"]
    low: Float[np.ndarray, "history k"]
    high: Float[np.ndarray, "history k"]
    total: Float[np.ndarray, " history"]
    aleatoric: Float[np.ndarray, " history"]
    epistemic: Float[np.ndarray, " history"]


def answers(forecast: Forecast, histories: Histories, wish: Wish) -> Answers:
    """As `recommend` answers, without the reasons."""
    items, posteriors = [], []
    for tile in ranked_tiles(forecast, histories, wish):
        items.append(tile.item.numpy())
        posteriors.append(posteriors_of_tile(forecast, tile))
    names = ("probability", "low", "high", "total", "aleatoric", "epistemic")
    joined = {name: torch.cat([getattr(one, name) for one in posteriors]).numpy() for name in names}
    return Answers(np.concatenate(items), **joined)


def asked_histories(run: Run) -> Histories:
    """The histories of a random sample of test users, before their last targets; the same users for every run."""
    queries, log = run.test.queries("last"), run.test.histories
    sample = np.sort(np.random.default_rng(SEED).permutation(len(queries))[:NUM_USERS])
    user = queries.user[sample]
    return log.select(log.offsets[user], queries.position[sample])


def set_sizes(run: Run) -> Record:
    """How many items the sets of 90 % hold."""
    wish = Wish(run.test.num_items, run.options.k, run.options.exclude_seen, repeat_share=run.learned.repeat_share)
    tiles = Lists(run.forecast(), run.learned)._sets(asked_histories(run), wish, COVERAGE)
    sizes = np.concatenate([(tile.item >= 0).sum(dim=1).numpy() for tile in tiles])
    return size_of_sets(sizes, run.test.num_items)


def uncertainty_by_length(run: Run) -> list[Record]:
    """Total, aleatoric and epistemic uncertainty in nats for each group of history lengths."""
    histories = asked_histories(run)
    wish = Wish(run.test.num_items, run.options.k, run.options.exclude_seen, repeat_share=run.learned.repeat_share)
    found = answers(run.forecast(), histories, wish)
    groups, rows = by_length(histories.lengths), []
    for place, name in enumerate(groups.names):
        inside = groups.place == place
        row: Record = {"group": name, "num_users": int(inside.sum())}
        for kind in ("total", "aleatoric", "epistemic"):
            value = getattr(found, kind)[inside]
            row |= {kind: float(value.mean()), f"{kind}_interval": mean_interval(np.flatnonzero(inside), value)}
        rows.append(row)
    return rows
