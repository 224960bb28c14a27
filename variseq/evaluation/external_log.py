"""A log of its own (a test file) as the part that a finished run is evaluated on; the run is not trained on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int, Integer

from variseq.errors import InputError
from variseq.evaluation.splits import TEST_FILE, Part, marked_targets
from variseq.events.report import ReadReport
from variseq.events.vocabulary import Vocabulary, positions_in
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class ExternalLog:
    """A log whose events are the targets: its histories, its own vocabulary, and the report of its reading."""

    histories: Histories
    vocabulary: Vocabulary
    report: ReadReport


def refuse_other_items(known: Vocabulary, external: Vocabulary) -> None:
    """Raises InputError where no item of the external log is an item of the run: every target would be a miss."""
    if not len(external.items) or (positions_in(known.items, external.items) >= 0).any():
        return
    raise InputError(
        f"No item of the test file is an item of the log: the log has ids like {known.items[0].as_py()!r}, the test "
        f"file like {external.items[0].as_py()!r}. Check which column is item_id: columns={{'item_id': ...}}."
    )


def part_of_external_log(run: Part, vocabulary: Vocabulary, trained: Histories, external: ExternalLog) -> Part:
    """A part with one row for each user of the external log; its targets are that log's events.

    `run` is a part of the run's own split and `trained` are its training events. The history of a known user is the
    run's log before that user's first event in the external log, followed by the events of the external log. That of an
    unknown user is the external log alone. Unknown items are misses as targets and left out of histories; events of
    unknown behaviors are left out. `protocol["test_file"]` counts all of this.

    Raises InputError when no item, or no event with a known behavior, is left.
    """
    refuse_other_items(vocabulary, external.vocabulary)
    if external.histories.visit_gap != run.histories.visit_gap:
        raise InputError(
            "The test file and the log of the run do not have the same visits. Read the test file with the column of "
            "visits or the visit_gap that the log was read with."
        )
    own_user = positions_in(vocabulary.users, external.vocabulary.users)
    given = _translated(external, vocabulary)
    has_events = given.lengths > 0
    first_time = np.full(len(given), np.iinfo(np.int64).max)
    first_time[has_events] = given.timestamp[given.offsets[:-1][has_events]]
    known_user = np.maximum(own_user, 0)
    start = run.histories.offsets[known_user]
    whole = run.histories.select(start, np.where(own_user >= 0, run.histories.offsets[known_user + 1], start))
    earlier = np.concatenate([[0], np.cumsum(whole.timestamp < np.repeat(first_time, whole.lengths))])
    shown = whole.select(whole.offsets[:-1], whole.offsets[:-1] + np.diff(earlier[whole.offsets]))
    joined = shown.followed_by(given)
    is_unknown = joined.item < 0
    joined = replace(joined, item=np.where(is_unknown, 0, joined.item).astype(np.int32))
    joined = marked_targets(joined, vocabulary.behaviors, run.protocol.get("targets_of"))
    counts = {
        "rows": external.report.num_rows,
        "rejected": sum(external.report.rejected.values()),
        "filtered": sum(external.report.filtered.values()),
        "events": external.histories.num_events,
        "events_of_unknown_behaviors": external.histories.num_events - given.num_events,
        "events_of_unknown_items": int(is_unknown.sum()),
        "users": int(has_events.sum()),
        "unknown_users": int((has_events & (own_user < 0)).sum()),
        "log_events_not_shown": whole.num_events - shown.num_events,
        "events_before_training_ends": int((given.timestamp < trained.timestamp.max(initial=0)).sum()),
        "events_in_training": _num_shared(given, known_user, own_user >= 0, trained),
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
    """Reasons to doubt results on a test file, a sentence each."""
    sentences = []
    if number := counts["events_in_training"]:
        sentences.append(f"{number:,} events of the test file are training events, too. The results are too good.")
    if number := counts["events_before_training_ends"]:
        sentences.append(
            f"{number:,} of {counts['events']:,} events of the test file are earlier than the latest training event. "
            "At that time the model would not have known the later events."
        )
    if number := counts["log_events_not_shown"]:
        sentences.append(
            f"{number:,} events of the log are not earlier than their user's first event in the test file. They are "
            "not shown as history."
        )
    return sentences


def sentences_of(part: Part, targets: str) -> list[str]:
    """The use of every row and user of the test file, a sentence each."""
    counts: dict[str, int] = part.protocol["test_file"]
    queries = part.queries(targets)
    num_targets = len(queries)
    unknown_targets = 0 if part.is_unknown is None else int(part.is_unknown[queries.position].sum())
    left_out = counts["events_of_unknown_behaviors"]
    unknown_before = counts["events_of_unknown_items"] - unknown_targets
    history = counts["events"] - num_targets - left_out - unknown_before
    return [
        f"Test file: {counts['rows']:,} rows = {counts['rejected']:,} rejected + {counts['filtered']:,} filtered + "
        f"{counts['events']:,} events.",
        f"Its events: {num_targets:,} are targets ({unknown_targets:,} of items unknown to the model, which are misses "
        f"without an NLL), {history:,} are history only, {unknown_before:,} of unknown items and {left_out:,} of "
        "unknown behaviors are left out.",
        f"Its users: {counts['users']:,}, of which {counts['unknown_users']:,} are unknown to the model; their history "
        "is the test file alone.",
    ]


def _translated(external: ExternalLog, vocabulary: Vocabulary) -> Histories:
    """The external log in the positions of the run's vocabulary; unknown items are -1, unknown behaviors left out."""
    events = external.histories
    item = positions_in(vocabulary.items, external.vocabulary.items)[events.item]
    code = {name: position for position, name in enumerate(vocabulary.behaviors)}
    behavior = np.array([code.get(name, -1) for name in external.vocabulary.behaviors])[events.behavior]
    kept = behavior >= 0
    if not kept.any():
        raise InputError(
            f"No event of the test file has a behavior of the log: it has {', '.join(external.vocabulary.behaviors)}, "
            f"the log {', '.join(vocabulary.behaviors)}. Check which column is event: columns={{'event': ...}}."
        )
    translated = replace(events, item=item.astype(np.int32), behavior=behavior.clip(0).astype(np.uint8))
    return translated.kept(kept)


def _num_shared(
    given: Histories, user: Int[np.ndarray, " row"], is_known: Bool[np.ndarray, " row"], trained: Histories
) -> int:
    """How many events are, with user, item and time, among the training events."""
    known = np.repeat(is_known, given.lengths) & (given.item >= 0)
    ours = event_keys(np.repeat(user, given.lengths)[known], given.item[known], given.timestamp[known])
    trained_user = np.repeat(np.arange(len(trained)), trained.lengths)
    return int(np.isin(ours, event_keys(trained_user, trained.item, trained.timestamp)).sum())


def num_trained_of(
    valid: Part, vocabulary: Vocabulary, trained: Histories, vocabulary_of_trained: Vocabulary
) -> tuple[int, int]:
    """How many events of a validation part, and of the test part after it, are training events of another run."""
    user = positions_in(vocabulary_of_trained.users, vocabulary.users)
    item = positions_in(vocabulary_of_trained.items, vocabulary.items)
    histories = valid.histories
    shared = []
    for start, end in ((valid.history_end, valid.target_end), (valid.target_end, histories.offsets[1:])):
        events = histories.select(start, end)
        shared.append(_num_shared(replace(events, item=item[events.item]), user, user >= 0, trained))
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
