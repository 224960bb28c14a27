"""What people with some attributes take: counted items of groups of people, and forecasts that are changed by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from variseq.errors import CheckpointError, InputError
from variseq.events.items import UserColumn
from variseq.events.vocabulary import nearest_hint
from variseq.sequences.histories import Histories

MIN_PEOPLE = 10
"""Groups of fewer people are merged, and items that fewer people took are not counted, so that nobody is revealed."""
MAX_VALUES = 200
"""A column with more different values is no attribute."""
MAX_NUMBERS = 32
"""A column with more different numbers is cut into groups of ranges."""
NUM_RANGES = 8
EVENTS_COUNTED = 100
"""The first events of each person that are counted: people with many events shall not outweigh all others."""
MAX_LENGTH = 3
"""Attributes change the forecasts of histories of at most so many events."""
OTHER, MISSING = "other", "missing"
ITEM, COUNT, RECORD = "attributes.item", "attributes.count", "attributes.record"

Value = str | int | float | bool | None


def range_ends(number: Float[np.ndarray, " row"], num_ranges: int) -> Float[np.ndarray, " cut"]:
    """The largest number of each of several ranges of about as many rows, but the last; equal numbers are not parted.

    So there may be fewer ranges. With few different numbers each is a range.

    >>> range_ends(np.array([1.0, 2, 3, 4, 5, 6]), 3), range_ends(np.array([0.0, 0, 0, 0, 1]), 3)
    (array([2., 4.]), array([0.]))
    """
    distinct, count = np.unique(number, return_counts=True)
    if len(distinct) <= num_ranges:
        return distinct[:-1]
    below = np.cumsum(count)[:-1]
    nearest = {int(np.abs(below - len(number) * part / num_ranges).argmin()) for part in range(1, num_ranges)}
    return distinct[sorted(nearest)]


def left_out(values: UserColumn) -> str | None:
    """Why a column is no attribute; None where it is one.

    >>> left_out(["DE", None, "DE"]), left_out(["DE", "FR"]), left_out([str(number) for number in range(300)])
    ('one value', None, 'all values are different')
    """
    distinct = {value for value in values if value is not None}
    if len(distinct) < 2:
        return "one value" if distinct else "no value"
    num_known = sum(value is not None for value in values)
    if len(distinct) > MAX_NUMBERS and len(distinct) == num_known:
        return "all values are different"
    is_many = not _are_numbers(values) and len(distinct) > MAX_VALUES
    return f"{len(distinct):,} different values" if is_many else None


def _are_numbers(values: UserColumn) -> bool:
    return all(isinstance(value, float) for value in values if value is not None)


def _text(value: Value) -> str:
    """A value as the name of a group; whole numbers are written without decimals."""
    return f"{value:.17g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).strip()


@dataclass(frozen=True)
class Attribute:
    """A column of a table of people, as groups of at least `MIN_PEOPLE` people; nobody is in two of them.

    Args:
        name: Name of the column.
        groups: Names of the groups: values, ranges, "other" and "missing".
        is_number: Whether values are numbers.
        ends: The largest number of each range but the last; None: each value is a group.
        of_ranges: The group of each range.
        other: The group of rare values, whose names are not kept, and of unknown ones; −1 for none.
        missing: The group of people without a value; −1 for none.
        strength: How much the groups change forecasts; 0: not at all.
    """

    name: str
    groups: tuple[str, ...]
    is_number: bool = False
    ends: tuple[float, ...] | None = None
    of_ranges: tuple[int, ...] = ()
    other: int = -1
    missing: int = -1
    strength: float = 0.0

    @classmethod
    def fit(cls, name: str, values: UserColumn) -> Attribute | None:
        """The groups of some people; None where less than two groups are large enough."""
        is_number, ends = _are_numbers(values), None
        known = [value for value in values if value is not None]
        if is_number and len(set(known)) > MAX_NUMBERS:
            numbers = np.array(known, dtype=np.float64)
            ends = tuple(range_ends(numbers, NUM_RANGES).tolist())
            found = np.searchsorted(ends, numbers, side="left").tolist()
            names = _range_names(ends)
        else:
            names = sorted({_text(value) for value in known})
            number = {text: index for index, text in enumerate(names)}
            found = [number[_text(value)] for value in known]
        size = np.bincount(np.array(found, dtype=np.int64), minlength=len(names) + 1)
        size[-1] = len(values) - len(known)
        order = np.argsort(size, kind="stable")
        order = order[size[order] > 0]
        merged = np.cumsum(size[order])
        num_merged = int((size[order] < MIN_PEOPLE).sum())
        while 0 < num_merged < len(order) and merged[num_merged - 1] < MIN_PEOPLE:
            num_merged += 1
        small, large = order[:num_merged], np.sort(order[num_merged:])
        if len(large) + bool(num_merged) < 2:
            return None
        of = {int(raw): index for index, raw in enumerate(large)} | dict.fromkeys(small.tolist(), len(large))
        groups = [MISSING if raw == len(names) else names[raw] for raw in large.tolist()] + [OTHER] * bool(num_merged)
        return cls(
            name,
            tuple(groups),
            is_number,
            ends,
            () if ends is None else tuple(of.get(raw, -1) for raw in range(len(names))),
            len(large) if num_merged else -1,
            of.get(len(names), -1),
        )

    @cached_property
    def _values(self) -> dict[str, int]:
        """The groups that are values, by name; "other" and "missing" may also be values."""
        named = set(range(len(self.groups))) - {self.other, self.missing}
        return {self.groups[index]: index for index in sorted(named)} if self.ends is None else {}

    def group_of(self, value: Value) -> tuple[int, bool]:
        """The group of a value, −1 for none, and whether the value is one that the groups were made of."""
        if value is None or (isinstance(value, float) and np.isnan(value)) or value == "":
            return self.missing, True
        unknown = (self.other if self.other >= 0 else self.missing), False
        if self.is_number:
            try:
                number = float(value)
            except ValueError:
                return unknown
            if self.ends is not None:
                return self.of_ranges[int(np.searchsorted(self.ends, number, side="left"))], True
            value = number
        index = self._values.get(_text(value))
        return unknown if index is None else (index, True)


def _range_names(ends: Sequence[float]) -> list[str]:
    """Names of ranges, which do not name the least and the largest number of all people.

    >>> _range_names((19.0, 25.5))
    ['up to 19', 'above 19 to 25.5', 'above 25.5']
    """
    texts = [f"{end:.6g}" for end in ends]
    between = [f"above {low} to {high}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}", *between, f"above {texts[-1]}"]


@dataclass(frozen=True, eq=False)
class UserAttributes:
    """Attributes of people, and the items that groups of people took among their first events.

    An item i gets the ratio Π ((m + n(g, i) / p(i)) / (m + n(g)))^s over the groups g of a person: how much more often
    these people take it than everybody, which is p(i), shrunk to 1 by m events of everybody. A forecast is multiplied
    by it and normalized, so with unknown groups it stays. This is naive Bayes with a Dirichlet prior on the counts of
    each group (Zhai and Lafferty 2004, "Dirichlet prior smoothing"); s below 1 corrects for attributes that say the
    same.

    Args:
        attributes: The attributes. Their groups are numbered one attribute after the other.
        item: Items that enough people took, ascending.
        count: How many people of each group took each item, each person once.
        prior_events: m.
        fade: How much less a forecast is changed for each event of the history, in the exponent.
    """

    attributes: tuple[Attribute, ...]
    item: Integer[np.ndarray, " item"]
    count: Integer[np.ndarray, "group item"]
    prior_events: float = 100.0
    fade: float = 0.0

    @cached_property
    def begins(self) -> list[int]:
        """Where the groups of each attribute begin."""
        return np.cumsum([0, *(len(one.groups) for one in self.attributes)]).tolist()

    @cached_property
    def table(self) -> Float[np.ndarray, "group item"]:
        """The logarithm of the ratio of each group and item, times the strength of the attribute."""
        strength = np.repeat([one.strength for one in self.attributes], [len(one.groups) for one in self.attributes])
        everybody = self.count[: self.begins[1]].sum(axis=0)
        return strength[:, None].astype(np.float32) * shrunk_log_ratios(self.count, everybody, self.prior_events)

    def __str__(self) -> str:
        """What was fitted, in words.

        >>> print(UserAttributes((Attribute("country", ("DE", "FR")),), np.zeros(0, int), np.zeros((2, 0), int)))
        Attributes of users: country (2 groups, strength 0). None says anything of the first events of people.
        """
        found = [f"{one.name} ({len(one.groups)} groups, strength {one.strength:g})" for one in self.attributes]
        ends = " They change the answer for an empty history."
        if not self.used:
            ends = " None says anything of the first events of people."
        elif self.fade > 0:
            ends = f" They change the answers for up to {MAX_LENGTH} events, each event by a factor of {self.fade:g}."
        return f"Attributes of users: {', '.join(found)}.{ends}"

    @property
    def used(self) -> list[str]:
        """The names of the attributes that change forecasts."""
        return [one.name for one in self.attributes if one.strength > 0]

    def groups_of(self, given: Mapping[str, Value]) -> tuple[Int[np.ndarray, " attribute"], list[str]]:
        """The groups of somebody with some attributes, −1 for none, and notes on values without a group of their own.

        An attribute that is not given has no group: nothing is concluded from its absence.

        Raises:
            InputError: For a name that is no attribute.
        """
        names = [one.name for one in self.attributes]
        for name in given:
            if name not in names:
                raise InputError(
                    f"attributes names {name!r}{nearest_hint(name, names)}. The attributes of this model: "
                    f"{', '.join(names)}."
                )
        groups, notes = np.full(len(names), -1, dtype=np.int64), []
        for number, attribute in enumerate(self.attributes):
            if attribute.name in given:
                groups[number], is_known = attribute.group_of(given[attribute.name])
                if not is_known:
                    taken_as = attribute.groups[groups[number]] if groups[number] >= 0 else MISSING
                    notes.append(f"{attribute.name}={given[attribute.name]!r} has no group and counts as {taken_as}")
        return groups, notes

    def of_columns(self, columns: Mapping[str, UserColumn]) -> Int[np.ndarray, "user attribute"]:
        """The groups of people by the columns of a table, −1 for none; a column that is missing has none."""
        found = [
            [one.group_of(value)[0] for value in columns[one.name]] if one.name in columns else None
            for one in self.attributes
        ]
        num_people = max((len(values) for values in columns.values()), default=0)
        return np.stack([np.array(one or [-1] * num_people, dtype=np.int64) for one in found], axis=1)

    def in_words(self, groups: Int[np.ndarray, " attribute"]) -> str:
        """The groups that change a forecast; empty for none.

        >>> found = Attribute("country", ("DE", "FR"), strength=1.0)
        >>> UserAttributes((found,), np.zeros(0, int), np.zeros((2, 0), int)).in_words(np.array([1]))
        'country=FR'
        """
        pairs = zip(self.attributes, groups.tolist(), strict=True)
        return ", ".join(f"{one.name}={one.groups[group]}" for one, group in pairs if group >= 0 and one.strength > 0)

    def change(self, histories: Histories) -> Bool[np.ndarray, " history"]:
        """Whether attributes change the forecast of each history."""
        if histories.attributes is None or not self.used:
            return np.zeros(len(histories), dtype=bool)
        is_short = (histories.lengths == 0) | ((histories.lengths <= MAX_LENGTH) & (self.fade > 0))
        are_used = np.array([one.strength > 0 for one in self.attributes])
        return is_short & ((histories.attributes >= 0) & are_used).any(axis=1)

    def log_ratios(
        self, histories: Histories
    ) -> tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
        """Rows of histories, items and the logarithms of their ratios; rows and items ascend."""
        rows = np.flatnonzero(self.change(histories))
        assert histories.attributes is not None
        of_rows = summed(self.table, self.begins, histories.attributes[rows])
        of_rows = of_rows * (self.fade ** histories.lengths[rows])[:, None]
        item = self.item.astype(np.int64)
        return np.repeat(rows, len(item)), np.tile(item, len(rows)), of_rows.ravel()

    def tensors(self) -> dict[str, np.ndarray]:
        """The record for a run; see `of_tensors`."""
        record = {"prior_events": self.prior_events, "fade": self.fade}
        described = json.dumps(record | {"attributes": [asdict(one) for one in self.attributes]}, ensure_ascii=False)
        return {ITEM: self.item, COUNT: self.count, RECORD: np.frombuffer(described.encode(), np.uint8).copy()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> UserAttributes | None:
        """The inverse of `tensors`; None where there is no such record. Raises CheckpointError for a damaged one."""
        if RECORD not in tensors:
            return None
        try:
            record = json.loads(tensors[RECORD].tobytes().decode())
            described: list[dict[str, Any]] = [
                {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
                for one in record["attributes"]
            ]
            attributes = tuple(Attribute(**one) for one in described)
            item, count = tensors[ITEM], tensors[COUNT]
            if count.shape != (sum(len(one.groups) for one in attributes), len(item)):
                raise ValueError(f"counts of shape {count.shape}")
            return cls(attributes, item, count, float(record["prior_events"]), float(record["fade"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The attributes of users are damaged ({error}).") from error


def with_attributes(attributes: UserAttributes | None, histories: Histories, given: Mapping[str, Value]) -> Histories:
    """The histories of people who all have the same attributes, with their groups.

    Raises:
        InputError: For a name that is no attribute of the model, and for any where it knows none.
    """
    if attributes is None:
        if given:
            raise InputError(
                "This model knows no attributes of users, so attributes cannot be given. Fit with a table of users "
                "(--users FILE, in Python variseq.read(..., users=table)), or leave attributes out."
            )
        return histories
    groups, _ = attributes.groups_of(given)
    return replace(histories, attributes=np.tile(groups, (len(histories), 1)))


def given_in_words(attributes: UserAttributes | None, given: Mapping[str, Value]) -> str:
    """What of the attributes an answer for an empty history rests on, to follow its reason; empty without any."""
    if attributes is None or not given:
        return ""
    groups, notes = attributes.groups_of(given)
    words = attributes.in_words(groups)
    return "".join([f", of people with {words}" if words else ", without attributes", *(f"; {one}" for one in notes)])


def shrunk_log_ratios(
    count: Integer[np.ndarray, "group item"], everybody: Integer[np.ndarray, " item"], prior_events: float
) -> Float[np.ndarray, "group item"]:
    """log((m + n(g, i) / p(i)) / (m + n(g))), 0 for items that nobody took.

    >>> print(shrunk_log_ratios(np.array([[2, 0], [0, 2], [0, 0]]), np.array([2, 2]), 4.0).round(2))
    [[ 0.29 -0.41]
     [-0.41  0.29]
     [ 0.    0.  ]]
    """
    expected = everybody / max(1, everybody.sum())
    of_group = prior_events + np.divide(count, expected, out=np.zeros(count.shape), where=expected > 0)
    ratio = of_group / (prior_events + count.sum(axis=1, keepdims=True))
    return np.where(expected > 0, np.log(ratio), 0.0).astype(np.float32)


def summed(
    table: Float[np.ndarray, "group item"], begins: Sequence[int], groups: Int[np.ndarray, "row attribute"]
) -> Float[np.ndarray, "row item"]:
    """The sum over the attributes of the rows of a table; a group of −1 adds nothing."""
    total = np.zeros((len(groups), table.shape[1]), dtype=np.float32)
    for begin, group in zip(begins[:-1], groups.T, strict=True):
        known = np.flatnonzero(group >= 0)
        total[known] += table[begin + group[known]]
    return total
