"""The options of a recommendation, declared and checked once for Python, command line and HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from variseq.errors import InputError
from variseq.events.vocabulary import Id, nearest_hint
from variseq.sequences.given_history import request_microseconds

EXPLORE = (None, "thompson")
NEXT = ("event", "visit")


MAX_QUERY = 500
"""Characters of a query, at most."""


@dataclass(frozen=True, kw_only=True)
class RecommendOptions:
    """What may be recommended, and how a list is made of it.

    Boosts and pins change the order of a list. They change no probability.

    Args:
        k: Number of items, from 1 to the size of the catalog.
        candidates: Item ids to choose from; None: the whole catalog.
        exclude: Item ids to leave out; unknown ids are ignored.
        categories: Keep items that have one of these categories; None: all items.
        exclude_seen: Leave out the items of the user's history; None: what the log suggested in `fit`.
        boost_items: Factor for each item id that its probability is multiplied by before ranking.
        boost_categories: The same for all items of a category.
        query: A text; items whose content is like it are ranked higher. Needs a model of items with text.
        pin: Item id for each rank (from 1 to k) where it is put, if it may be recommended.
        explore: "thompson" ranks by one sample of each posterior (Thompson sampling) in place of the mean over samples.
        seed: Seed of that sample, a whole number from 0.
        new_items_share: At least this share of the list, rounded up, are items without events, as far as there are any.
        diversity: From 0 (most relevant items) to 1 (items far from each other), by maximal marginal relevance.
        conformal_level: From 0.5 to 0.99: in place of k items the smallest set that holds the next item with this
            probability.
        ranks_only: Give the order at the posterior mean alone, without probabilities, intervals, uncertainty and
            reasons; several times as fast.
        next: "event": probabilities are those of an item to be the next event, or one event of the next visit.
            "visit": those of an item to be in the next visit, which only a model of a log with visits gives.
        reasons: Name the earlier items without which an item would be less probable; False is faster.
        attributes: Attributes of the person by name, such as {"country": "DE"}, for a model of a log with a table of
            users. They change the answer for an empty history, and for up to three events if that was found to help.
        at: When the answer is wanted: "now", seconds since 1970, text with a zone, or a datetime. Not before the latest
            event. None: any time after it.

    Raises:
        InputError: For a value that is not possible, alone or together with another.
    """

    k: int = 10
    candidates: Sequence[Id] | None = None
    exclude: Sequence[Id] = ()
    categories: Sequence[str] | None = None
    exclude_seen: bool | None = None
    boost_items: Mapping[Id, float] = field(default_factory=dict)
    boost_categories: Mapping[str, float] = field(default_factory=dict)
    query: str | None = None
    pin: Mapping[int, Id] = field(default_factory=dict)
    explore: str | None = None
    seed: int = 0
    new_items_share: float = 0.0
    diversity: float = 0.0
    conformal_level: float | None = None
    ranks_only: bool = False
    reasons: bool = True
    attributes: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    at: str | int | float | datetime | None = None
    next: str = "event"

    @classmethod
    def of(cls, options: RecommendOptions | None, changes: Mapping[str, Any]) -> RecommendOptions:
        """Options with some fields replaced. Raises InputError for a name that is no option."""
        names = [one.name for one in fields(cls)]
        if unknown := [name for name in changes if name not in names]:
            raise InputError(
                f"There is no option {unknown[0]!r}{nearest_hint(unknown[0], names)}. Allowed: {', '.join(names)}."
            )
        return replace(options or cls(), **changes)

    def __post_init__(self) -> None:
        for name in ("candidates", "exclude", "categories"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(id_list(getattr(self, name), name)))
        _require(_is_whole(self.k, 1), f"k={self.k!r}", "whole numbers from 1 to the size of the catalog")
        _require(self.explore in EXPLORE, f"explore={self.explore!r}", "None and 'thompson'")
        _require(self.next in NEXT, f"next={self.next!r}", "'event' and 'visit'")
        _require(_is_whole(self.seed, 0), f"seed={self.seed!r}", "whole numbers from 0")
        _require(
            _is_number(self.new_items_share) and 0 <= float(self.new_items_share) <= 1,
            f"new_items_share={self.new_items_share!r}",
            "numbers from 0 to 1, for example 0.1",
        )
        _require(
            _is_number(self.diversity) and 0 <= float(self.diversity) <= 1,
            f"diversity={self.diversity!r}",
            "numbers from 0 (the most relevant items) to 1 (items far from each other), for example 0.3",
        )
        is_text = self.query is None or (isinstance(self.query, str) and bool(self.query.strip()))
        is_short = is_text and len(self.query or "") <= MAX_QUERY
        _require(is_short, f"query={str(self.query)[:80]!r}", f"texts of 1 to {MAX_QUERY} characters")
        self._check_boosts_and_pins()
        self._check_attributes()
        self._check_combinations()
        self.request_time()

    def request_time(self) -> int | None:
        """`at` in UTC microseconds; None where it is not given."""
        return None if self.at is None else request_microseconds(self.at)

    def _check_boosts_and_pins(self) -> None:
        for option in ("boost_items", "boost_categories", "pin"):
            if not isinstance(getattr(self, option), Mapping):
                example = "{1: 'i9'}" if option == "pin" else "{'i9': 1.5}"
                raise InputError(f"{option}={getattr(self, option)!r} is no mapping. Give one, such as {example}.")
        for option in ("boost_items", "boost_categories"):
            for name, factor in getattr(self, option).items():
                is_factor = _is_number(factor) and 0 < float(factor) < math.inf
                _require(is_factor, f"{option}: {name!r} by {factor!r}", "positive numbers")
        for rank in self.pin:
            _require(_is_whole(rank, 1) and int(rank) <= self.k, f"pin at rank {rank!r}", f"ranks from 1 to k={self.k}")
        if len(set(self.pin.values())) < len(self.pin):
            raise InputError("pin names an item at two ranks. Give each item one rank.")

    def _check_attributes(self) -> None:
        given, kinds = self.attributes, str | int | float | np.number | None
        if not isinstance(given, Mapping):
            raise InputError(f"attributes={given!r} is no mapping. Give one, such as {{'country': 'DE'}}.")
        for name, value in given.items():
            _require(isinstance(value, kinds), f"attributes: {name!r} with {value!r}", "texts and numbers")

    def _check_combinations(self) -> None:
        if self.ranks_only and (self.explore or self.diversity or self.conformal_level is not None):
            raise InputError(
                "ranks_only gives the plain order; explore, diversity and conformal_level need more than that. Leave "
                "one or the other out."
            )
        names = ("explore", "diversity", "new_items_share", "boost_items", "boost_categories", "query", "pin")
        reordered = any(getattr(self, name) for name in names)
        if self.conformal_level is not None and reordered:
            raise InputError(
                "conformal_level asks for a set that holds the next item; explore, diversity, new_items_share, "
                "boosts, query and pin for another order of a list. Give one or the others."
            )


def id_list(ids: object, argument: str) -> list[Id]:
    """The ids as a list. Raises InputError for a single id, which would be read letter by letter.

    >>> id_list(("i9", "i3"), "history")
    ['i9', 'i3']
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"{argument}={ids!r} is one value. Give a list of ids, for example {argument}=[{ids!r}].")
    return list(ids)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _require(is_possible: bool, what: str, allowed: str) -> None:
    if not is_possible:
        raise InputError(f"{what} is not possible. Allowed: {allowed}.")
