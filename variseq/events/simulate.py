"""A seed in, the event log of simulated shoppers out, with the true probability of everything they might do next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float, Int

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.shoppers import (
    BEHAVIORS,
    COMPANION_WEIGHTS,
    MIN_EVENTS,
    PURCHASE,
    SHORTEST_BREAK_SECONDS,
    VIEW,
    Past,
    Shop,
    SimulationOptions,
    follow_probability,
    next_item_distribution,
)
from variseq.events.table import MICROSECONDS_PER_SECOND, Columns

__all__ = ["Simulation", "SimulationOptions", "simulate", "write_table"]

OPENING_DAY = np.datetime64("2024-01-01T00:00:00", "us")
OPENING_SPAN_SECONDS = 60 * 86_400
"""Shoppers come for the first time within this many seconds."""
CATEGORY_NAMES = ("Garden", "Kitchen", "Books", "Toys", "Sports", "Music", "Beauty", "Tools", "Shoes", "Lamps")


@dataclass(frozen=True)
class Simulation:
    """Simulated histories side by side; history u is `item[offsets[u]:offsets[u + 1]]`, oldest event first.

    The numbers are the simulation's own: item 7 has the id "i007" (padded with zeros to equal length), so ids in
    sorted order are items in order; behaviors are view 0, cart 1, purchase 2; timestamps are UTC microseconds; values
    are the price at that time.

    >>> shop = simulate(SimulationOptions(num_users=3, num_items=20, num_categories=2, mean_events=5, seed=1))
    >>> shop.item_ids()[:2], shop.next_item_distribution(np.array([0, 1])).sum(axis=1).round(6).tolist()
    (['i00', 'i01'], [1.0, 1.0])
    """

    options: SimulationOptions
    shop: Shop
    offsets: Int[np.ndarray, " user_plus_one"]
    item: Int[np.ndarray, " event"]
    timestamp: Int[np.ndarray, " event"]
    behavior: Int[np.ndarray, " event"]
    value: Float[np.ndarray, " event"]

    def item_ids(self) -> list[str]:
        """The outside id of each item."""
        return _ids("i", self.options.num_items)

    def user_ids(self) -> list[str]:
        """The outside id of each user."""
        return _ids("u", self.options.num_users)

    def next_item_distribution(self, positions: Int[np.ndarray, " position"]) -> Float[np.ndarray, "position item"]:
        """The true probability of each item to follow the event at each position, given that user's past up to it."""
        user = np.searchsorted(self.offsets, positions, side="right") - 1
        lengths = positions + 1 - self.offsets[user]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        event = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[user], lengths)
        past = Past.read(
            self.options, self.shop, offsets, self.item[event], self.timestamp[event], self.behavior[event]
        )
        return next_item_distribution(self.options, self.shop, past)

    def log_probabilities(
        self,
        offsets: Int[np.ndarray, " history_plus_one"],
        item: Int[np.ndarray, " event"],
        timestamp: Int[np.ndarray, " event"],
        behavior: Int[np.ndarray, " event"],
    ) -> Float[np.ndarray, "history item"]:
        """The true log probability (nats) of each next item, for any ragged histories in the simulation's numbers.

        Exact for whole histories; a history that was cut at its old end has lost a part of the taste.
        """
        past = Past.read(self.options, self.shop, offsets, item, timestamp, behavior)
        return np.asarray(np.log(next_item_distribution(self.options, self.shop, past)))

    def events(self) -> pa.Table:
        """The log as a table, in the order of time, with the columns that `variseq.read` expects."""
        in_time = np.argsort(self.timestamp, kind="stable")
        user = np.repeat(np.arange(self.options.num_users), np.diff(self.offsets))
        return pa.table(
            {
                Columns.USER: pa.array(self.user_ids()).take(pa.array(user[in_time])),
                Columns.ITEM: pa.array(self.item_ids()).take(pa.array(self.item[in_time])),
                Columns.TIME: pa.array(self.timestamp[in_time]).cast(pa.timestamp("us", tz="UTC")),
                Columns.EVENT: pa.array(BEHAVIORS).take(pa.array(self.behavior[in_time])),
                Columns.VALUE: pa.array(self.value[in_time]),
            }
        )

    def items(self) -> pa.Table:
        """The catalog as a table; a title tells the popularity rank inside the category."""
        category = [_category_name(number) for number in range(self.options.num_categories)]
        names = [category[number] for number in self.shop.category]
        titles = [f"{name} no. {rank}" for name, rank in zip(names, self.shop.rank, strict=True)]
        return pa.table({Columns.ITEM: self.item_ids(), Columns.TITLE: titles, Columns.CATEGORY: names})

    def write(self, path: str | Path) -> tuple[Path, Path]:
        """Write the log to `path` and the items beside it ("shop.parquet" and "shop-items.parquet").

        Parquet or CSV, by the ending. Returns both paths.

        Raises:
            InputError: another ending, a folder that does not exist, or no room.
        """
        events_path = Path(path)
        if events_path.suffix not in (".parquet", ".csv"):
            raise InputError(f"The file is named {events_path.name!r}; give it a name that ends in .parquet or .csv.")
        if not events_path.parent.is_dir():
            raise InputError(f"The folder {str(events_path.parent)!r} does not exist; create it first.")
        items_path = events_path.with_name(f"{events_path.stem}-items{events_path.suffix}")
        try:
            write_table(self.items(), items_path)
            write_table(self.events(), events_path)
        except OSError as error:
            items_path.unlink(missing_ok=True)
            raise InputError(
                f"The simulation cannot be written to {events_path}: {error}. Free some room, or choose another "
                "folder. Nothing was left there."
            ) from error
        return events_path, items_path


