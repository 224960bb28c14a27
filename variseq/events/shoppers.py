"""The visible past of simulated shoppers in, the exact distribution of their next item out.

The rules, in the order in which a shopper decides on the next event:

1. **Funnel.** After a view the same item goes into the cart with `cart_probability`; after a cart it is bought with
   `purchase_probability`. Otherwise the next event is a view.
2. **Sessions.** That view opens a new session with `session_end_probability`. Gaps inside a session are minutes, gaps
   between sessions are hours to days, and the two never overlap, so sessions can be read off the times.
3. **Taste.** Every event adds one to the weight of its category; at the start of a session all weights shrink by
   `taste_memory`. The taste is (base + weights) normalized, where the base is known, equal for all shoppers and worth
   `taste_prior_events` events. This is the predictive form of a Dirichlet taste that drifts between sessions: who has
   bought garden tools is likely to look at garden tools.
4. **The item viewed** is, with `noise_share`, any item, each equally likely; inside a session, with `pull_share`, one
   of the three companions of the last item; otherwise an item of a category drawn from the taste, by its popularity in
   that category (Zipf).

Nothing is hidden: the weights follow from the items seen and their times. What is computed here is therefore the true
distribution given the visible history, and no model that sees the same history can do better in expectation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from variseq.errors import InputError
from variseq.events.table import MICROSECONDS_PER_SECOND

BEHAVIORS = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)
MIN_EVENTS = 3
SHORTEST_BREAK_SECONDS = 3_600
"""A gap of this many seconds or more opens a session."""
COMPANION_WEIGHTS = np.array([0.6, 0.3, 0.1])


@dataclass(frozen=True)
class SimulationOptions:
    """What to simulate. Equal options give equal logs, to the last bit.

    Raises:
        InputError: a number outside its range; the message names the field.
    """

    num_users: int = 1_000
    num_items: int = 500
    num_categories: int = 10
    mean_events: int | float = 30.0
    """Mean number of events per user; the shortest history has three."""
    seed: int = 0
    noise_share: int | float = 0.05
    """Share of views that are any item at all; above 0, so that every item has a probability."""
    pull_share: int | float = 0.5
    """Share of views inside a session that are a companion of the last item."""
    session_end_probability: int | float = 0.2
    cart_probability: int | float = 0.25
    purchase_probability: int | float = 0.4
    taste_memory: int | float = 0.8
    """What is left of the weights of a taste when a new session starts; 1 means that tastes never drift."""
    taste_prior_events: int | float = 2.0
    """The number of events that the common base taste is worth; small means that shoppers differ a lot."""
    popularity_exponent: int | float = 1.0
    """Zipf exponent of the popularity of an item inside its category."""

    def __post_init__(self) -> None:
        came = asdict(self)
        allowed = {
            "num_users": (self.num_users >= 1, "at least 1"),
            "num_categories": (self.num_categories >= 1, "at least 1"),
            "num_items": (self.num_items >= 2 * self.num_categories, "at least two items per category"),
            "mean_events": (MIN_EVENTS < self.mean_events < np.inf, f"above {MIN_EVENTS}, and finite"),
            "seed": (self.seed >= 0, "0 or more"),
            "noise_share": (0 < self.noise_share <= 1, "above 0, at most 1"),
            "pull_share": (0 <= self.pull_share <= 1 - self.noise_share, "from 0 to 1 - noise_share"),
            "taste_prior_events": (0 < self.taste_prior_events < np.inf, "above 0, and finite"),
            "popularity_exponent": (0 <= self.popularity_exponent < np.inf, "0 or more, and finite"),
        }
        for name in ("session_end_probability", "cart_probability", "purchase_probability", "taste_memory"):
            allowed[name] = (0 <= came[name] <= 1, "from 0 to 1")
        for name, (is_valid, range_in_words) in allowed.items():
            if not is_valid:
                raise InputError(f"{name} is {came[name]}; allowed is {range_in_words}.")


@dataclass(frozen=True)
class Shop:
    """The catalog and its known structure; `item` counts from 0 to `num_items - 1`."""

    category: Int[np.ndarray, " item"]
    share: Float[np.ndarray, " item"]
    """Popularity inside the own category; sums to 1 over a category."""
    rank: Int[np.ndarray, " item"]
    """1 for the most popular item of its category, 2 for the next."""
    companion: Int[np.ndarray, "item companion"]
    """Where an item pulls to: first inside its category, then anywhere; chosen with `COMPANION_WEIGHTS`."""
    price: Float[np.ndarray, " item"]
    base_taste: Float[np.ndarray, " category"]

    @classmethod
    def open(cls, options: SimulationOptions, random: np.random.Generator) -> Shop:
        """Draw a catalog: categories of equal size, and three rings along which items pull to each other."""
        category = random.permutation(np.arange(options.num_items) % options.num_categories)
        by_category = np.lexsort((random.random(options.num_items), category))
        first_of_category = np.searchsorted(category[by_category], np.arange(options.num_categories))
        rank = np.empty(options.num_items, dtype=np.int64)
        rank[by_category] = np.arange(options.num_items) - first_of_category[category[by_category]] + 1
        share = rank.astype(np.float64) ** -options.popularity_exponent
        share /= np.bincount(category, weights=share)[category]
        inside = np.lexsort((random.random(options.num_items), category))
        rings = [_ring(inside[category[inside] == one]) for one in range(options.num_categories)]
        companion = np.empty((options.num_items, len(COMPANION_WEIGHTS)), dtype=np.int64)
        for items, successors in rings:
            companion[items, 0] = successors
        for column in range(1, len(COMPANION_WEIGHTS)):
            items, successors = _ring(random.permutation(options.num_items))
            companion[items, column] = successors
        level = random.normal(3.0, 0.8, options.num_categories)
        price = np.round(np.exp(level[category] + random.normal(0.0, 0.4, options.num_items)), 2)
        base_taste = np.arange(1, options.num_categories + 1, dtype=np.float64) ** -0.5
        return cls(category, share, rank, companion, price, base_taste / base_taste.sum())

    def taste(
        self, weight: Float[np.ndarray, "history category"], prior_events: float
    ) -> Float[np.ndarray, "history category"]:
        """The taste that belongs to weights; rows sum to 1."""
        strength = prior_events + weight.sum(axis=1, keepdims=True)
        return np.asarray((prior_events * self.base_taste + weight) / strength)


def _ring(items: Int[np.ndarray, " item"]) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """Items and their successors around one ring, so that every item also has exactly one predecessor."""
    return items, np.roll(items, -1)


@dataclass(frozen=True)
class Past:
    """All that matters of visible histories: the weight of each category, the last item and what was done to it."""

    weight: Float[np.ndarray, "history category"]
    last_item: Int[np.ndarray, " history"]
    """-1 where a history is empty."""
    last_behavior: Int[np.ndarray, " history"]

    @classmethod
    def read(
        cls,
        options: SimulationOptions,
        shop: Shop,
        offsets: Int[np.ndarray, " history_plus_one"],
        item: Int[np.ndarray, " event"],
        timestamp: Int[np.ndarray, " event"],
        behavior: Integer[np.ndarray, " event"],
    ) -> Past:
        """Read the state off ragged histories (history h is `offsets[h]:offsets[h + 1]`, oldest event first)."""
        num_histories, num_categories = len(offsets) - 1, options.num_categories
        lengths = np.diff(offsets)
        opens_session = np.diff(timestamp, prepend=timestamp[:1]) >= SHORTEST_BREAK_SECONDS * MICROSECONDS_PER_SECOND
        session = np.cumsum(opens_session)
        last = offsets[1:][lengths > 0] - 1
        age_in_sessions = np.repeat(session[last], lengths[lengths > 0]) - session
        cell = np.repeat(np.arange(num_histories), lengths) * num_categories + shop.category[item]
        weight = np.bincount(cell, options.taste_memory**age_in_sessions, num_histories * num_categories)
        last_item = np.full(num_histories, -1, dtype=np.int64)
        last_behavior = np.full(num_histories, PURCHASE, dtype=np.int64)
        last_item[lengths > 0] = item[last]
        last_behavior[lengths > 0] = behavior[last]
        # Without any event, bincount forgets that the weights are not whole numbers.
        return cls(weight.astype(np.float64).reshape(num_histories, num_categories), last_item, last_behavior)


def next_item_distribution(options: SimulationOptions, shop: Shop, past: Past) -> Float[np.ndarray, "history item"]:
    """The exact probability of each item to be the next, given the past; rows sum to 1.

    p(i) = f·[i is the last item] + (1 - f)·{ (1 - e)·inside(i) + e·opening(i) }, where f is the chance that the funnel
    goes on, e that a session ends, inside = noise/num_items + pull·companions + rest·taste and
    opening = noise/num_items + (1 - noise)·shrunken taste. The time of the next event is not given.
    """
    is_empty = past.last_item < 0
    funnel = follow_probability(options)[past.last_behavior]
    ends = np.where(is_empty, 1.0, options.session_end_probability)
    stays = (1 - funnel) * (1 - ends)
    taste_inside = shop.taste(past.weight, options.taste_prior_events)
    taste_opening = shop.taste(past.weight * options.taste_memory, options.taste_prior_events)
    by_taste = (stays * (1 - options.noise_share - options.pull_share))[:, None] * taste_inside
    by_taste += ((1 - funnel) * ends * (1 - options.noise_share))[:, None] * taste_opening
    probability = by_taste[:, shop.category] * shop.share
    probability += ((1 - funnel) * options.noise_share / options.num_items)[:, None]
    history = np.flatnonzero(~is_empty)
    last_item = past.last_item[history]
    probability[history, last_item] += funnel[history]
    for column, companion_weight in enumerate(COMPANION_WEIGHTS):
        # One column at a time: two companions of an item may be the same item, and then both weights must count.
        probability[history, shop.companion[last_item, column]] += (
            stays[history] * options.pull_share * companion_weight
        )
    return np.asarray(probability)


def follow_probability(options: SimulationOptions) -> Float[np.ndarray, " behavior"]:
    """The chance that the funnel goes on with the same item, after each behavior."""
    return np.array([options.cart_probability, options.purchase_probability, 0.0])
