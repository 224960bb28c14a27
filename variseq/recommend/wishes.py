"""What may be recommended, in outside ids, into masks and factors over the catalog; and pins into a list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Id, Vocabulary

FROM_HISTORY = "model"
UNKNOWN_USER = "fallback: unknown user, what the model expects of an empty history"
NO_HISTORY = "fallback: no known item in the history, what the model expects of an empty history"


@dataclass(frozen=True)
class Filters:
    """What may be recommended, in outside ids.

    `only` and `category` keep, `exclude` drops; `exclude_seen` None is what the log suggested. `boost` and
    `boost_categories` multiply the probability that items are ranked by; `pin` puts items, if they may be recommended,
    at ranks. Neither changes what is said of an item.
    """

    k: int = 10
    exclude: Sequence[Id] = ()
    only: Sequence[Id] | None = None
    category: str | Sequence[str] | None = None
    exclude_seen: bool | None = None
    boost: Mapping[Id, float] = field(default_factory=dict)
    boost_categories: Mapping[str, float] = field(default_factory=dict)
    pin: Mapping[int, Id] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """What may be recommended: `k` of the candidates (all items where None), without those already seen (if wanted).

    `repeat_share` is the probability that the next event is a seen item where those are left out. `log_boost` is added
    to the scores that items are ranked by. `pins` are places in the list and the items that are to stand there.
    """

    num_items: int
    k: int = 10
    exclude_seen: bool = True
    candidates: Bool[np.ndarray, " item"] | None = None
    repeat_share: float = 0.0
    log_boost: Float[np.ndarray, " item"] | None = None
    pins: tuple[tuple[int, int], ...] = ()

    def allows(self, item: int) -> bool:
        """Whether an item is a candidate."""
        return self.candidates is None or bool(self.candidates[item])


class Wishes:
    """A catalog that filters are asked of. Raises InputError for what it does not have.

    `exclude_seen` is what the log suggested: people who repeat themselves may be shown the same again.
    """

    def __init__(
        self, vocabulary: Vocabulary, items: ItemTable | None, repeat_share: float, exclude_seen: bool
    ) -> None:
        self.vocabulary = vocabulary
        self.items = items
        self.repeat_share = repeat_share
        self.exclude_seen = exclude_seen

    def wish(self, filters: Filters) -> Wish:
        """The filters as masks and factors."""
        num_items = self.vocabulary.num_items
        check_k(filters.k, num_items, "the size of the catalog")
        candidates = np.ones(num_items, dtype=bool)
        if filters.only is not None:
            candidates[:] = False
            candidates[self.known_items(id_list(filters.only, "only"), "only")] = True
        if filters.category is not None:
            candidates &= self._in_category(filters.category)
        if len(filters.exclude):
            excluded = self.vocabulary.item_positions(id_list(filters.exclude, "exclude"))
            candidates[excluded[excluded >= 0]] = False
        allowed = None if candidates.all() else candidates
        excludes = self.exclude_seen if filters.exclude_seen is None else filters.exclude_seen
        pins = self._pins(filters)
        return Wish(num_items, filters.k, excludes, allowed, self.repeat_share, self._boost(filters), pins)

    def known_items(self, item_ids: Sequence[Id], argument: str) -> Int[np.ndarray, " item"]:
        """Positions of items. Raises InputError for one that is not in the catalog."""
        positions = self.vocabulary.item_positions(item_ids)
        unknown = [item for item, position in zip(item_ids, positions, strict=True) if position < 0]
        if unknown:
            raise InputError(
                f"{argument} names items that are not in the catalog: {', '.join(map(repr, unknown[:10]))}."
            )
        return positions

    @cached_property
    def members(self) -> dict[str, Int[np.ndarray, " item"]]:
        """The items of each category."""
        if self.items is None:
            raise InputError("There are no categories: the run was made without an items file. Fit with items=….")
        members: dict[str, list[int]] = {}
        for item, categories in enumerate(self.items.categories(range(self.vocabulary.num_items))):
            for name in set(categories):
                members.setdefault(name, []).append(item)
        return {name: np.array(inside) for name, inside in members.items()}

    def _in_category(self, category: str | Sequence[str]) -> Bool[np.ndarray, " item"]:
        wanted = [category] if isinstance(category, str) else list(category)
        inside = np.zeros(self.vocabulary.num_items, dtype=bool)
        for name in wanted:
            inside[self.members.get(name, [])] = True
        if not inside.any():
            raise InputError(f"No item has the category {', '.join(map(repr, sorted(wanted)))}. {self._categories()}")
        return inside

    def _categories(self) -> str:
        there = sorted(self.members)
        return f"There are: {', '.join(there[:30])}{', …' if len(there) > 30 else ''}."

    def _boost(self, filters: Filters) -> Float[np.ndarray, " item"] | None:
        if not filters.boost and not filters.boost_categories:
            return None
        for name, factor in [*filters.boost.items(), *filters.boost_categories.items()]:
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
                raise InputError(f"boost of {name!r} by {factor!r} is not possible. Allowed: positive numbers.")
        log_boost = np.zeros(self.vocabulary.num_items, dtype=np.float32)
        for name, factor in filters.boost_categories.items():
            if name not in self.members:
                raise InputError(f"boost names the category {name!r}, which no item has. {self._categories()}")
            log_boost[self.members[name]] += math.log(factor)
        item = self.known_items(list(filters.boost), "boost")
        np.add.at(log_boost, item, np.log(np.array(list(filters.boost.values()), dtype=np.float64)).astype(np.float32))
        return log_boost

    def _pins(self, filters: Filters) -> tuple[tuple[int, int], ...]:
        for rank in filters.pin:
            if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= filters.k:
                raise InputError(f"pin at rank {rank!r} is not possible. Allowed: ranks from 1 to k={filters.k}.")
        ranks = sorted(filters.pin)
        item = self.known_items([filters.pin[rank] for rank in ranks], "pin")
        if len(set(item.tolist())) < len(item):
            raise InputError("pin names an item at two ranks. Give each item one rank.")
        return tuple((rank - 1, int(one)) for rank, one in zip(ranks, item, strict=True))


def allowed_pins(wish: Wish, seen: Int[np.ndarray, " event"]) -> list[tuple[int, int]]:
    """The pins of a wish whose items may be recommended to somebody who has seen some items."""
    out = set(seen.tolist()) if wish.exclude_seen else set()
    return [(place, item) for place, item in wish.pins if item not in out and wish.allows(item)]


def with_pins(ranked: Sequence[int], pins: Iterable[tuple[int, int]], k: int) -> list[int]:
    """A list with some items at fixed places, ascending, and the others in their order around them.

    >>> with_pins([4, 7, 1], [(0, 1), (2, 9)], k=3)
    [1, 4, 9]
    """
    pins = list(pins)
    pinned = {item for _, item in pins}
    found = [item for item in ranked if item >= 0 and item not in pinned]
    for place, item in pins:
        found.insert(place, item)
    return found[:k]


def id_list(ids: object, argument: str) -> list[Id]:
    """The ids as a list. Raises InputError for a single id, which would be read letter by letter.

    >>> id_list(("i9", "i3"), "history")
    ['i9', 'i3']
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"{argument}={ids!r} is one value. Give a list of ids, for example {argument}=[{ids!r}].")
    return list(ids)


def check_k(k: int, largest: int, what: str) -> None:
    """Raises InputError for a number of items that cannot be given."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= largest:
        raise InputError(f"k={k!r} is not possible. Allowed: whole numbers from 1 to {largest}, {what}.")