def simulate(options: SimulationOptions) -> Simulation:
    """Let shoppers walk through a shop whose rules are known (told in `variseq.events.shoppers`).

    All shoppers take their n-th step together, so the work grows with the longest history, not with the users
    (10,000 users with 30 events each: about a second on one core).
    """
    random = np.random.default_rng(options.seed)
    shop = Shop.open(options, random)
    lengths = MIN_EVENTS + random.geometric(1 / (options.mean_events - MIN_EVENTS + 1), options.num_users) - 1
    # Longest first: those who still walk at a step are then the first rows of every array.
    user = np.argsort(-lengths, kind="stable")
    crowd = _Crowd(options, shop, random)
    steps = [crowd.step(int((lengths > step).sum())) for step in range(int(lengths.max()))]
    by_user = np.argsort(np.concatenate([user[: len(step[0])] for step in steps]), kind="stable")
    item, second, behavior = (np.concatenate(column)[by_user] for column in zip(*steps, strict=True))
    price = np.round(shop.price[item] * np.exp(random.normal(0.0, 0.05, len(item))), 2)
    return Simulation(
        options=options,
        shop=shop,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=item,
        timestamp=OPENING_DAY.astype(np.int64) + second * MICROSECONDS_PER_SECOND,
        behavior=behavior,
        value=price,
    )


Step = tuple[Int[np.ndarray, " shopper"], Int[np.ndarray, " shopper"], Int[np.ndarray, " shopper"]]


