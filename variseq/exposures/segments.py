"""Writes exposures: a thread that appends a line for each record to the segment of this process.

A segment that is full, or of the day before, is compressed: lines of ten items then take a third of their bytes.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from queue import Empty, Full, Queue

from variseq.artifacts.catalog_changes import locked
from variseq.errors import VariseqError
from variseq.exposures.folder import make_key, segment_lines, segments, written_anew
from variseq.exposures.records import ExposureRecord, Record
from variseq.privacy.erased_users import ERASED_USERS, ErasedUsers

log = logging.getLogger("variseq.exposures")
SEGMENT_BYTES = 64 << 20
MAX_WAITING = 10_000
MAX_GROUP = 256
"""Lines that are written while the folder is locked."""
NUM_KNOWN = 10_000
"""Lists whose exposure ids are remembered."""
IDLE_SECONDS = 600.0
CLOSE_SECONDS = 30.0
WARN_SECONDS = 60.0


class ExposureLog:
    """The exposures of a folder, to which several processes and threads may append.

    A record is written by a thread, soon after `add` has returned. It is not forced onto the disk, so a machine that
    loses power loses the last seconds. What does not fit the queue or the disk is dropped and counted.

    Args:
        folder: Is made where it is not there.
        days: Segments are deleted so many days after their last record; None keeps them.
        segment_bytes: A segment of this size is followed by another one; so is that of the day before.
        max_waiting: Records that may wait.
        count: Is called with the kind and the outcome of each record: written, dropped, repeated or erased.

    Raises:
        InputError: The folder cannot be written, or has segments without their key.
    """

    def __init__(
        self,
        folder: Path,
        days: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        max_waiting: int = MAX_WAITING,
        count: Callable[[str, str], None] = lambda kind, outcome: None,
    ) -> None:
        self.folder, self.days, self.segment_bytes, self.count = folder, days, segment_bytes, count
        self.key = make_key(folder)
        self._queue: Queue[tuple[int, Record] | None] = Queue(max_waiting)
        self._known: OrderedDict[str, int] = OrderedDict()
        self._path, self._descriptor = folder, -1
        self._ended: list[Path] = []
        self._day = date.min
        self._erased, self._erased_state = ErasedUsers(), (-1, -1)
        self._warned = -WARN_SECONDS
        self._thread = threading.Thread(target=self._work, name="exposures", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> bool:
        """Whether a record waits now to be written; otherwise it is dropped. Takes microseconds."""
        try:
            self._queue.put_nowait((time.time_ns() // 1000, record))
        except Full:
            self.count(record.kind, "dropped")
            return False
        return True

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread.is_alive():
            with suppress(Full):
                self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            group = self._next_group()
            goes_on = None not in group
            self._write([one for one in group if one is not None])
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _next_group(self) -> list[tuple[int, Record] | None]:
        """The records that wait, at least one; none after a long time without any."""
        group: list[tuple[int, Record] | None] = []
        with suppress(Empty):
            group.append(self._queue.get(timeout=IDLE_SECONDS))
            while group[-1] is not None and len(group) < MAX_GROUP:
                group.append(self._queue.get_nowait())
        return group

    def _write(self, group: list[tuple[int, Record]]) -> None:
        num_done = 0
        try:
            self._delete_old()
            with locked(self.folder, shared=True):
                self._read_erased()
                for added_at, record in group:
                    self.count(record.kind, self._outcome(added_at, record))
                    num_done += 1
            while self._ended:
                compress(self._ended.pop())
        except (OSError, VariseqError) as error:
            self._warn(error)
            for _, record in group[num_done:]:
                self.count(record.kind, "dropped")

    def _outcome(self, added_at: int, record: Record) -> str:
        """Write a record, unless it is known or of somebody who was erased since; what became of it."""
        if record.user_id is not None and self._erased.refuses(record.user_id, added_at):
            return "erased"
        if isinstance(record, ExposureRecord) and self._is_known(record):
            return "repeated"
        try:
            self._append(record.line(self.key))
        except Exception as error:  # The thread goes on with the next record whatever happens.
            self._warn(error)
            return "dropped"
        return "written"

    def _is_known(self, record: ExposureRecord) -> bool:
        """Whether the same list was written already, as for a request that was sent again."""
        items = hash(tuple(record.listed.item_id))
        is_known = self._known.get(record.exposure_id) == items
        self._known[record.exposure_id] = items
        self._known.move_to_end(record.exposure_id)
        if len(self._known) > NUM_KNOWN:
            self._known.popitem(last=False)
        return is_known

    def _append(self, line: bytes) -> None:
        """Write a line whole or not at all. Raises OSError."""
        descriptor = self._segment(len(line))
        size = os.fstat(descriptor).st_size
        if (num_written := os.write(descriptor, line)) < len(line):
            os.ftruncate(descriptor, size)  # The segment is of this process alone.
            raise OSError(f"{num_written} of {len(line)} bytes could be written")

    def _segment(self, num_bytes: int) -> int:
        """The segment to append to: of today, not too large, and not one that an erasure has replaced."""
        today = datetime.now(UTC).date()
        if self._descriptor >= 0:
            own = os.fstat(self._descriptor)
            try:
                there = os.stat(self._path)
                is_there = (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
            except FileNotFoundError:
                is_there = False
            is_full = own.st_size > 0 and own.st_size + num_bytes > self.segment_bytes
            if is_there and not is_full and today == self._day:
                return self._descriptor
            os.close(self._descriptor)
            self._descriptor = -1
            if is_there:
                self._ended.append(self._path)
        self._day = today
        name = f"exposures-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}.jsonl"
        self._path = self.folder / name
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return self._descriptor

    def _read_erased(self) -> None:
        """Take note of erasures by other processes: what waits here of these users is not written any more."""
        try:
            found = os.stat(self.folder / ERASED_USERS)
        except FileNotFoundError:
            return
        if (state := (found.st_mtime_ns, found.st_ino)) != self._erased_state:
            self._erased, self._erased_state = ErasedUsers.read(self.folder) or ErasedUsers(), state

    def _delete_old(self) -> None:
        """Delete segments whose day is too long ago, once a day."""
        today = datetime.now(UTC).date()
        if self.days is None or today == self._day:
            return
        with locked(self.folder):
            for path in segments(self.folder):
                if (day := day_of(path)) is not None and day < today - timedelta(days=self.days):
                    path.unlink(missing_ok=True)

    def _warn(self, error: Exception) -> None:
        if time.monotonic() - self._warned >= WARN_SECONDS:
            self._warned = time.monotonic()
            log.warning("exposures are dropped: %s", error)


def compress(segment: Path) -> None:
    """Put a compressed segment in the place of one that nobody appends to. Raises OSError and InputError."""
    with locked(segment.parent):
        if segment.exists():
            with written_anew(segment.with_name(f"{segment.name}.gz")) as stream:
                stream.writelines(segment_lines(segment))
            segment.unlink()


def day_of(segment: Path) -> date | None:
    """The day of all records of a segment; None for a file with another name.

    >>> day_of(Path("exposures-20251130-120000-0a1b2c3d.jsonl"))
    datetime.date(2025, 11, 30)
    """
    try:
        return datetime.strptime(segment.name.split("-")[1], "%Y%m%d").date()
    except (ValueError, IndexError):
        return None
