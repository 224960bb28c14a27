"""Splits of a log into training, validation and test parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from variseq.errors import InputError
from variseq.events.options import duration
from variseq.sequences.histories import Histories

TARGETS = ("first", "last", "all")
TEST_FILE: Literal["test file"] = "test file"


@dataclass(frozen=True, eq=False)
class Queries:
    """Targets by position; the history of query q is `offsets[user[q]]:position[q]`."""

    user: Int[np.ndarray, " query"]
    position: Int[np.ndarray, " query"]

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a split: the whole log with, for each user, where the history ends and where the targets end.

    `history_end` and `target_end` are positions in the flat arrays of `histories`; the targets of user u are the
    events `history_end[u]:target_end[u]`, of these only the ones in `histories.is_target` where that is given. A
    training part has no targets (both bounds are equal), nor has the test part of a split without one.
    `train_item_count` counts each item of the catalog in the training part; an item with 0 was never seen in
    training. `protocol` can be written as JSON and holds what makes the same split again. `is_unknown` marks events
    of items that are not in the catalog: misses as targets, and in no history. `attributes` are the groups of each
    user, which the histories of queries get.
    """

    name: Literal["train", "valid", "test", "test file"]
    histories: Histories
    history_end: Int[np.ndarray, " user"]
    target_end: Int[np.ndarray, " user"]
    train_item_count: Int[np.ndarray, " item"]
    protocol: dict[str, Any]
    is_unknown: Bool[np.ndarray, " event"] | None = None
    attributes: Int[np.ndarray, "user attribute"] | None = None

    @property
    def num_items(self) -> int:
        """Size of the catalog that is ranked."""
        return len(self.train_item_count)

    def history(self) -> Histories:
        """The events before the targets of this part; for the training part, the training events."""
        return self.histories.select(self.histories.offsets[:-1], self.history_end)

    def history_with_targets(self) -> Histories:
        """The events before the targets of this part, and the targets."""
        return self.histories.select(self.histories.offsets[:-1], self.target_end)

    def history_lengths(self, queries: Queries) -> Int[np.ndarray, " query"]:
        """How many events stand before each target; with visits before its visit."""
        start, end = self.histories.offsets[queries.user], self.histories.begin_of_visits(queries.position)
        if self.is_unknown is None:
            return end - start
        num_known = np.concatenate([[0], np.cumsum(~self.is_unknown)])
        return num_known[end] - num_known[start]

    def histories_before(self, queries: Queries, request_time: bool = False) -> Histories:
        """The history of each query: all events before its target, with visits all before the target's visit.

        Where the request time is known, it is that of the target, with visits the begin of its visit.
        """
        histories, start = self.histories, self.histories.offsets[queries.user]
        end = histories.begin_of_visits(queries.position)
        times = histories.timestamp[end] if request_time else None
        attributes = None if self.attributes is None else self.attributes[queries.user]
        if self.is_unknown is None:
            return replace(histories.select(start, end), request_time=times, attributes=attributes)
        before = replace(histories, is_target=~self.is_unknown).select(start, end)
        assert before.is_target is not None
        return replace(before.kept(before.is_target), is_target=None, request_time=times, attributes=attributes)

    def visit_begins(self) -> Part:
        """The part with the first event of each visit alone, see `Histories.visit_begins`."""
        histories = self.histories
        if histories.visit_gap is None:
            return self
        begin = histories.visits.begin(np.arange(len(histories.visits)))
        return replace(
            self,
            histories=histories.visit_begins(),
            history_end=np.searchsorted(begin, self.history_end),
            target_end=np.searchsorted(begin, self.target_end),
            is_unknown=None if self.is_unknown is None else self.is_unknown[begin],
        )

    def is_unknown_target(self, queries: Queries) -> Bool[np.ndarray, " query"]:
        """Whether the item of each target is not in the catalog."""
        if self.is_unknown is None:
            return np.zeros(len(queries), dtype=bool)
        return self.is_unknown[queries.position]

    def queries(self, targets: str = "last") -> Queries:
        """The queries of this part; the history of a query is everything before its target.

        "first" is the first target of each user, "last" the last one, "all" every target. Users without a target have
        no query. Events that are no targets have no query; they are part of the history. With visits the first and the
        last are visits, of which each item is a target once.

        Raises InputError for any other `targets`.
        """
        if targets not in TARGETS:
            raise InputError(f"targets={targets!r} is unknown. Allowed: {', '.join(map(repr, TARGETS))}.")
        num_events = self.target_end - self.history_end
        user = np.repeat(np.arange(len(num_events)), num_events)
        before = np.cumsum(num_events) - num_events
        position = np.arange(len(user)) + (self.history_end - before)[user]
        histories = self.histories
        if histories.is_target is not None:
            chosen = histories.is_target[position]
            user, position = user[chosen], position[chosen]
        if histories.visit_gap is not None:
            # Items outside the catalog are told apart by nothing, so each stays.
            is_unknown = np.zeros(len(position), dtype=bool) if self.is_unknown is None else self.is_unknown[position]
            item = np.where(is_unknown, self.num_items + position, histories.item[position])
            pair = histories.visits.of(position) * (self.num_items + histories.num_events) + item
            chosen = np.sort(np.unique(pair, return_index=True)[1])
            user, position = user[chosen], position[chosen]
        if targets == "all" or not len(user):
            return Queries(user, position)
        visit = histories.visits.of(position)
        edge = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
        number = np.diff(np.append(edge, len(user)))
        wanted = np.repeat(visit[edge if targets == "first" else edge + number - 1], number) == visit
        return Queries(user[wanted], position[wanted])