class _Crowd:
    """All shoppers at once: where they stand, and their next step."""

    def __init__(self, options: SimulationOptions, shop: Shop, random: np.random.Generator) -> None:
        self._options, self._shop, self._random = options, shop, random
        self._weight = np.zeros((options.num_users, options.num_categories))
        self._item = np.full(options.num_users, -1, dtype=np.int64)
        self._behavior = np.full(options.num_users, PURCHASE, dtype=np.int64)
        self._second = random.integers(0, OPENING_SPAN_SECONDS, options.num_users)
        # Items by category, then by rank; beside them the cumulated share plus the number of the category, so that
        # one search finds an item for every shopper, whatever the category.
        self._by_category = np.lexsort((shop.rank, shop.category))
        share = shop.share[self._by_category]
        before = np.searchsorted(shop.category[self._by_category], np.arange(options.num_categories))
        cumulated = np.cumsum(share) - np.concatenate([[0.0], np.cumsum(share)])[before][self._categories_in_order()]
        self._cumulated_share = self._categories_in_order() + cumulated

    def _categories_in_order(self) -> Int[np.ndarray, " item"]:
        return np.asarray(self._shop.category[self._by_category])

    def step(self, num_walking: int) -> Step:
        """The next event (item, second, behavior) of the first `num_walking` shoppers."""
        options, random = self._options, self._random
        item, behavior = self._item[:num_walking], self._behavior[:num_walking]
        follows = random.random(num_walking) < follow_probability(options)[behavior]
        ends = random.random(num_walking) < options.session_end_probability
        opens = ~follows & (ends | (item < 0))
        self._weight[:num_walking][opens] *= options.taste_memory
        viewed = self._view(item, opens)
        self._item[:num_walking] = np.where(follows, item, viewed)
        self._behavior[:num_walking] = np.where(follows, behavior + 1, VIEW)
        self._second[:num_walking] += np.where(opens, self._long_gap(num_walking), self._short_gap(num_walking))
        self._weight[np.arange(num_walking), self._shop.category[self._item[:num_walking]]] += 1
        return self._item[:num_walking].copy(), self._second[:num_walking].copy(), self._behavior[:num_walking].copy()

    def _view(
        self, last_item: Int[np.ndarray, " shopper"], opens: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    ) -> Int[np.ndarray, " shopper"]:
        """An item by noise, by the pull of the last item, or by taste."""
        options, random, num_walking = self._options, self._random, len(last_item)
        way = random.random(num_walking)
        is_noise = way < options.noise_share
        is_pulled = ~is_noise & ~opens & (way < options.noise_share + options.pull_share)
        column = random.choice(len(COMPANION_WEIGHTS), num_walking, p=COMPANION_WEIGHTS)
        pulled = self._shop.companion[last_item, column]
        noise = random.integers(0, options.num_items, num_walking)
        return np.where(is_noise, noise, np.where(is_pulled, pulled, self._view_by_taste(num_walking)))

    def _view_by_taste(self, num_walking: int) -> Int[np.ndarray, " shopper"]:
        """A category from the taste, then an item from it by popularity; both by inverting a cumulated sum."""
        taste = self._shop.taste(self._weight[:num_walking], self._options.taste_prior_events)
        above = self._random.random((num_walking, 1)) >= np.cumsum(taste, axis=1)[:, :-1]
        category = above.sum(axis=1)
        place = np.searchsorted(self._cumulated_share, category + self._random.random(num_walking), side="right")
        # Rounding may leave the last item of a category a hair short of its whole number.
        last_of_category = np.searchsorted(self._categories_in_order(), category, side="right") - 1
        return np.asarray(self._by_category[np.minimum(place, last_of_category)])

    def _short_gap(self, num_walking: int) -> Int[np.ndarray, " shopper"]:
        """Seconds inside a session: 10 seconds to 15 minutes."""
        return np.clip(self._random.lognormal(4.4, 0.9, num_walking), 10, 900).astype(np.int64)

    def _long_gap(self, num_walking: int) -> Int[np.ndarray, " shopper"]:
        """Seconds between sessions: eight hours and up, two and a half days on average."""
        return (8 * SHORTEST_BREAK_SECONDS + self._random.exponential(187_200, num_walking)).astype(np.int64)


def _ids(letter: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{letter}{number:0{width}d}" for number in range(count)]


def _category_name(number: int) -> str:
    name, round_number = CATEGORY_NAMES[number % len(CATEGORY_NAMES)], number // len(CATEGORY_NAMES)
    return name if round_number == 0 else f"{name} {round_number + 1}"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet or, by its ending, CSV: whole, or not at all."""
    with atomic_write(path) as unfinished:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, unfinished)
        else:
            pyarrow.parquet.write_table(table, unfinished)
