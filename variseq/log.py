"""Read a log of events, check it and split it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.evaluation.splits import Part, by_time, by_user_time, by_users, leave_one_out, marked_targets
from variseq.events.items import ItemTable, UserColumn, read_catalog, read_users
from variseq.events.options import ReadOptions
from variseq.events.read import read as read_events
from variseq.events.report import CheckReport, Events, ReadReport, check, visit_gap_of
from variseq.events.table import EventTable
from variseq.events.vocabulary import Vocabulary, positions_in
from variseq.ranking.attributes import left_out
from variseq.sequences.histories import Histories

SplitMethod = Literal["time", "leave-one-out", "user-time", "users"]
NO_TEST = "none"
"""The size of the test part of a split without one."""


@dataclass(frozen=True, eq=False)
class LogPart:
    """One part of a split log, with its vocabulary, for `fit` and `evaluate`."""

    part: Part
    vocabulary: Vocabulary
    items: ItemTable | None
    report: ReadReport
    users: dict[str, UserColumn] = field(default_factory=dict)

    def __repr__(self) -> str:
        protocol = self.part.protocol
        return (
            f"<{self.part.name} part of a {protocol['method']} split: {protocol['num_train_events']:,} training, "
            f"{protocol['num_valid_events']:,} validation, {protocol['num_test_events']:,} test events>"
        )


@dataclass(frozen=True, eq=False)
class Log:
    """A cleaned log of events."""

    histories: Histories
    vocabulary: Vocabulary
    items: ItemTable | None
    report: ReadReport
    checked: CheckReport
    users: dict[str, UserColumn] = field(default_factory=dict)
    """The attributes of each user of the vocabulary, by name."""

    @classmethod
    def of(cls, events: Events, users: dict[str, UserColumn] | None = None) -> Log:
        """The handle on events that were read."""
        histories = Histories.from_table(events.table, events.vocabulary.num_users, visit_gap_of(events.report))
        return cls(histories, events.vocabulary, events.items, events.report, check(events), users or {})

    def __repr__(self) -> str:
        vocabulary = self.vocabulary
        return (
            f"<log of {self.histories.num_events:,} events: {vocabulary.num_users:,} users, "
            f"{vocabulary.num_items:,} items, {', '.join(vocabulary.behaviors)}>"
        )

    def check(self) -> CheckReport:
        """What is notable about the data: counts, span, lengths of histories, warnings."""
        return self.checked

    def split(
        self,
        by: SplitMethod = "time",
        test: float | int | str | None = None,
        valid: float | int | str | None = None,
        targets_of: str | Sequence[str] | None = None,
    ) -> tuple[LogPart, LogPart, LogPart]:
        """Train, validation and test parts.

        "time" (the default) cuts at two moments: training ends before the first. `test` and `valid` are shares of
        the events (0.1 where None), durations ("7d") or starts in UTC microseconds. "leave-one-out" takes each user's
        last event for test and the one before for validation, as much of the literature does; it lets a model learn
        from the future of others. "user-time" takes the last slices of each user's own events; `test` and `valid` are
        shares of these or durations. "users" draws the users of validation and test, who are in no other part; both are
        shares of users.

        With test="none" there is no test part: all but validation is training. `targets_of` names the behaviors that
        are targets ("purchase"); events of other behaviors are read as history. None stands for all,
        except low values that were read with low_values="negative".

        Raises InputError for another method, an unknown behavior, or when a part would be empty.
        """
        num_items = self.vocabulary.num_items
        if num_items < 2 or self.vocabulary.num_users < 2:
            raise InputError(
                f"The log has {self.vocabulary.num_users:,} user(s) and {num_items:,} item(s). A recommender needs at "
                "least 2 of each: check that the columns are the right ones."
            )
        targets = self._target_behaviors(targets_of)
        histories = marked_targets(self.histories, self.vocabulary.behaviors, targets)
        test_slice = None if test == NO_TEST else 0.1 if test is None else test
        valid_slice = 0.1 if valid is None else valid
        if by == "time":
            if len(np.unique(histories.timestamp[:1000])) == 1 and np.ptp(histories.timestamp) == 0:
                raise InputError(
                    "All events have the same time, so the log cannot be split by time. Use the leave-one-out split, "
                    "which goes by the order of the rows, or give the column of times with columns."
                )
            parts = by_time(histories, test_slice, valid_slice, num_items)
        elif by == "leave-one-out":
            if test not in (None, NO_TEST) or valid is not None:
                raise InputError(
                    "test and valid are slices of time; the leave-one-out split has none. Leave them out, or give "
                    "test='none' for a split without a test part."
                )
            parts = leave_one_out(histories, num_items, with_test=test != NO_TEST)
        elif by in ("user-time", "users"):
            of_people = by_user_time if by == "user-time" else by_users
            parts = of_people(histories, test_slice, valid_slice, num_items)
        else:
            raise InputError(f"There is no split {by!r}. Allowed: {', '.join(get_args(SplitMethod))}.")
        if targets is not None:
            of_targets = {"targets_of": list(targets)}
            train, valid_part, test_part = (replace(part, protocol=part.protocol | of_targets) for part in parts)
            parts = (train, valid_part, test_part)
        of_train, of_valid, of_test = (
            LogPart(part, self.vocabulary, self.items, self.report, self.users) for part in parts
        )
        return of_train, of_valid, of_test

    def on_catalog(self, items: object) -> Log:
        """The log with the items of a table and no others, also those that nobody had; sorted by their ids.

        Args:
            items: What `variseq.read` takes as items. It decides which items there are, whatever the log holds.

        Returns:
            The log; events of other items are counted as filtered, and users without another event are left out.

        Raises:
            InputError: For a table without ids, or with those of another type, and when no event is left.
        """
        catalog, table = read_catalog(items, self.vocabulary.items.type, ReadOptions(**self.report.options))
        position = positions_in(catalog, self.vocabulary.items)[self.histories.item]
        kept, events = position >= 0, self.histories
        if not kept.any():
            raise InputError("No item of the log is in the table of items. Check that the ids are spelled alike.")
        users, user = np.unique(np.repeat(np.arange(len(events)), events.lengths)[kept], return_inverse=True)
        columns = (events.timestamp[kept], events.behavior[kept], events.value[kept])
        item = position[kept].astype(np.int32)
        vocabulary = Vocabulary(self.vocabulary.users.take(pa.array(users)), catalog, self.vocabulary.behaviors)
        num_left_out = int((~kept).sum())
        counts = np.bincount(columns[1], minlength=vocabulary.num_behaviors).tolist()
        report = replace(
            self.report,
            num_events=int(kept.sum()),
            num_users=len(users),
            num_items=len(catalog),
            filtered=self.report.filtered | ({"item not in the catalog": num_left_out} if num_left_out else {}),
            behaviors=dict(zip(vocabulary.behaviors, counts, strict=True)),
        )
        events_table = EventTable(user.astype(np.int32), item, columns[0], columns[1], columns[2])
        return Log.of(Events(events_table, vocabulary, table, report))

    def _target_behaviors(self, targets_of: str | Sequence[str] | None) -> tuple[str, ...] | None:
        """The behaviors of targets; None where it is all of them. Raises InputError for an unknown one."""
        behaviors, low = self.vocabulary.behaviors, self.report.low_behaviors
        given = [targets_of] if isinstance(targets_of, str) else targets_of
        wanted = [name for name in behaviors if name not in low] if given is None else list(given)
        unknown = [name for name in wanted if name not in behaviors or name in low]
        if unknown or not wanted:
            counts = ", ".join(
                f"{name} ({count:,})" for name, count in self.report.behaviors.items() if name not in low
            )
            what = f"names {unknown[0]!r}, which no target can have" if unknown else "is empty"
            raise InputError(f"targets_of {what}. The behaviors of the log, with their events: {counts or 'none'}.")
        return None if set(wanted) == set(behaviors) else tuple(name for name in behaviors if name in wanted)


def read(
    source: object, items: object | None = None, options: ReadOptions | None = None, users: object | None = None
) -> Log:
    """Read a log: `source` is a path, a glob, a list of paths, a folder that `variseq prepare` wrote, a pandas, Polars,
    Arrow or Spark table, or a DuckDB relation.

    Columns are found by their usual names, invalid rows are left out and counted with their reasons, and `items` adds
    titles and categories. See `ReadOptions` for what can be set. `users` is a table with user_id and attributes of
    people; what people with the same attributes take first is recommended to somebody without a history.

    >>> import pyarrow as pa
    >>> log = read(pa.table({"user": ["u", "v", "u"], "item": [8, 9, 9], "ts": [1600000100, 1600000000, 1600000200]}))
    >>> log
    <log of 3 events: 2 users, 2 items, event>
    """
    events = read_events(source, items, options)
    if users is None:
        return Log.of(events)
    columns = read_users(users, events.vocabulary)
    reasons = {name: left_out(values) for name, values in columns.items()}
    notes = [f"column {name!r} of the table of users is no attribute: {why}" for name, why in reasons.items() if why]
    events.report.notes.extend(notes)
    return Log.of(events, {name: values for name, values in columns.items() if reasons[name] is None})