Split = tuple[Part, Part, Part]


def leave_one_out(histories: Histories, num_items: int | None = None, with_test: bool = True) -> Split:
    """Train, valid, test: a user's last event is test, the one before it validation, the rest is for training.

    With visits, that is the last visit and the one before it.

    Users with fewer than 3 events are in training only. Where only some events are targets, a user's last target is
    test, what comes after it is not used, and the target before it begins validation; users with fewer than 2 targets,
    or with no event before these, are in training only. Without a test part the last target is validation. Comparable
    with much of the literature, but the training events of one user may be later than the test event of another: prefer
    `by_time` for decisions.
    `num_items` is the size of the catalog (by default the items of the log).

    >>> train, valid, test = leave_one_out(Histories.of_items([[4, 7, 1, 2], [7, 1]]))
    >>> train.history().item, test.queries().position
    (array([4, 7, 7, 1], dtype=int32), array([3]))
    """
    end = histories.offsets[1:]
    targets = np.arange(histories.num_events) if histories.is_target is None else np.flatnonzero(histories.is_target)
    targets = histories.begin_of_visits(targets)
    targets = targets[np.diff(targets, prepend=-1) > 0]  # each begin once
    num_before = np.searchsorted(targets, histories.offsets)
    num_held_out = 2 if with_test else 1
    # The position of the first event that is held out; where there are too few targets it is that of another user.
    first = np.append(targets, 0)[np.maximum(num_before[1:] - num_held_out, 0)]
    long_enough = (np.diff(num_before) >= num_held_out) & (first > histories.offsets[:-1])
    valid_start = np.where(long_enough, first, end)
    last = np.append(targets, 0)[np.maximum(num_before[1:] - 1, 0)]
    test_start = np.where(long_enough, last, end) if with_test else end
    return split_at(histories, valid_start, test_start, num_items, {"method": "leave-one-out"})


