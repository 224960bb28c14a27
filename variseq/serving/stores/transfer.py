"""Copies of a store: backup, export to Parquet, and import of the histories of a run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq

from variseq.atomic import atomic_write
from variseq.errors import CheckpointError, InputError
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.privacy.erased_users import ErasedUsers, erased_users_above
from variseq.serving.stores.protocol import Appended, DurableStore, Event, HistoryStore, Row, Snapshot
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import connect, readable

ROWS_AT_ONCE = 65_536
EVENTS_AT_ONCE = 5000
# The behavior of an event without one in an export where others have one; a log without the column gets the same name.
USUAL_BEHAVIOR = "event"
HISTORIES, BOUNDS, VOCABULARY = "histories.parquet", "history_bounds.parquet", "vocabulary"
REPORT_SECONDS = 5.0
Report = Callable[[str], None]


def back_up(store: SqliteStore, target: Path) -> None:
    """Copy the store as it is at one moment, while it is read and written; whole or not at all.

    To restore: stop the server, move the file and its -wal and -shm files away, put the copy in the file's place,
    start the server. A backup holds users who are erased later: keep it only as long as your promise to them allows,
    or open it once and erase them there too.

    Raises InputError when the target cannot be written, StoreUnavailable.
    """
    if target.resolve() == store.path.resolve():
        raise InputError(f"{target} is the store itself. Name another file for the backup.")
    try:
        with atomic_write(target) as unfinished:
            unfinished.unlink(missing_ok=True)
            os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _copy(store, unfinished)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error


def _copy(store: SqliteStore, target: Path) -> None:
    try:
        with (
            closing(connect(store.path, store.options, writes=False)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # In one step: one moment of the store, which others go on writing meanwhile.
            source.backup(copy)
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise InputError(
                f"The backup cannot be written ({error}). Is the disk full? Nothing was left there."
            ) from error
        raise readable(error, store.path) from error


def export_events(store: DurableStore, target: Path, ids_as_text: bool = False) -> int:
    """Write all events of one moment, in parts, so that memory does not grow with them; the number of events.

    Columns: user_id, item_id, timestamp (UTC), event, value. Whole or not at all; the store goes on meanwhile.
    Ids are whole numbers where all are, and text where all are; `ids_as_text` writes a mixture as text, in which 12
    and "12" are the same.

    Raises InputError for a mixture of ids and for a target that cannot be written, StoreUnavailable.
    """
    if target.suffix != ".parquet":
        raise InputError(f"Events are exported to Parquet; got {target.name!r}. Name a file that ends in .parquet.")
    try:
        with atomic_write(target) as unfinished, store.snapshot() as events:
            return _write(events, _schema(events, ids_as_text), unfinished)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error


def _schema(events: Snapshot, ids_as_text: bool) -> pa.Schema:
    types = []
    for name, kinds in ((Columns.USER, events.user_kinds), (Columns.ITEM, events.item_kinds)):
        if len(kinds) > 1 and not ids_as_text:
            raise InputError(
                f"Some values of {name} in the store are whole numbers and some are text, and a column holds one kind. "
                "Export with ids_as_text=True to write all as text; 12 and '12' are the same then."
            )
        types.append(pa.int64() if kinds == {int} and not ids_as_text else pa.string())
    names = (Columns.USER, Columns.ITEM, Columns.TIME, Columns.EVENT, Columns.VALUE)
    return pa.schema(list(zip(names, [*types, pa.timestamp("us", tz="UTC"), pa.string(), pa.float64()], strict=True)))


def _write(events: Snapshot, schema: pa.Schema, target: Path) -> int:
    num_events = 0
    with pq.ParquetWriter(str(target), schema) as writer:
        while rows := list(islice(events.rows, ROWS_AT_ONCE)):
            columns = list(zip(*rows, strict=True))
            for index in (0, 1):
                if pa.types.is_string(schema.types[index]):
                    columns[index] = tuple(map(str, columns[index]))
            columns[3] = tuple(USUAL_BEHAVIOR if behavior is None else behavior for behavior in columns[3])
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            num_events += len(rows)
    return num_events


def import_run(store: HistoryStore, run: Path, mode: str, report: Report = lambda text: None) -> None:
    """Import the histories of a run into a store; `report` takes lines about the progress.

    Mode "auto" imports into an empty store, and continues an import that was interrupted. A store that has events is
    left as it is: those of a later run would be the same events under other ids. Mode "no" imports nothing. Events
    of users who were erased by `variseq erase` stay out, also of a store that does not know them.
    Raises InputError for mode "yes" and a run without histories, CheckpointError for a damaged run.
    """
    has_histories = (run / HISTORIES).is_file()
    if mode == "yes" and not has_histories:
        raise InputError(f"--import-histories yes: {run} has no histories. Leave it out, or give another run.")
    if mode == "no" or not has_histories:
        return
    path = _durable_file(store)
    marker = None if path is None else path.with_name(path.name + ".importing")
    counts = store.counts()
    was_interrupted = marker is not None and marker.exists()
    if mode == "auto" and not was_interrupted and (counts.events or counts.erased):
        return
    if marker is not None:
        marker.touch()
    erased = _ErasedRows(erased_users_above(run))
    done = import_histories(store, erased.without(_with_progress(run, report)))
    if marker is not None:
        marker.unlink()
    num_refused = done.refused + erased.num_rows
    refused = f"; {num_refused:,} are of erased users and stay out" if num_refused else ""
    known = f", {done.duplicates:,} were there" if done.duplicates else ""
    report(f"Imported {done.accepted:,} events of {run} into the store{known}{refused}.")


class _ErasedRows:
    """Leaves out and counts rows of users who were erased from the runs of this folder, whatever the store knows."""

    def __init__(self, erased: list[ErasedUsers]) -> None:
        self.erased = erased
        self.num_rows = 0

    def without(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if any(one.refuses(row[0], row[2]) for one in self.erased):
                self.num_rows += 1
            else:
                yield row


def import_histories(store: HistoryStore, rows: Iterable[Row]) -> Appended:
    """Append the rows, all of a user together and the oldest first; what was imported before counts as duplicates.

    Users who were erased do not come back: their events from before that are refused. Memory use does not grow with
    the number of rows. An interrupted import may be started again.

    >>> store, rows = SqliteStore(), [("ann", 7, 1_000_000, None, None), ("ann", 7, 1_000_000, None, None)]
    >>> import_histories(store, rows), import_histories(store, rows)
    (Appended(accepted=2, duplicates=0, refused=0), Appended(accepted=0, duplicates=2, refused=0))
    >>> store.close()
    """
    accepted = duplicates = refused = 0
    events = as_events(rows)
    while batch := list(islice(events, EVENTS_AT_ONCE)):
        done = store.append(batch)
        accepted, duplicates, refused = accepted + done.accepted, duplicates + done.duplicates, refused + done.refused
    return Appended(accepted, duplicates, refused)


def as_events(rows: Iterable[Row]) -> Iterator[Event]:
    """Give each row an event id that follows from its content; equal rows of a user are numbered."""
    user_id: Id | None = None
    prefix = ""
    seen: Counter[bytes] = Counter()
    for row in rows:
        if row[0] != user_id or not prefix:
            user_id, seen = row[0], Counter()
            # Ids with the same prefix are next to each other in the store: a user's events touch few pages.
            prefix = f"imported-{_digest(user_id, 8).hex()}"
        content = _digest(row[1:], 12)
        seen[content] += 1
        yield Event(f"{prefix}-{content.hex()}-{seen[content]}", *row)


def _digest(content: object, num_bytes: int) -> bytes:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=num_bytes).digest()


def run_rows(run: Path) -> Iterator[Row]:
    """The events of a run with the ids of the data, all of a user together, oldest first; read in parts."""
    vocabulary = Vocabulary.load(run / VOCABULARY)
    try:
        ends = pq.read_table(run / BOUNDS, columns=["end"]).column("end").to_pylist()
        if len(ends) != vocabulary.num_users:
            raise CheckpointError(f"The run in {run} is damaged: its histories are not those of its users.")
        yield from _rows(pq.ParquetFile(run / HISTORIES), vocabulary, ends)
    except (OSError, pa.ArrowException, KeyError, IndexError) as error:
        raise CheckpointError(
            f"The histories in {run} cannot be read ({error}). Restore the folder from a copy."
        ) from error


def _rows(file: pq.ParquetFile, vocabulary: Vocabulary, ends: list[int]) -> Iterator[Row]:
    user, index = 0, 0
    (user_id,) = vocabulary.user_ids([user])
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["item", "behavior", "timestamp", "value"]):
        items = vocabulary.item_ids(batch.column("item").to_numpy())
        columns = [batch.column(name).to_pylist() for name in ("behavior", "timestamp", "value")]
        for item_id, behavior, timestamp, value in zip(items, *columns, strict=True):
            if index == ends[user]:
                user = next(later for later in range(user + 1, len(ends)) if ends[later] > index)
                (user_id,) = vocabulary.user_ids([user])
            number = None if value is None or math.isnan(value) else value
            yield user_id, item_id, timestamp, vocabulary.behaviors[behavior], number
            index += 1


def _with_progress(run: Path, report: Report) -> Iterator[Row]:
    """The rows of a run; every few seconds their share and the time left are reported."""
    start = last = monotonic()
    num_rows = 0
    for index, row in enumerate(run_rows(run)):
        if index % EVENTS_AT_ONCE == 0 and monotonic() - last > REPORT_SECONDS:
            last = monotonic()
            num_rows = num_rows or pq.read_metadata(run / HISTORIES).num_rows
            left = (last - start) * (num_rows - index) / index
            report(f"Importing histories: {index / num_rows:.0%}, about {left:.0f} s left.")
        yield row


def _durable_file(store: HistoryStore) -> Path | None:
    """The SQLite file of a store; None for one without."""
    durable = getattr(store, "log", store)
    return durable.path if isinstance(durable, SqliteStore) else None
