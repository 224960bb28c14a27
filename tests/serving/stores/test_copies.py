"""A store into other stores and files: backup and restore, export and re-fit, import of known histories."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import variseq
from variseq.errors import InputError
from variseq.serving.stores.protocol import Appended, Event, StoreCounts
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import SqliteOptions
from variseq.serving.stores.transfer import Row, back_up, export_events, import_histories

SECOND = 1_000_000
START = 1_600_000_000 * SECOND


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "events.db", SqliteOptions("fast"))
    yield store
    store.close()


def rows_of(num_users: int, num_events: int) -> list[Row]:
    return [
        (user, f"item-{(user + place) % 7}", START + place * SECOND, None, None)
        for user in range(num_users)
        for place in range(num_events)
    ]


def test_backup_is_one_moment_of_a_store_that_is_written(store: SqliteStore, tmp_path: Path) -> None:
    """Each batch holds one event of each of two users, so that a copy of one moment has as many of both."""
    is_done = threading.Event()

    def write() -> None:
        number = 0
        while not is_done.is_set():
            store.append([Event(f"{user}-{number}", user, 1, number) for user in ("ann", "bob")])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            back_up(store, tmp_path / "copy.db")
            copy = SqliteStore(tmp_path / "copy.db")
            assert len(copy.history("ann")) == len(copy.history("bob"))
            copy.close()
            for name in ("copy.db-wal", "copy.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
    finally:
        is_done.set()
        writer.join()


def test_restored_backup_answers_as_before_and_goes_on(store: SqliteStore, tmp_path: Path) -> None:
    store.append([Event("e-1", "ann", 1, 5), Event("e-2", "eve", 1, 5)])
    store.erase("eve")
    back_up(store, tmp_path / "copy.db")
    store.append([Event("e-3", "ann", 2, 6)])
    store.close()
    for file in tmp_path.glob("events.db*"):
        file.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "events.db")
    restored = SqliteStore(tmp_path / "events.db")
    assert [event.event_id for event in restored.history("ann")] == ["e-1"]
    again = [Event("e-1", "ann", 1, 5), Event("e-3", "ann", 2, 6), Event("e-2", "eve", 1, 5)]
    assert restored.append(again) == Appended(1, 1, 1), "also the erasures are in the backup"
    restored.close()


def test_backup_over_the_store_itself_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the store itself"):
        back_up(store, store.path)
    with pytest.raises(InputError, match="Nothing was left"):
        back_up(store, tmp_path / "none" / "copy.db")


def test_exported_events_are_a_log_to_fit(store: SqliteStore, tmp_path: Path) -> None:
    rows = rows_of(num_users=20, num_events=10)
    import_histories(store, rows)
    store.append([Event("e-1", 3, "item-0", START + 100 * SECOND, "purchase", 4.5)])
    store.erase(5)
    assert export_events(store, tmp_path / "events.parquet") == 191
    log = variseq.read(tmp_path / "events.parquet")
    assert (log.vocabulary.num_users, log.vocabulary.num_items) == (19, 7)
    assert log.vocabulary.behaviors == ("event", "purchase")
    assert log.histories.num_events == 191
    assert 5 not in log.vocabulary.users.to_pylist()
    place = log.vocabulary.user_positions([3])
    of_three = log.histories.history(int(place[0]))
    assert of_three.timestamp[-1] == START + 100 * SECOND
    assert log.vocabulary.item_ids(of_three.item[-1:]) == ["item-0"]


def test_mixture_of_ids_is_not_exported_unless_told(store: SqliteStore, tmp_path: Path) -> None:
    store.append([Event("e-1", 1, 10, START), Event("e-2", "ann", 10, START)])
    with pytest.raises(InputError, match=r"user_id.*ids_as_text=True"):
        export_events(store, tmp_path / "events.parquet")
    assert not list(tmp_path.glob("*.parquet*"))
    assert not list(tmp_path.glob(".*"))
    assert export_events(store, tmp_path / "events.parquet", ids_as_text=True) == 2
    log = variseq.read(tmp_path / "events.parquet")
    assert log.vocabulary.users.to_pylist() == ["1", "ann"]


def test_export_needs_a_name_for_parquet_and_a_folder(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.parquet"):
        export_events(store, tmp_path / "events.csv")
    with pytest.raises(InputError, match="Nothing was left"):
        export_events(store, tmp_path / "none" / "events.parquet")


def test_import_may_be_repeated_and_leaves_the_erased_out(store: SqliteStore) -> None:
    rows = rows_of(num_users=30, num_events=8)
    rows += [rows[-1]] * 3
    assert import_histories(store, rows) == Appended(243, 0, 0)
    assert import_histories(store, rows) == Appended(0, 243, 0)
    store.erase(7)
    assert import_histories(store, rows) == Appended(0, 235, 8)
    assert store.counts() == StoreCounts(29, 235, 1)
    assert [event.timestamp for event in store.history(0)] == [START + place * SECOND for place in range(8)]


def test_import_keeps_the_latest_of_long_histories(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "short.db", SqliteOptions("fast", history_limit=5))
    rows = rows_of(num_users=3, num_events=50)
    for _ in range(2):
        import_histories(store, rows)
        assert store.counts() == StoreCounts(3, 15, 0)
    assert store.history(1)[0].timestamp == START + 45 * SECOND
    store.close()