def by_time(
    histories: Histories,
    test: float | int | str | None = 0.1,
    valid: float | int | str = 0.1,
    num_items: int | None = None,
) -> Split:
    """Train, valid, test by two global cuts in time; validation is the last slice before the test cut.

    `test` and `valid` are each a share of all events (0.1), a duration ("7d"; units s, m, h, d, w; counted back from
    the last event, for `valid` from the test cut), or the start of the slice in UTC microseconds (an integer).
    Events at the very time of a cut belong to the later side, so every training event is strictly before it. With
    test=None there is no test part, and validation is the last slice.

    Raises InputError when a part would be empty, or the events of a history are not in the order of time.

    >>> train, valid, test = by_time(Histories.of_items([[4, 7, 1, 2], [7, 1]]), test="0s", valid="1s")
    >>> train.history().item, valid.queries().position, test.queries().position
    (array([4, 7, 7, 1], dtype=int32), array([2]), array([3]))
    """
    time = histories.timestamp
    _check_order(histories)
    ordered = np.sort(time)
    end = int(ordered[-1])
    test_start = end + 1 if test is None else _slice_start(ordered, len(ordered), test, end, "test")
    earlier_than_test = ordered[: np.searchsorted(ordered, test_start)]
    valid_end = end if test is None else test_start
    valid_start = _slice_start(earlier_than_test, len(ordered), valid, valid_end, "valid")
    if valid_start <= ordered[0]:
        raise InputError(
            f"The time split with test={test!r} and valid={valid!r} leaves no event for training (validation starts "
            f"at {valid_start}, the first event is at {ordered[0]}). Give smaller slices, or split leave-one-out."
        )
    bounds = []
    for start in (valid_start, test_start):
        earlier = np.concatenate([[0], np.cumsum(time < start)])
        bounds.append(histories.offsets[:-1] + np.diff(earlier[histories.offsets]))
    cuts = {"method": "time", "test": test, "valid": valid, "valid_start_microseconds": int(valid_start)}
    if test is not None:
        cuts["test_start_microseconds"] = int(test_start)
    return split_at(histories, bounds[0], bounds[1], num_items, cuts)


def by_user_time(
    histories: Histories,
    test: float | int | str | None = 0.1,
    valid: float | int | str = 0.1,
    num_items: int | None = None,
) -> Split:
    """Train, valid, test by two cuts in each user's own time; validation is the last slice before the test cut.

    `test` and `valid` are each a share of the user's events (0.1), or a duration ("7d") counted back from the user's
    last event, for `valid` from the user's test cut. A share is rounded, and at least one event. Users with fewer than
    3 events are in training only. With test=None validation is the last slice. Training events of one user may be later
    than the test events of another.

    Raises InputError for a slice that is no share or duration, or when a part would be empty.

    >>> train, valid, test = by_user_time(Histories.of_items([[4, 7, 1, 2], [7, 1]]), test=0.25, valid="0s")
    >>> train.history().item, valid.queries().position, test.queries().position
    (array([4, 7, 7, 1], dtype=int32), array([2]), array([3]))
    """
    _check_order(histories)
    end = histories.offsets[1:]
    test_start = end if test is None else _own_slice_start(histories, end, test, "test")
    valid_start = _own_slice_start(histories, test_start, valid, "valid")
    is_short = (histories.lengths < 3) | (valid_start <= histories.offsets[:-1])
    bounds = [np.where(is_short, end, start) for start in (valid_start, test_start)]
    return split_at(histories, bounds[0], bounds[1], num_items, {"method": "user-time", "test": test, "valid": valid})


def _own_slice_start(
    histories: Histories, end: Int[np.ndarray, " user"], size: float | int | str, part: str
) -> Int[np.ndarray, " user"]:
    """Where the last slice before `end` begins in each history."""
    first = histories.offsets[:-1]
    if isinstance(size, str):
        latest = histories.timestamp[np.maximum(end - 1, first).clip(max=histories.num_events - 1)]
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        earlier = histories.timestamp < (latest - duration(size, part))[row]
        return first + np.bincount(row[earlier], minlength=len(histories))
    if not isinstance(size, float) or not 0 < size < 1:
        raise InputError(
            f"{part}={size!r} is no slice of a user's time. Give a share such as 0.1, or a duration: '7d'."
        )
    return np.maximum(first, end - np.maximum(1, np.round(size * histories.lengths).astype(np.int64)))


