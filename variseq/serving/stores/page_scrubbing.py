"""Overwrites the unused bytes of SQLite pages, so that nothing of an erased user is left in the file.

SQLite's `secure_delete` overwrites a row where it is when it is deleted. When a page is split, copies of rows that
moved to another page stay in the unused part of the first, and no later deletion reaches them. `VACUUM` would write
the whole file again while nobody can write. Here the unused part of every page is overwritten in
place, some pages at a time.

Source of the layout of a page: https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from variseq.serving.stores.sqlite_file import TOUCH, begin_writing

PAGES_AT_ONCE = 8192
# How many of them are in memory at once; a thread that erases keeps that memory.
PAGES_IN_MEMORY = 64
FILE_HEADER_BYTES = 100
INTERIOR_PAGES, LEAF_PAGES = (2, 5), (10, 13)
# The first byte of a page is its kind. In a page of another kind it is the high byte of a page number, which is 0
# in any file with fewer pages than this (137 GB of usual pages).
MAX_PAGES = 2 << 24
FileKey = tuple[int, int]
_guard = threading.Lock()
_handles: dict[FileKey, int] = {}
"""Files that are open beside SQLite until the process ends: to close one would release the locks of SQLite (POSIX)."""


def file_key(path: Path) -> FileKey:
    """Which file it is, by whatever name."""
    found = path.stat()
    return found.st_dev, found.st_ino


def overwrite_unused(connection: sqlite3.Connection, path: Path, lock_seconds: float, first_page: int) -> int | None:
    """Overwrite the unused parts of some pages from `first_page` on; returns where to go on, None at the end.

    `connection` has no page in its cache. Raises sqlite3.OperationalError if others keep the log from being emptied.
    """
    _lock_with_empty_log(connection, path.with_name(path.name + "-wal"), lock_seconds)
    try:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
        if num_pages >= MAX_PAGES:
            raise sqlite3.OperationalError("the file is too large to overwrite its unused bytes; use VACUUM")
        last = min(first_page + PAGES_AT_ONCE, num_pages)
        with _guard:
            key = file_key(path)
            handle = _handles[key] = _handles.get(key) or os.open(path, os.O_RDWR)
        parts = range(first_page, last, PAGES_IN_MEMORY)
        # A list, as each part has to be done.
        if any([_overwrite_part(handle, begin, min(begin + PAGES_IN_MEMORY, last), page_bytes) for begin in parts]):
            os.fsync(handle)
        # So that no connection keeps pages in its cache from before, which it could write again.
        connection.execute(TOUCH)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return last if last < num_pages else None


def _lock_with_empty_log(connection: sqlite3.Connection, log: Path, lock_seconds: float) -> None:
    """Take the lock with an empty log: then all content is in the file, and nobody writes it."""
    for _ in range(100):
        # Waits for readers of the log.
        connection.execute(f"PRAGMA busy_timeout = {int(lock_seconds * 1000)}")
        (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            break
        begin_writing(connection, lock_seconds)
        if not log.exists() or log.stat().st_size == 0:
            return
        connection.execute("ROLLBACK")
    raise sqlite3.OperationalError("others keep its log from being emptied")


def _overwrite_part(handle: int, first: int, last: int, page_bytes: int) -> bool:
    """Whether anything had to be overwritten."""
    content = os.pread(handle, (last - first) * page_bytes, first * page_bytes)
    has_written = False
    for offset in range(0, len(content), page_bytes):
        is_first_page = first == 0 and offset == 0
        begin, end = unused_part(content[offset : offset + page_bytes], FILE_HEADER_BYTES if is_first_page else 0)
        if content.count(0, offset + begin, offset + end) != end - begin:
            os.pwrite(handle, bytes(end - begin), first * page_bytes + offset + begin)
            has_written = True
    return has_written


def unused_part(page: bytes, header_begins: int = 0) -> tuple[int, int]:
    """The unused part of a page, from the end of its list of rows to the first row; empty for other pages.

    >>> page = bytes([13, 0, 0, 0, 1, 0, 60, 0, 0, 60]) + bytes(54)
    >>> unused_part(page)
    (10, 60)
    >>> unused_part(bytes(64))
    (0, 0)
    """
    kind = page[header_begins]
    if kind not in INTERIOR_PAGES and kind not in LEAF_PAGES:
        return 0, 0
    num_rows = int.from_bytes(page[header_begins + 3 : header_begins + 5], "big")
    end = int.from_bytes(page[header_begins + 5 : header_begins + 7], "big") or 65536
    begin = header_begins + (12 if kind in INTERIOR_PAGES else 8) + 2 * num_rows
    return (begin, end) if begin <= end <= len(page) else (0, 0)
