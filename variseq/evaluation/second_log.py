"""The events of a second log into a part that a finished run is judged on; nothing of it is learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from variseq.errors import InputError
from variseq.evaluation.splits import TEST_FILE, Part, marked_targets
from variseq.events.report import ReadReport
from variseq.events.vocabulary import Vocabulary, positions_in
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class SecondLog:
    """A log whose events are asked for: its histories, its own vocabulary, and how it was read."""

    histories: Histories
    vocabulary: Vocabulary
    report: ReadReport


def refuse_other_items(known: Vocabulary, second: Vocabulary) -> None:
    """Raises InputError where no item of the second log is an item of the run: every target would be a miss."""
    if not len(second.items) or (positions_in(known.items, second.items) >= 0).any():
        return
    raise InputError(
        f"No item of the test file is an item of the log: the log has ids like {known.items[0].as_py()!r}, the test "
        f"file like {second.items[0].as_py()!r}. Check which column is item_id: columns={{'item_id': ...}}."
    )


def part_of_second_log(run: Part, vocabulary: Vocabulary, learned: Histories, second: SecondLog) -> Part:
    """A part with one row a user of the second log; its targets are that log's events.

    `run` is a part of the run's own split and `learned` are the events that it has learned from. The history of a known
    user is what the run's log has before that user's first event in the second log, and then the events of the second
    log; that of an unknown user is the second log's alone. Unknown items are misses as targets and left out of
    histories, events of unknown behaviors are left out. The counts of all this are in `protocol["test_file"]`.

    Raises InputError when no item, or no event with a known behavior, is left.
    """
    refuse_other_items(vocabulary, second.vocabulary)
    own_user = positions_in(vocabulary.users, second.vocabulary.users)
    given = _translated(second, vocabulary)
    has_events = given.lengths > 0
    first_time = np.full(len(given), np.iinfo(np.int64).max)
    first_time[has_events] = given.timestamp[given.offsets[:-1][has_events]]
    known_user = np.maximum(own_user, 0)
    start = run.histories.offsets[known_user]
    whole = run.histories.select(start, np.where(own_user >= 0, run.histories.offsets[known_user + 1], start))
    earlier = np.concatenate([[0], np.cumsum(whole.timestamp < np.repeat(first_time, whole.lengths))])
    shown = whole.select(whole.offsets[:-1], whole.offsets[:-1] + np.diff(earlier[whole.offsets]))
    joined = _one_after_the_other(shown, given)
    is_unknown = joined.item < 0
    joined = replace(joined, item=np.where(is_unknown, 0, joined.item).astype(np.int32))
    joined = marked_targets(joined, vocabulary.behaviors, run.protocol.get("targets_of"))
    counts = {
        "rows": second.report.num_rows,
        "rejected": sum(second.report.rejected.values()),
        "filtered": sum(second.report.filtered.values()),
        "events": second.histories.num_events,
        "events_of_unknown_behaviors": second.histories.num_events - given.num_events,
        "events_of_unknown_items": int(is_unknown.sum()),
        "users": int(has_events.sum()),
        "unknown_users": int((has_events & (own_user < 0)).sum()),
        "log_events_not_shown": whole.num_events - shown.num_events,
        "events_before_the_last_learned": int((given.timestamp < learned.timestamp.max(initial=0)).sum()),
        "events_learned_from": _num_shared(given, known_user, own_user >= 0, learned),
    }
    return Part(
        name=TEST_FILE,
        histories=joined,
        history_end=joined.offsets[:-1] + shown.lengths,
        target_end=joined.offsets[1:],
        train_item_count=run.train_item_count,
        protocol=_protocol(run, joined, is_unknown, counts),
        is_unknown=is_unknown if is_unknown.any() else None,
    )


def warnings_of(counts: Mapping[str, int]) -> list[str]:
    """What makes figures on a test file doubtful, a sentence each."""
    found = []
    if number := counts["events_learned_from"]:
        found.append(
            f"{number:,} events of the test file are also in the log that was learned from: figures are too good."
        )
    if number := counts["events_before_the_last_learned"]:
        found.append(
            f"{number:,} of {counts['events']:,} events of the test file are earlier than the latest event that was "
            "learned from. The model knows of later events than it would have known at that time."
        )
    if number := counts["log_events_not_shown"]:
        found.append(
            f"{number:,} events of the log are not earlier than their user's first event in the test file. They are "
            "not shown as history."
        )
    return found


def sentences_of(part: Part, targets: str) -> list[str]:
    """What became of every row and user of the test file, for people."""
    counts: dict[str, int] = part.protocol["test_file"]
    queries = part.queries(targets)
    asked = len(queries)
    asked_unknown = 0 if part.is_unknown is None else int(part.is_unknown[queries.position].sum())
    left_out = counts["events_of_unknown_behaviors"]
    unknown_before = counts["events_of_unknown_items"] - asked_unknown
    history = counts["events"] - asked - left_out - unknown_before
    return [
        f"test file: {counts['rows']:,} rows = {counts['rejected']:,} rejected + {counts['filtered']:,} filtered + "
        f"{counts['events']:,} events",
        f"its events: {asked:,} are asked for ({asked_unknown:,} of items unknown to the model, which are misses "
        f"without an NLL), {history:,} are history only, {unknown_before:,} of unknown items and {left_out:,} of "
        "unknown behaviors are left out",
        f"its users: {counts['users']:,}, of which {counts['unknown_users']:,} are unknown to the model and judged "
        "from their events in the test file alone",
    ]


def _translated(second: SecondLog, vocabulary: Vocabulary) -> Histories:
    """The second log in the positions of the run's vocabulary; unknown items are -1, unknown behaviors left out."""
    events = second.histories
    item = positions_in(vocabulary.items, second.vocabulary.items)[events.item]
    place = {name: position for position, name in enumerate(vocabulary.behaviors)}
    behavior = np.array([place.get(name, -1) for name in second.vocabulary.behaviors])[events.behavior]
    kept = behavior >= 0
    if not kept.any():
        raise InputError(
            f"No event of the test file has a behavior of the log: it has {', '.join(second.vocabulary.behaviors)}, "
            f"the log {', '.join(vocabulary.behaviors)}. Check which column is event: columns={{'event': ...}}."
        )
    offsets = np.concatenate([[0], np.cumsum(kept)])[events.offsets].astype(np.int64)
    columns: tuple[Integer[np.ndarray, " event"] | Float[np.ndarray, " event"], ...]
    columns = (item.astype(np.int32), behavior.astype(np.uint8), events.timestamp, events.value)
    return Histories(offsets, *(column[kept] for column in columns))