def by_users(
    histories: Histories,
    test: float | int | str | None = 0.1,
    valid: float | int | str = 0.1,
    num_items: int | None = None,
) -> Split:
    """Train, valid, test by people: those of validation and of test are in no other part.

    `test` and `valid` are shares of the users, drawn with a fixed seed. All events of a user of validation or test are
    targets; the history of each is what the same user did before. With test=None there is no test part.

    Raises InputError for what is no share, or when a part would be empty.

    >>> train, valid, test = by_users(Histories.of_items([[4, 7], [7, 4], [4, 7], [7, 4]]), test=0.25, valid=0.25)
    >>> [sum(part.target_end > part.history_end) for part in (train, valid, test)]
    [np.int64(0), np.int64(1), np.int64(1)]
    """
    shares: list[float | None] = []
    for name, share in (("test", test), ("valid", valid)):
        if share is not None and (not isinstance(share, float) or not 0 < share < 1):
            raise InputError(f"{name}={share!r} is no share of the users. Give a number between 0 and 1, such as 0.1.")
        shares.append(share)
    drawn = np.random.default_rng(0).permutation(len(histories))
    num_test, num_valid = (0 if share is None else max(1, round(share * len(histories))) for share in shares)
    in_test, in_valid = (np.zeros(len(histories), dtype=bool) for _ in range(2))
    in_test[drawn[:num_test]] = True
    in_valid[drawn[num_test : num_test + num_valid]] = True
    start, end = histories.offsets[:-1], histories.offsets[1:]
    valid_start, test_start = np.where(in_test | in_valid, start, end), np.where(in_test, start, end)
    return split_at(histories, valid_start, test_start, num_items, {"method": "users", "test": test, "valid": valid})


def _check_order(histories: Histories) -> None:
    if not histories.num_events:
        raise InputError("The log has no events, so it cannot be split. Give a log with events.")
    falls = np.diff(histories.timestamp) < 0
    inner = histories.offsets[1:-1]
    falls[inner[(inner > 0) & (inner < histories.num_events)] - 1] = False
    if falls.any():
        raise InputError(
            f"Event {int(np.flatnonzero(falls)[0]) + 1} is earlier than the event before it in the same history. "
            "A time split needs each history in the order of time: sort the events by (user, time)."
        )


def _slice_start(
    ordered: Int[np.ndarray, " event"], num_events: int, size: float | int | str, end: int, part: str
) -> int:
    """Time at which the last slice of `ordered` begins: a share of `num_events`, or a duration counted from `end`."""
    if isinstance(size, str):
        start = end - duration(size, part)
    elif isinstance(size, float):
        if not 0 < size < 1:
            raise InputError(f"{part}={size!r} is not a share. Allowed: above 0 and below 1, for example 0.1.")
        num_inside = max(1, round(size * num_events))
        start = int(ordered[max(0, len(ordered) - num_inside)]) if len(ordered) else 0
    else:
        start = int(size)
    if not len(ordered) or start > ordered[-1] or start <= ordered[0]:
        raise InputError(
            f"The {part} slice {part}={size!r} would hold none or all of the {len(ordered)} events it is cut from"
            + (f" (times {ordered[0]} to {ordered[-1]})" if len(ordered) else "")
            + ". Give a share such as 0.1, a duration such as '7d', or a start in UTC microseconds inside that range."
        )
    return start


