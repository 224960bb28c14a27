"""A run without some people: their histories are removed, counts are made again, and the model is fitted again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from variseq.artifacts.checkpoint import Checkpoint
from variseq.artifacts.lineage import replaces, started_from
from variseq.distinct import distinct
from variseq.errors import InputError
from variseq.events.report import Events, ReadReport, utc_text
from variseq.events.table import EventTable
from variseq.events.vocabulary import Vocabulary
from variseq.log import NO_TEST, Log, LogPart
from variseq.pipeline import fit, refuse_leak, run_settings, split_of
from variseq.ranking.attributes import COUNT, ITEM, RECORD
from variseq.recommend.network_model import count_events
from variseq.sequences.histories import Histories
from variseq.training.run import RunContext


def without_users(checkpoint: Checkpoint, users: Int[np.ndarray, " user"]) -> Checkpoint:
    """A run without the histories of some users, and with a mark that its weights have learned from them.

    Counted transitions, popularity and the trend equal a recount without them. The items of groups of people, counted
    by attributes, cannot be recounted without the table of users, and are left out.

    Args:
        checkpoint: A run with histories.
        users: Their positions in the vocabulary.

    Raises:
        InputError: For a run without histories, and where nobody is left to train or to evaluate on.
    """
    histories, bounds = checkpoint.histories, checkpoint.bounds
    if histories is None or bounds is None:
        raise InputError("This run was saved without histories, so nobody can be removed from it.")
    kept = np.setdiff1d(np.arange(len(histories)), users)
    remaining = histories.rows(kept)
    bounds = (bounds - histories.offsets[:-1])[:, kept] + remaining.offsets[:-1]
    vocabulary = replace(checkpoint.vocabulary, users=checkpoint.vocabulary.users.take(pa.array(kept)))
    fewer = replace(checkpoint, histories=remaining, bounds=bounds, vocabulary=vocabulary)
    train, valid, _ = split_of(fewer)
    known = valid.history_with_targets() if checkpoint.is_refitted else train.history()
    of_groups = (ITEM, COUNT, RECORD)
    others = {name: tensor for name, tensor in checkpoint.counts.items() if name not in of_groups}
    # An item that they alone had keeps the vector that it was given by events; as a new one it would have p = 0.
    counts = others | count_events(vocabulary.num_items, known) | {"is_new": others["is_new"]}
    manifest = checkpoint.manifest | {
        "protocol": {key: value for key, value in train.protocol.items() if key != "part"},
        "log": _report(checkpoint.manifest["log"], remaining, vocabulary).to_json(),
        "erasures": erasures(checkpoint, len(users), needs_refit=True),
    }
    return replace(fewer, counts=counts, manifest=manifest)


def erasures(checkpoint: Checkpoint, num_people: int, needs_refit: bool) -> dict[str, Any]:
    """The record of erasures in the manifest of a run, after so many people more."""
    before = checkpoint.manifest.get("erasures", {}).get("num_people", 0)
    return {
        "num_people": before + num_people,
        "date": datetime.now(UTC).date().isoformat(),
        "needs_refit": needs_refit,
    }


def marked(checkpoint: Checkpoint) -> Checkpoint:
    """A run without the people, with a mark that it began with the weights of one that has learned from them."""
    manifest = checkpoint.manifest | {"erasures": erasures(checkpoint, 0, needs_refit=True)}
    return replace(checkpoint, manifest=manifest)


def fit_again(checkpoint: Checkpoint, context: RunContext, earlier: Checkpoint | None = None) -> Checkpoint:
    """A fit of the histories that a run has, with the run's own split, seed and settings.

    It equals a fit of the log without those who were erased: the split and all that follows from the log are made anew,
    and items and behaviors that nobody has any more are left out. A run of an earlier release keeps all its settings.
    Attributes of users are not in a run, so the result has none.

    Args:
        checkpoint: The run, without those who were erased.
        context: Device, callback, and the folder of the unfinished run.
        earlier: The run that it began with (`fit --from`), fitted again where that was due.

    Raises:
        InputError: Where such a fit would not be exact, or too little is left.
    """
    options = checkpoint.manifest["log"]["options"]
    if options.get("missing_value") == "mean":
        raise InputError(
            "This run cannot be fitted again exactly: missing values were filled with the mean over all people "
            "(missing_value=mean). Fit it again from the log with variseq fit."
        )
    if checkpoint.manifest.get("is_warm_start") and earlier is None:
        raise InputError(
            "This run cannot be fitted again exactly: it began with the weights of an earlier run (fit --from), which "
            "is not there with its histories. Give the folder that it is in (--runs, --backup), or fit again from the "
            "log with variseq fit."
        )
    train, valid = remaining_parts(checkpoint)
    config = checkpoint.config
    by_hand = checkpoint.manifest.get("set_by_hand", [*config["model"], *config["training"]])
    model, training = (
        {name: config[part][name] for name in by_hand if name in config[part]} for part in ("model", "training")
    )
    settings = run_settings(train, config["size"], config["seed"], model, training, earlier)
    if earlier is not None:
        refuse_leak(earlier, train, valid)
    fitted = fit(train, valid, config["size"], settings, context)
    manifest = fitted.manifest | {"erasures": erasures(checkpoint, 0, needs_refit=False)} | replaces(checkpoint)
    manifest |= {} if earlier is None else started_from(earlier)
    return replace(fitted, manifest=manifest, changes=checkpoint.changes)


def remaining_parts(checkpoint: Checkpoint) -> tuple[LogPart, LogPart]:
    """The training and the validation part of what a run has, split as the run was. Raises InputError."""
    protocol = checkpoint.manifest["protocol"]
    slices = {}
    if protocol["method"] != "leave-one-out":
        # A run of an earlier release has the moments of the cuts alone.
        slices = {part: protocol.get(part, protocol.get(f"{part}_start_microseconds")) for part in ("test", "valid")}
    if not protocol["num_test_events"]:
        slices["test"] = NO_TEST
    train, valid, _ = _log(checkpoint).split(protocol["method"], targets_of=protocol.get("targets_of"), **slices)
    return train, valid


def _log(checkpoint: Checkpoint) -> Log:
    """What a run has, as if it had just been read."""
    histories, before = checkpoint.histories, checkpoint.vocabulary
    if histories is None:
        raise InputError("This run was saved without histories, so it cannot be fitted again. Fit from the log.")
    user = np.repeat(np.arange(len(histories), dtype=np.int32), histories.lengths)
    table = EventTable(user, histories.item, histories.timestamp, histories.behavior, histories.value)
    table = _rows(table, _are_kept(table, checkpoint.manifest["log"]["options"]))
    users, items, behaviors = (distinct(column) for column in (table.user, table.item, table.behavior))
    names = tuple(before.behaviors[position] for position in behaviors)
    vocabulary = Vocabulary(before.users.take(pa.array(users)), before.items.take(pa.array(items)), names)
    table = replace(
        table,
        user=np.searchsorted(users, table.user).astype(np.int32),
        item=np.searchsorted(items, table.item).astype(np.int32),
        behavior=np.searchsorted(behaviors, table.behavior).astype(np.uint8),
    )
    columns = checkpoint.items
    columns = None if columns is None else replace(columns, table=columns.table.take(pa.array(items)))
    return Log.of(Events(table, vocabulary, columns, _report(checkpoint.manifest["log"], table, vocabulary)))


def _rows(table: EventTable, chosen: Bool[np.ndarray, " event"]) -> EventTable:
    return EventTable(
        table.user[chosen], table.item[chosen], table.timestamp[chosen], table.behavior[chosen], table.value[chosen]
    )


def _are_kept(table: EventTable, options: Mapping[str, Any]) -> Bool[np.ndarray, " event"]:
    """The events that are left when rare users and items are dropped again, as reading does.

    Without a person an item of theirs may have become rare.
    """
    fewest = [(table.user, options.get("min_user_events", 1)), (table.item, options.get("min_item_events", 1))]
    kept, num_before = np.ones(len(table), dtype=bool), -1
    while num_before != (num_before := int(kept.sum())):
        if options.get("collapse_repeats"):
            index = np.flatnonzero(kept)
            columns = (table.user, table.item, table.behavior)
            kept[index[1:]] = np.any([np.diff(one[index].astype(np.int64)) != 0 for one in columns], axis=0)
        for column, number in fewest:
            kept &= np.bincount(column[kept], minlength=int(column.max(initial=0)) + 1)[column] >= number
    return kept


def _report(before: Mapping[str, Any], events: EventTable | Histories, vocabulary: Vocabulary) -> ReadReport:
    """The report of a read with the numbers of what is left, and without what quotes rows of the log."""
    number, num_events = np.bincount(events.behavior, minlength=vocabulary.num_behaviors).tolist(), len(events.item)
    of_behavior = dict(zip(vocabulary.behaviors, number, strict=True))
    report = {
        **before,
        "num_events": num_events,
        "num_users": vocabulary.num_users,
        "num_items": vocabulary.num_items,
        "num_rows": num_events + sum(before["rejected"].values()) + sum(before["filtered"].values()),
        "behaviors": {name: of_behavior[name] for name in before["behaviors"] if of_behavior.get(name)},
        "low_behaviors": [name for name in before["low_behaviors"] if name in vocabulary.behaviors],
        "span": tuple(utc_text(int(moment)) for moment in (events.timestamp.min(), events.timestamp.max())),
    }
    return ReadReport(**report | {"first_faults": {}, "notes": [], "warnings": []})