def _one_after_the_other(first: Histories, second: Histories) -> Histories:
    """For each row the events of the first, then those of the second."""
    rows = [np.repeat(np.arange(len(one)), one.lengths) for one in (first, second)]
    order = np.argsort(np.concatenate(rows), kind="stable")
    names = ("item", "behavior", "timestamp", "value")
    columns = [np.concatenate([getattr(first, name), getattr(second, name)])[order] for name in names]
    return Histories(first.offsets + second.offsets, *columns)


def _num_shared(
    given: Histories, user: Int[np.ndarray, " row"], is_known: Bool[np.ndarray, " row"], learned: Histories
) -> int:
    """How many events are, with user, item and time, among those that were learned from."""
    known = np.repeat(is_known, given.lengths) & (given.item >= 0)
    ours = event_keys(np.repeat(user, given.lengths)[known], given.item[known], given.timestamp[known])
    learned_user = np.repeat(np.arange(len(learned)), learned.lengths)
    return int(np.isin(ours, event_keys(learned_user, learned.item, learned.timestamp)).sum())


def num_learned_of(
    valid: Part, vocabulary: Vocabulary, learned: Histories, vocabulary_of_learned: Vocabulary
) -> tuple[int, int]:
    """How many events of a validation part, and of the test part after it, are among those of another log."""
    user = positions_in(vocabulary_of_learned.users, vocabulary.users)
    item = positions_in(vocabulary_of_learned.items, vocabulary.items)
    histories = valid.histories
    shared = []
    for start, end in ((valid.history_end, valid.target_end), (valid.target_end, histories.offsets[1:])):
        events = histories.select(start, end)
        shared.append(_num_shared(replace(events, item=item[events.item]), user, user >= 0, learned))
    return shared[0], shared[1]


def event_keys(
    user: Integer[np.ndarray, " event"], item: Integer[np.ndarray, " event"], time: Integer[np.ndarray, " event"]
) -> Integer[np.ndarray, " event"]:
    """One 64-bit number an event; of different events the same by chance in one pair of 10^19."""
    mixed = np.zeros(len(user), dtype=np.uint64)
    for column in (user, item, time):
        mixed = (mixed ^ column.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def _protocol(
    run: Part, joined: Histories, is_unknown: Bool[np.ndarray, " event"], counts: dict[str, int]
) -> dict[str, object]:
    digest = hashlib.sha256(run.protocol["split_hash"].encode())
    for array in (joined.offsets, np.where(is_unknown, -1, joined.item), joined.timestamp):
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    test = {"part": TEST_FILE, "num_test_events": counts["events"], "test_file": counts}
    return run.protocol | test | {"split_hash": digest.hexdigest()}