def split_at(
    histories: Histories,
    valid_start: Int[np.ndarray, " user"],
    test_start: Int[np.ndarray, " user"],
    num_items: int | None,
    method: dict[str, Any],
) -> Split:
    """The parts of a split whose bounds are known: where validation and test begin in each history (flat positions).

    Raises InputError when nothing is left to train or to evaluate on.
    """
    num_items = num_items or int(histories.item.max(initial=-1)) + 1
    end = histories.offsets[1:]
    # A visit is in one part: the later one.
    valid_start, test_start = (histories.begin_of_visits(start) for start in (valid_start, test_start))
    trained = histories.select(histories.offsets[:-1], valid_start)
    largest = int(histories.item.max(initial=-1))
    if largest >= num_items:
        raise InputError(
            f"num_items={num_items} is too small: the log has item {largest}. Give at least {largest + 1}."
        )
    if histories.visit_gap is not None:
        method = method | {"visit_gap_microseconds": histories.visit_gap}
    if not trained.num_events or not (end - valid_start).any():
        raise InputError(
            "The split leaves no event for training or none to evaluate on. Leave-one-out needs users with at least 3 "
            "events; give a longer log, or split by time."
        )
    count = np.bincount(trained.item, minlength=num_items)
    protocol = method | {
        "split_hash": _split_hash(histories, valid_start, test_start),
        "num_users": len(histories),
        "num_items": num_items,
        "num_train_events": trained.num_events,
        "num_valid_events": int((test_start - valid_start).sum()),
        "num_test_events": int((end - test_start).sum()),
        "num_items_unseen_in_training": int((count == 0).sum()),
    }
    parts = (
        Part("train", histories, valid_start, valid_start, count, protocol),
        Part("valid", histories, valid_start, test_start, count, protocol),
        Part("test", histories, test_start, end, count, protocol),
    )
    if histories.is_target is not None:
        protocol |= _numbers_of_targets(trained, parts)
    train, valid, test = (replace(part, protocol=protocol | {"part": part.name}) for part in parts)
    return train, valid, test


def _numbers_of_targets(trained: Histories, parts: Split) -> dict[str, int]:
    """How many events of each part are targets. Raises InputError for a part that has events and no target."""
    numbers = {"train": trained.num_targets} | {part.name: len(part.queries("all")) for part in parts[1:]}
    has_test = bool((parts[2].target_end > parts[2].history_end).any())
    empty = [name for name, number in numbers.items() if not number and (has_test or name != "test")]
    if empty:
        raise InputError(
            f"There is no event of the target behaviors in these parts: {', '.join(empty)}. Give "
            "larger slices (test, valid), more behaviors (targets_of), or a longer log."
        )
    return {f"num_{name}_targets": number for name, number in numbers.items()}


def marked_targets(histories: Histories, behaviors: Sequence[str], targets: Sequence[str] | None) -> Histories:
    """The same histories, in which only events of some behaviors are targets; all where None.

    >>> marked_targets(Histories.of_items([[4, 7]]), ("view", "purchase"), ["purchase"]).num_targets
    0
    """
    if targets is None:
        return replace(histories, is_target=None)
    return replace(histories, is_target=np.isin(histories.behavior, [behaviors.index(name) for name in targets]))


def part_to_evaluate(split: Split, part: Part | None, is_refitted: bool) -> Part:
    """The test part, or the one given. Raises InputError where a model of this split cannot be evaluated on it."""
    evaluated = split[2] if part is None else part
    if part is None and not split[2].protocol["num_test_events"]:
        raise InputError(
            "The model was fitted without a test part (test='none'), so there is none to evaluate on. Give a test file "
            "of your own (--test-file FILE, in Python evaluate(variseq.read(FILE)))"
            + ("." if is_refitted else ", or the validation part, whose figures are too good: it was chosen on it.")
        )
    if evaluated.name != TEST_FILE and evaluated.protocol["split_hash"] != split[2].protocol["split_hash"]:
        raise InputError("The part belongs to another log or split than the model was fitted on. Give one of those.")
    if is_refitted and evaluated.name == "valid":
        raise InputError(
            "The model has been refitted with the validation events, so it cannot be evaluated on them. Evaluate on "
            "the test part, or fit with training={'refit_fraction': 0}."
        )
    return evaluated


def trained_on(part: Part, known: Histories, parts: str) -> Part:
    """The same queries for a model that was trained on `known`, the events of `parts`; it decides what is unseen."""
    count = np.bincount(known.item, minlength=part.num_items)
    return replace(part, train_item_count=count, protocol=part.protocol | {"trained_on": parts})


def _split_hash(
    histories: Histories, valid_start: Int[np.ndarray, " user"], test_start: Int[np.ndarray, " user"]
) -> str:
    digest = hashlib.sha256()
    for array in (histories.offsets, valid_start, test_start, histories.item):
        # One width and byte order on every machine, so that the hash is the same there.
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    if histories.is_target is not None:
        digest.update(histories.is_target.tobytes())
    return digest.hexdigest()
