"""Simulate an event log whose next-item probabilities are known exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Bool, Float, Int

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.simulate_content import (
    MAX_CATEGORIES,
    attributes,
    draw_picture,
    titles_and_texts,
    write_tone,
)
from variseq.events.table import MICROSECONDS_PER_SECOND, Columns

BEHAVIORS = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)
MIN_EVENTS = 3
SHORTEST_BREAK_SECONDS = 3_600
"""A gap of this many seconds or more opens a session."""
TRANSITION_WEIGHTS = np.array([0.6, 0.3, 0.1])


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
    transition_share: int | float = 0.5
    """Share of views inside a session that are a successor of the last item."""
    session_end_probability: int | float = 0.2
    cart_probability: int | float = 0.25
    purchase_probability: int | float = 0.4
    taste_decay: int | float = 0.8
    """What is left of the weights of a taste when a new session starts; 1 means that tastes never drift."""
    taste_prior_events: int | float = 2.0
    """The number of events that the common base taste is worth; small means that users differ a lot."""
    popularity_exponent: int | float = 1.0
    """Zipf exponent of the popularity of an item inside its category."""
    content: bool = False
    """Whether texts, pictures and tones tell the category of an item, in place of a column of the items."""

    def __post_init__(self) -> None:
        came = asdict(self)
        allowed = {
            "num_users": (self.num_users >= 1, "at least 1"),
            "num_categories": (
                self.num_categories >= 1 and not (self.content and self.num_categories > MAX_CATEGORIES),
                f"at least 1, with content at most {MAX_CATEGORIES}",
            ),
            "num_items": (self.num_items >= 2 * self.num_categories, "at least two items per category"),
            "mean_events": (MIN_EVENTS < self.mean_events < np.inf, f"above {MIN_EVENTS}, and finite"),
            "seed": (self.seed >= 0, "0 or more"),
            "noise_share": (0 < self.noise_share <= 1, "above 0, at most 1"),
            "transition_share": (0 <= self.transition_share <= 1 - self.noise_share, "from 0 to 1 - noise_share"),
            "taste_prior_events": (0 < self.taste_prior_events < np.inf, "above 0, and finite"),
            "popularity_exponent": (0 <= self.popularity_exponent < np.inf, "0 or more, and finite"),
        }
        for name in ("session_end_probability", "cart_probability", "purchase_probability", "taste_decay"):
            allowed[name] = (0 <= came[name] <= 1, "from 0 to 1")
        for name, (is_valid, range_in_words) in allowed.items():
            if not is_valid:
                raise InputError(f"{name} is {came[name]}; allowed is {range_in_words}.")


@dataclass(frozen=True)
class Catalog:
    """The catalog and its known structure; `item` counts from 0 to `num_items - 1`."""

    category: Int[np.ndarray, " item"]
    share: Float[np.ndarray, " item"]
    """Popularity inside the own category; sums to 1 over a category."""
    rank: Int[np.ndarray, " item"]
    """1 for the most popular item of its category, 2 for the next."""
    successor: Int[np.ndarray, "item successor"]
    """Where an item leads to: first inside its category, then anywhere; chosen with `TRANSITION_WEIGHTS`."""
    price: Float[np.ndarray, " item"]
    base_taste: Float[np.ndarray, " category"]

    @classmethod
    def draw(cls, options: SimulationOptions, random: np.random.Generator) -> Catalog:
        """Draw a catalog: categories of equal size, and three cycles along which items transition to each other."""
        category = random.permutation(np.arange(options.num_items) % options.num_categories)
        by_category = np.lexsort((random.random(options.num_items), category))
        first_of_category = np.searchsorted(category[by_category], np.arange(options.num_categories))
        rank = np.empty(options.num_items, dtype=np.int64)
        rank[by_category] = np.arange(options.num_items) - first_of_category[category[by_category]] + 1
        share = rank.astype(np.float64) ** -options.popularity_exponent
        share /= np.bincount(category, weights=share)[category]
        inside = np.lexsort((random.random(options.num_items), category))
        # One cycle in each category, then cycles through all items: every item also has exactly one predecessor.
        successor = np.empty((options.num_items, len(TRANSITION_WEIGHTS)), dtype=np.int64)
        for one in range(options.num_categories):
            items = inside[category[inside] == one]
            successor[items, 0] = np.roll(items, -1)
        for column in range(1, len(TRANSITION_WEIGHTS)):
            items = random.permutation(options.num_items)
            successor[items, column] = np.roll(items, -1)
        level = random.normal(3.0, 0.8, options.num_categories)
        price = np.round(np.exp(level[category] + random.normal(0.0, 0.4, options.num_items)), 2)
        base_taste = np.arange(1, options.num_categories + 1, dtype=np.float64) ** -0.5
        return cls(category, share, rank, successor, price, base_taste / base_taste.sum())

    def taste(
        self, weight: Float[np.ndarray, "history category"], prior_events: float
    ) -> Float[np.ndarray, "history category"]:
        """The taste that belongs to weights; rows sum to 1."""
        strength = prior_events + weight.sum(axis=1, keepdims=True)
        return np.asarray((prior_events * self.base_taste + weight) / strength)


def follow_probability(options: SimulationOptions) -> Float[np.ndarray, " behavior"]:
    """The chance that the funnel goes on with the same item, after each behavior."""
    return np.array([options.cart_probability, options.purchase_probability, 0.0])


__all__ = ["Simulation", "SimulationOptions", "simulate", "write_table"]

FIRST_DAY = np.datetime64("2024-01-01T00:00:00", "us")
FIRST_EVENT_SPAN_SECONDS = 60 * 86_400
"""First events lie within this many seconds."""
CATEGORY_NAMES = ("Garden", "Kitchen", "Books", "Toys", "Sports", "Music", "Beauty", "Tools", "Shoes", "Lamps")


@dataclass(frozen=True)
class Simulation:
    """Simulated histories side by side; history u is `item[offsets[u]:offsets[u + 1]]`, oldest event first.

    The numbers are the simulation's own: item 7 has the id "i007" (padded with zeros to equal length), so ids in
    sorted order are items in order; behaviors are view 0, cart 1, purchase 2; timestamps are UTC microseconds; values
    are the price at that time.

    >>> catalog = simulate(SimulationOptions(num_users=3, num_items=20, num_categories=2, mean_events=5, seed=1))
    >>> catalog.item_ids()[:2], catalog.next_item_distribution(np.array([0, 1])).sum(axis=1).round(6).tolist()
    (['i00', 'i01'], [1.0, 1.0])
    """

    options: SimulationOptions
    catalog: Catalog
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
        return self._distribution(offsets, self.item[event], self.timestamp[event], self.behavior[event])

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
        return np.asarray(np.log(self._distribution(offsets, item, timestamp, behavior)))

    def _distribution(
        self,
        offsets: Int[np.ndarray, " history_plus_one"],
        item: Int[np.ndarray, " event"],
        timestamp: Int[np.ndarray, " event"],
        behavior: Int[np.ndarray, " event"],
    ) -> Float[np.ndarray, "history item"]:
        """The exact probability of each item to be the next after each history; rows sum to 1.

        p(i) = f·[i is the last item] + (1 - f)·{ (1 - e)·inside(i) + e·opening(i) }, where f is the chance that the
        funnel goes on, e that a session ends, inside = noise/num_items + transition·successors + rest·taste and
        opening = noise/num_items + (1 - noise)·shrunken taste. The time of the next event is not given.
        """
        options, catalog = self.options, self.catalog
        num_histories, num_categories = len(offsets) - 1, options.num_categories
        lengths = np.diff(offsets)
        opens_session = np.diff(timestamp, prepend=timestamp[:1]) >= SHORTEST_BREAK_SECONDS * MICROSECONDS_PER_SECOND
        session = np.cumsum(opens_session)
        history = np.flatnonzero(lengths)
        last = offsets[1:][history] - 1
        age_in_sessions = np.repeat(session[last], lengths[history]) - session
        cell = np.repeat(np.arange(num_histories), lengths) * num_categories + catalog.category[item]
        of_cell = np.bincount(cell, options.taste_decay**age_in_sessions, num_histories * num_categories)
        # Without any event, bincount forgets that the weights are not whole numbers.
        weight = of_cell.astype(np.float64).reshape(num_histories, num_categories)
        funnel, ends = np.zeros(num_histories), np.ones(num_histories)
        funnel[history] = follow_probability(options)[behavior[last]]
        ends[history] = options.session_end_probability
        stays = (1 - funnel) * (1 - ends)
        taste_inside = catalog.taste(weight, options.taste_prior_events)
        taste_opening = catalog.taste(weight * options.taste_decay, options.taste_prior_events)
        by_taste = (stays * (1 - options.noise_share - options.transition_share))[:, None] * taste_inside
        by_taste += ((1 - funnel) * ends * (1 - options.noise_share))[:, None] * taste_opening
        probability = by_taste[:, catalog.category] * catalog.share
        probability += ((1 - funnel) * options.noise_share / options.num_items)[:, None]
        probability[history, item[last]] += funnel[history]
        for column, transition_weight in enumerate(TRANSITION_WEIGHTS):
            # One column at a time: two successors of an item may be the same item, and then both weights must count.
            probability[history, catalog.successor[item[last], column]] += (
                stays[history] * options.transition_share * transition_weight
            )
        return np.asarray(probability)

    def hold_out(self, is_new: Bool[np.ndarray, " item"]) -> Simulation:
        """The shop in which new items have no event but the last one of a history: they end at the first of them.

        What is left of a history is whole, so the true probabilities stay exact. Where an event of a new item comes
        first or second, it is left out too.
        """
        user = np.repeat(np.arange(self.options.num_users), np.diff(self.offsets))
        number = np.arange(len(self.item)) - self.offsets[user]
        end, new = np.diff(self.offsets), np.flatnonzero(is_new[self.item])
        np.minimum.at(end, user[new], number[new] + (number[new] >= MIN_EVENTS - 1))
        kept = number < end[user]
        columns = {name: getattr(self, name)[kept] for name in ("item", "timestamp", "behavior", "value")}
        return replace(self, offsets=np.concatenate([[0], np.cumsum(end)]), **columns)

    def new_item_distribution(
        self, positions: Int[np.ndarray, " position"], is_new: Bool[np.ndarray, " item"]
    ) -> Float[np.ndarray, "position item"]:
        """`next_item_distribution` to somebody who knows all but what only events tell of new items; rows sum to 1.

        That is their popularity in their category, and which items lead to them: one of their category, and two of
        all. So each probability of a new item is a mean: over the new items of its category, and of all categories for
        these two. The histories have no new item.
        """
        itself = np.arange(self.options.num_items)
        successor = np.column_stack([self.catalog.successor[:, 0], itself, itself])
        near = replace(self, catalog=replace(self.catalog, successor=successor)).next_item_distribution(positions)
        probability, new = self.next_item_distribution(positions), np.flatnonzero(is_new)
        far, category = probability[:, new] - near[:, new], self.catalog.category[new]
        is_alike = (category[:, None] == category).astype(np.float64)
        probability[:, new] = near[:, new] @ (is_alike / is_alike.sum(axis=0)) + far.mean(axis=1, keepdims=True)
        return probability

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
        """The catalog as a table; a title holds the popularity rank inside the category.

        With `content` a title and a text of a few words in place of titles and categories.
        """
        if self.options.content:
            topic = attributes(self.catalog.category, self.options.num_categories)[:, 0]
            titles, texts = titles_and_texts(topic, np.random.default_rng([self.options.seed, 1]))
            return pa.table({Columns.ITEM: self.item_ids(), Columns.TITLE: titles, "text": texts})
        names = []
        for number in self.catalog.category:
            turn, name = divmod(number, len(CATEGORY_NAMES))
            names.append(CATEGORY_NAMES[name] + (f" {turn + 1}" if turn else ""))
        titles = [f"{name} no. {rank}" for name, rank in zip(names, self.catalog.rank, strict=True)]
        return pa.table({Columns.ITEM: self.item_ids(), Columns.TITLE: titles, Columns.CATEGORY: names})

    def write_media(self, folder: str | Path) -> pa.Table:
        """Write a PNG picture and a WAV tone of each item of a shop with `content`.

        Args:
            folder: The folder, which is made if it is not there.

        Returns:
            The items with the columns `image` and `audio`: paths from the folder.

        Raises:
            InputError: The shop has no content, or a file cannot be written.
            MissingDependencyError: Pillow is not installed.
        """
        if not self.options.content:
            raise InputError("The items have no pictures and tones; simulate with SimulationOptions(content=True).")
        folder, random, names = Path(folder), np.random.default_rng([self.options.seed, 2]), self.item_ids()
        shown = attributes(self.catalog.category, self.options.num_categories)
        level = shown / (shown.max() + 1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, (_, color, pitch) in zip(names, level.tolist(), strict=True):
                draw_picture(folder / f"{name}.png", color, random)
                write_tone(folder / f"{name}.wav", pitch, random)
        except OSError as error:
            raise InputError(f"Pictures and tones cannot be written to {folder}: {error}.") from error
        files = {kind: [f"{name}.{end}" for name in names] for kind, end in (("image", "png"), ("audio", "wav"))}
        return pa.table({**dict(zip(self.items().column_names, self.items().columns, strict=True)), **files})

    def write(self, path: str | Path) -> tuple[Path, Path]:
        """Write the log to `path` and the items next to it ("log.parquet" and "log-items.parquet").

        Parquet or CSV, by the ending. Existing files are replaced. Returns both paths.

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
    """Simulate a log whose next-item probabilities are known exactly.

    Each next event of a user follows these rules:

    1. **Funnel.** After a view the same item goes into the cart with `cart_probability`; after a cart it is bought
       with `purchase_probability`. Otherwise the next event is a view.
    2. **Sessions.** That view opens a new session with `session_end_probability`. Gaps inside a session are minutes,
       gaps between sessions are hours to days, and the two never overlap.
    3. **Taste.** Every event adds one to the weight of its category; at the start of a session all weights shrink by
       `taste_decay`. The taste is (base + weights), normalized. The base is equal for all users and worth
       `taste_prior_events` events: the predictive form of a Dirichlet taste that drifts between sessions.
    4. **Item viewed.** With `noise_share` it is any item, each equally likely; inside a session, with
       `transition_share`, one of three successors of the last item; otherwise an item of a category drawn from the
       taste, by its popularity in that category (Zipf).

    Nothing is hidden: items and times give the weights. No model of the same history has a better expected
    likelihood. The work grows with the longest history: 10,000 users with 30 events take about a second on one core.

    Args:
        options: What to simulate; equal options give equal logs.

    Returns:
        The histories, and the distributions that they were drawn from.
    """
    random = np.random.default_rng(options.seed)
    catalog = Catalog.draw(options, random)
    lengths = MIN_EVENTS + random.geometric(1 / (options.mean_events - MIN_EVENTS + 1), options.num_users) - 1
    # Longest first: users who are active at a step are then the first rows of every array.
    user = np.argsort(-lengths, kind="stable")
    users = _Users(options, catalog, random)
    steps = [users.step(int((lengths > step).sum())) for step in range(int(lengths.max()))]
    by_user = np.argsort(np.concatenate([user[: len(step[0])] for step in steps]), kind="stable")
    item, second, behavior = (np.concatenate(column)[by_user] for column in zip(*steps, strict=True))
    price = np.round(catalog.price[item] * np.exp(random.normal(0.0, 0.05, len(item))), 2)
    return Simulation(
        options=options,
        catalog=catalog,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=item,
        timestamp=FIRST_DAY.astype(np.int64) + second * MICROSECONDS_PER_SECOND,
        behavior=behavior,
        value=price,
    )


