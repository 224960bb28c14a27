"""The options of a recommendation, declared and checked once for Python, command line and HTTP."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from variseq.errors import InputError
from variseq.events.vocabulary import Id, nearest_hint
from variseq.sequences.given_history import request_microseconds

STRATEGIES = ("greedy", "softmax", "thompson")
SOFTMAX = ("temperature", "pool", "uniform_share")
"""The options that the probabilities of a list depend on with strategy="softmax"."""
NEXT = ("event", "visit")
MIN_TEMPERATURE = 0.05
"""With less than this, weights of probable items would be zero in 64 bits."""
MIN_UNIFORM_SHARE = 0.0001
MAX_EXPONENT = 10
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
        boost_columns: An exponent for each column of numbers of the items, such as {"price": 0.5}: items are ranked by
            p · price^0.5. An exponent of 1 ranks by expected value. Items without a positive number have the median.
        query: A text; items whose content is like it are ranked higher. Needs a model of items with text.
        pin: Item id for each rank (from 1 to k) where it is put, if it may be recommended.
        strategy: "greedy" ranks by probability. "softmax" draws a list by chance, with known propensities (see
            `ranking.plackett_luce`). "thompson" ranks by one sample of each posterior (Thompson, 1933), with unknown
            ones: its lists cannot be used for off-policy evaluation.
        temperature: Of the softmax, from 0.05: small is close to greedy, 1 draws items as they are probable.
        pool: The softmax draws among so many of the items that are ranked highest, from k on.
        uniform_share: Share of the last place of a list that all items of the pool get equally, above 0 and below 1.
        seed: Of what is drawn, a whole number from 0; None: one from the system's source of randomness. Lists of
            several people are drawn apart from each other.
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
    boost_columns: Mapping[str, float] = field(default_factory=dict)
    query: str | None = None
    pin: Mapping[int, Id] = field(default_factory=dict)
    strategy: str = "greedy"
    temperature: float = 0.3
    pool: int = 100
    uniform_share: float = 0.05
    seed: int | None = None
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
        self._check_strategy()
        _require(self.next in NEXT, f"next={self.next!r}", "'event' and 'visit'")
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

    @property
    def strategy_key(self) -> tuple[object, ...]:
        """What lists of one pass have in common: a sample of posteriors is drawn once, a list for each history."""
        if self.strategy == "softmax":
            return self.strategy, *(getattr(self, name) for name in SOFTMAX)
        return self.strategy, self.seed

    def request_time(self) -> int | None:
        """`at` in UTC microseconds; None where it is not given."""
        return None if self.at is None else request_microseconds(self.at)

    def _check_strategy(self) -> None:
        allowed = "'greedy', 'softmax' and 'thompson'"
        _require(self.strategy in STRATEGIES, f"strategy={self.strategy!r}", allowed)
        is_temperature = _is_number(self.temperature) and MIN_TEMPERATURE <= float(self.temperature) < math.inf
        _require(is_temperature, f"temperature={self.temperature!r}", f"numbers from {MIN_TEMPERATURE}")
        _require(_is_whole(self.pool, 1), f"pool={self.pool!r}", f"whole numbers from k={self.k}")
        least, share = MIN_UNIFORM_SHARE, self.uniform_share
        is_share = _is_number(share) and least <= float(share) <= 1 - least
        _require(is_share, f"uniform_share={share!r}", f"numbers from {least} to {1 - least}")
        if self.strategy == "softmax" and self.pool < self.k:
            raise InputError(f"A list of k={self.k} cannot be drawn from pool={self.pool} items. Give a larger pool.")
        is_seed = self.seed is None or _is_whole(self.seed, 0)
        _require(is_seed, f"seed={self.seed!r}", "whole numbers from 0, and None")
        if self.seed is None and self.strategy != "greedy":
            object.__setattr__(self, "seed", secrets.randbits(32))

    def _check_boosts_and_pins(self) -> None:
        for option in ("boost_items", "boost_categories", "boost_columns", "pin"):
            if not isinstance(getattr(self, option), Mapping):
                example = "{1: 'i9'}" if option == "pin" else "{'i9': 1.5}"
                raise InputError(f"{option}={getattr(self, option)!r} is no mapping. Give one, such as {example}.")
        for option in ("boost_items", "boost_categories"):
            for name, factor in getattr(self, option).items():
                is_factor = _is_number(factor) and 0 < float(factor) < math.inf
                _require(is_factor, f"{option}: {name!r} by {factor!r}", "positive numbers")
        for name, exponent in self.boost_columns.items():
            is_exponent = _is_number(exponent) and abs(float(exponent)) <= MAX_EXPONENT
            _require(is_exponent, f"boost_columns: {name!r} to the power of {exponent!r}", "numbers from -10 to 10")
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
        is_drawn = self.strategy != "greedy"
        if self.ranks_only and (is_drawn or self.diversity or self.conformal_level is not None):
            raise InputError(
                "ranks_only gives the plain order; strategy, diversity and conformal_level need more than that. Leave "
                "one or the other out."
            )
        if self.strategy == "softmax" and (self.diversity or self.new_items_share):
            raise InputError(
                "strategy='softmax' draws lists with known propensities; diversity and new_items_share would change "
                "them. Leave one or the other out, or boost new items."
            )
        names = ("diversity", "new_items_share", "boost_items", "boost_categories", "boost_columns", "query", "pin")
        reordered = is_drawn or any(getattr(self, name) for name in names)
        if self.conformal_level is not None and reordered:
            raise InputError(
                "conformal_level asks for a set that holds the next item; strategy, diversity, new_items_share, "
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
