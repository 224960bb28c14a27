"""The histories that a run was fitted on into the store of a server that starts for the first time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from variseq.errors import CheckpointError, InputError
from variseq.events.vocabulary import Vocabulary
from variseq.serving.settings import ServeSettings
from variseq.serving.stores.importing import Row, import_histories
from variseq.serving.stores.protocol import HistoryStore
from variseq.serving.stores.sqlite import SqliteStore

HISTORIES, BOUNDS, VOCABULARY = "histories.parquet", "history_bounds.parquet", "vocabulary"
ROWS_AT_ONCE = 65_536


def import_run(settings: ServeSettings, store: HistoryStore) -> str | None:
    """Import the run's histories where that is asked, and tell how many; None where nothing was imported.

    "auto" imports into an empty store, and goes on with an import that was broken off. A store that has events already
    is left as it is: those of a later run would be the same events under other ids.
    Raises InputError where it is asked to import and the run has no histories, CheckpointError for a damaged run.
    """
    has_histories = (settings.run / HISTORIES).is_file()
    if settings.import_histories == "yes" and not has_histories:
        raise InputError(f"--import-histories yes: {settings.run} has no histories. Leave it out, or give another run.")
    if settings.import_histories == "no" or not has_histories:
        return None
    path = _record_file(store)
    marker = None if path is None else path.with_name(path.name + ".importing")
    counts = store.counts()
    was_broken_off = marker is not None and marker.exists()
    if settings.import_histories == "auto" and not was_broken_off and (counts.events or counts.erased):
        return None
    if marker is not None:
        marker.touch()
    done = import_histories(store, run_rows(settings.run))
    if marker is not None:
        marker.unlink()
    refused = f"; {done.refused:,} are of erased users and stay out" if done.refused else ""
    known = f", {done.duplicates:,} were there" if done.duplicates else ""
    return f"Imported {done.accepted:,} events of {settings.run} into the store{known}{refused}."


def run_rows(run: Path) -> Iterator[Row]:
    """The events of a run in outside ids, all of a user together, oldest first; some thousand in memory at a time."""
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
    user, place = 0, 0
    (user_id,) = vocabulary.user_ids([user])
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["item", "behavior", "timestamp", "value"]):
        items = vocabulary.item_ids(batch.column("item").to_numpy())
        columns = [batch.column(name).to_pylist() for name in ("behavior", "timestamp", "value")]
        for item_id, behavior, timestamp, value in zip(items, *columns, strict=True):
            if place == ends[user]:
                user = next(later for later in range(user + 1, len(ends)) if ends[later] > place)
                (user_id,) = vocabulary.user_ids([user])
            yield user_id, item_id, timestamp, vocabulary.behaviors[behavior], _number(value)
            place += 1


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _record_file(store: HistoryStore) -> Path | None:
    """The file that a store keeps its events in, or its record beside it; None for one without."""
    durable = store if isinstance(store, SqliteStore) else getattr(store, "record", None)
    return durable.path if isinstance(durable, SqliteStore) else None