class _Users:
    """The state of all users, and their next events."""

    def __init__(self, options: SimulationOptions, catalog: Catalog, random: np.random.Generator) -> None:
        self._options, self._catalog, self._random = options, catalog, random
        self._weight = np.zeros((options.num_users, options.num_categories))
        self._item = np.full(options.num_users, -1, dtype=np.int64)
        self._behavior = np.full(options.num_users, PURCHASE, dtype=np.int64)
        self._second = random.integers(0, FIRST_EVENT_SPAN_SECONDS, options.num_users)
        # Items by category, then by rank; with the cumulated share plus the number of the category, so that
        # one search finds an item for every user, whatever the category.
        self._by_category = np.lexsort((catalog.rank, catalog.category))
        self._category = catalog.category[self._by_category]
        share = catalog.share[self._by_category]
        before = np.searchsorted(self._category, np.arange(options.num_categories))
        cumulated = np.cumsum(share) - np.concatenate([[0.0], np.cumsum(share)])[before][self._category]
        self._cumulated_share = self._category + cumulated

    def step(self, num_active: int) -> tuple[Int[np.ndarray, " user"], ...]:
        """The next event (item, second, behavior) of the first `num_active` users."""
        options, random = self._options, self._random
        item, behavior = self._item[:num_active], self._behavior[:num_active]
        second, weight = self._second[:num_active], self._weight[:num_active]
        follows = random.random(num_active) < follow_probability(options)[behavior]
        ends = random.random(num_active) < options.session_end_probability
        opens = ~follows & (ends | (item < 0))
        weight[opens] *= options.taste_decay
        item[:] = np.where(follows, item, self._view(item, opens))
        behavior[:] = np.where(follows, behavior + 1, VIEW)
        # Between sessions eight hours and up, two and a half days on average; inside 10 seconds to 15 minutes.
        long_gap = 8 * SHORTEST_BREAK_SECONDS + random.exponential(187_200, num_active)
        short_gap = np.clip(random.lognormal(4.4, 0.9, num_active), 10, 900)
        second += np.where(opens, long_gap, short_gap).astype(np.int64)
        weight[np.arange(num_active), self._catalog.category[item]] += 1
        return item.copy(), second.copy(), behavior.copy()

    def _view(self, last_item: Int[np.ndarray, " user"], opens: Bool[np.ndarray, " user"]) -> Int[np.ndarray, " user"]:
        """An item by noise, by a transition from the last item, or by taste."""
        options, random, num_active = self._options, self._random, len(last_item)
        way = random.random(num_active)
        is_noise = way < options.noise_share
        is_transition = ~is_noise & ~opens & (way < options.noise_share + options.transition_share)
        column = random.choice(len(TRANSITION_WEIGHTS), num_active, p=TRANSITION_WEIGHTS)
        by_transition = self._catalog.successor[last_item, column]
        noise = random.integers(0, options.num_items, num_active)
        # A category from the taste, then an item from it by popularity; both by inverting a cumulated sum.
        taste = self._catalog.taste(self._weight[:num_active], options.taste_prior_events)
        category = (random.random((num_active, 1)) >= np.cumsum(taste, axis=1)[:, :-1]).sum(axis=1)
        index = np.searchsorted(self._cumulated_share, category + random.random(num_active), side="right")
        # Rounding may leave the last item of a category a hair short of its whole number.
        last_of_category = np.searchsorted(self._category, category, side="right") - 1
        by_taste = self._by_category[np.minimum(index, last_of_category)]
        return np.where(is_noise, noise, np.where(is_transition, by_transition, by_taste))


def _ids(letter: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{letter}{number:0{width}d}" for number in range(count)]


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet or, by its ending, CSV: whole, or not at all."""
    with atomic_write(path) as unfinished:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, unfinished)
        else:
            pyarrow.parquet.write_table(table, unfinished)
