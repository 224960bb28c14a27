"""The SQLite store among other processes, beside foreign and damaged files, and in its own bytes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from variseq.errors import InputError
from variseq.serving.stores.page_scrubbing import unused_part
from variseq.serving.stores.protocol import Appended, Event, StoreCounts, StoreUnavailable
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import SqliteOptions

ROOT = Path(__file__).parents[3]
ANOTHER_PROCESS = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from variseq.serving.stores.protocol import Event
from variseq.serving.stores.sqlite import SqliteStore
store, name, count = SqliteStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
def write(number):
    store.append([Event(f"{name}-{number}", "ann", name, number)])
    assert any(event.event_id == f"{name}-{number}" for event in store.history("ann"))
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(count)))
store.close()
"""

BUSY_PROCESS = """
import itertools, sys
from pathlib import Path
from variseq.serving.stores.protocol import Event
from variseq.serving.stores.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
for number in itertools.count():
    store.append([Event(f"busy-{number}", "ann", 1, number)])
    if number == 0:
        print("on", flush=True)
"""


def start_another_process(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", ANOTHER_PROCESS, str(path), name, str(count)]
    return subprocess.Popen(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, SqliteOptions("fast", lock_seconds=0.3))
    yield store
    store.close()


def bytes_of_all_files(path: Path) -> bytes:
    # By another process: closing a file here would release the locks that the open store has on it.
    files = [str(file) for file in path.parent.iterdir() if file.suffix != ".db-shm"]
    return subprocess.run(["cat", *files], check=True, capture_output=True).stdout


def test_processes_share_one_store(path: Path, store: SqliteStore) -> None:
    store.append([Event("first", "ann", 1, 0)])
    before = store.version("ann")
    others = [start_another_process(path, name, 60) for name in ("p", "q")]
    for number in range(60):
        store.append([Event(f"own-{number}", "ann", "own", number)])
    assert [other.wait(60) for other in others] == [0, 0]
    history = store.history("ann")
    assert len(history) == len({event.event_id for event in history}) == 181
    assert store.version("ann") > before
    assert store.counts() == StoreCounts(1, 181, 0)


def test_process_that_writes_without_a_pause_does_not_starve_another(path: Path) -> None:
    words = [sys.executable, "-c", BUSY_PROCESS, str(path)]
    busy = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    assert busy.stdout is not None
    busy.stdout.readline()
    store = SqliteStore(path, SqliteOptions("durable", lock_seconds=5.0))
    for number in range(50):
        store.append([Event(f"own-{number}", "bob", 1, number)])
    busy.kill()
    busy.wait()
    busy.stdout.close()
    assert len(store.history("bob")) == 50
    store.close()


def test_version_changes_when_another_process_appends(path: Path, store: SqliteStore) -> None:
    store.append([Event("first", "ann", 1, 0)])
    before = store.version("ann")
    assert start_another_process(path, "p", 1).wait(60) == 0
    assert store.version("ann") != before
    assert len(store.history("ann")) == 2


def test_histories_are_there_after_closing(path: Path, store: SqliteStore) -> None:
    event = Event("e-1", "ann", 1, 5, "view", 0.5)
    store.append([event])
    store.close()
    again = SqliteStore(path)
    assert again.history("ann") == [event]
    assert again.append([event]) == Appended(0, 1, 0)
    again.close()


def test_smaller_limit_at_the_next_opening_trims(path: Path, store: SqliteStore) -> None:
    store.append([Event(f"e-{number}", "ann", number, number) for number in range(10)])
    smaller = SqliteStore(path, SqliteOptions("fast", history_limit=3))
    assert [event.item_id for event in smaller.history("ann")] == [7, 8, 9]
    smaller.append([Event("e-10", "ann", 10, 10)])
    assert smaller.counts() == StoreCounts(1, 3, 0)
    smaller.close()


def test_file_is_for_its_owner_alone(path: Path, store: SqliteStore) -> None:
    store.append([Event("e-1", "ann", 1, 5)])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_an_erased_user_is_left_in_the_bytes(path: Path, store: SqliteStore, seed: int) -> None:
    """Pages are split many times, which is when SQLite itself leaves copies behind."""
    random = Random(seed)
    users = [f"person-{number:04}-x" for number in range(150)]
    for _ in range(120):
        chosen = [random.choice(users) for _ in range(random.choice([1, 5, 100]))]
        store.append(
            [Event(f"event-{user}-{random.random()}", user, f"item-{user}", random.randrange(10**9)) for user in chosen]
        )
    erased = random.sample(users, 40)
    content = bytes_of_all_files(path)
    assert all(user.encode() in content for user in erased)
    num_events = sum(store.erase(user) for user in erased)
    assert num_events > 40
    content = bytes_of_all_files(path)
    assert [user for user in erased if user[:-2].encode() in content] == []
    assert all(user.encode() in content for user in set(users) - set(erased)), "the others are untouched"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_no_unused_byte_keeps_content_after_an_erasure(path: Path, store: SqliteStore) -> None:
    """Also for whole numbers, whose bytes could be anything: what no row uses is zero."""
    random = Random(5)
    for _ in range(100):
        store.append(
            [Event(f"e-{random.random()}", random.randrange(500), 1, random.randrange(10**9)) for _ in range(30)]
        )
    store.erase(7)
    store.close()
    content = path.read_bytes()
    pages = [content[offset : offset + 4096] for offset in range(0, len(content), 4096)]
    spans = [unused_part(page, 0 if number else 100) for number, page in enumerate(pages)]
    assert sum(end - begin for begin, end in spans) > 10_000
    assert not any(any(page[begin:end]) for page, (begin, end) in zip(pages, spans, strict=True))


def test_erasure_reads_a_large_file_in_small_parts(path: Path) -> None:
    """What a thread has held once, it keeps: memory must not follow the size of the file."""
    store = SqliteStore(path, SqliteOptions("fast"))
    for first in range(0, 9000, 1000):
        store.append([Event(f"e-{n}", f"user-{n % 997}", "i" * 1000, n) for n in range(first, first + 1000)])
    tracemalloc.start()
    store.erase("user-1")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert path.stat().st_size > 8_000_000
    assert most_bytes < 1_000_000


def test_erasure_is_safe_while_others_write(path: Path, store: SqliteStore) -> None:
    store.append([Event(f"old-{number}", f"secret-person-{number % 20}", 1, number) for number in range(2000)])
    others = [start_another_process(path, name, 80) for name in ("p", "q")]
    patient = SqliteStore(path, SqliteOptions("fast", lock_seconds=10.0))
    assert sum(patient.erase(f"secret-person-{number}") for number in range(20)) == 2000
    assert [other.wait(60) for other in others] == [0, 0]
    patient.erase("nobody")
    assert b"secret-person" not in bytes_of_all_files(path)
    assert len(store.history("ann")) == 160
    patient.close()


def test_check_and_erasure_write_so_that_a_full_disk_is_noticed_and_no_cache_keeps_old_pages(
    path: Path, store: SqliteStore
) -> None:
    """An UPDATE to the same values would write nothing, and other connections would keep their pages."""
    other = sqlite3.connect(path, isolation_level=None)
    versions = [other.execute("PRAGMA data_version").fetchone()]
    store.check()
    versions.append(other.execute("PRAGMA data_version").fetchone())
    store._overwrite_unused()
    versions.append(other.execute("PRAGMA data_version").fetchone())
    other.close()
    assert len(set(versions)) == 3


def test_erasure_says_when_a_reader_keeps_old_pages(path: Path, store: SqliteStore) -> None:
    store.append([Event("e-1", "ann", 1, 5)])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM events").fetchall()
    with pytest.raises(StoreUnavailable, match="Then erase the user again"):
        store.erase("ann")
    assert store.history("ann") == []
    reader.close()
    assert store.erase("ann") == 0
    assert b"ann" not in bytes_of_all_files(path)


@pytest.mark.parametrize("content", [b"user,item\n1,2\n" * 1000, b"SQLite format 3\0" + b"\1" * 5000])
def test_foreign_or_damaged_file_is_one_clear_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a store"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(InputError, match="the database of something else"):
        SqliteStore(path)


def test_store_of_a_later_release_is_refused(path: Path, store: SqliteStore) -> None:
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(InputError, match="format 2"):
        SqliteStore(path)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        SqliteStore(tmp_path / "none" / "events.db")
    with pytest.raises(InputError, match="is a folder"):
        SqliteStore(tmp_path)


def test_damage_while_open_is_told(path: Path, store: SqliteStore) -> None:
    store.append([Event(f"e-{number}", number, 1, number) for number in range(5000)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    # All of its tables are damaged, but not the page that tells what the file is.
    damaged = SqliteStore(path)
    for call in (lambda: damaged.history(3), lambda: damaged.append([Event("new", 3, 1, 1)]), damaged.check):
        with pytest.raises(StoreUnavailable, match="put a backup in its place"):
            call()
    damaged.close()


def test_locked_store_is_unavailable_and_recovers(path: Path, store: SqliteStore) -> None:
    store.append([Event("e-1", "ann", 1, 1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = [Event("e-2", "ann", 1, 2)]
    with pytest.raises(StoreUnavailable, match="locked by another process"):
        store.append(batch)
    assert len(store.history("ann")) == 1, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert store.append(batch) == Appended(1, 0, 0)


def test_moved_file_is_told_by_the_check(path: Path, store: SqliteStore) -> None:
    store.check()
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(StoreUnavailable, match="moved or replaced"):
        store.check()


def test_readers_of_ended_threads_are_let_go(store: SqliteStore) -> None:
    for _ in range(20):
        thread = threading.Thread(target=store.history, args=("ann",))
        thread.start()
        thread.join()
    store.history("ann")
    assert len(store._readers) <= 2
