"""The disk of the store becomes full under load: are callers told, is nothing lost, and does it work again with room?

    python benchmarks/faults/full_disk.py --times 20

Where the process may mount (as root, in a mount namespace of its own), the disk is a small file system in memory,
with a file in it that is made smaller when room is wanted. Elsewhere a limit on the size of files stands for it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import finish
from write_load import HISTORY_LIMIT, WriteLoad, compare

from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import HistoryStore, StoreUnavailable

# The log grows to about 4 MB before it is taken into the file, and both need their room.
FIRST_ROOM_BYTES, ROOM_BYTES, LAST_ROOM_BYTES = 6 << 20, 512 << 10, 8 << 20
LONGEST_WAIT_SECONDS = 60.0


class MountedDisk:
    """A small file system, and a file in it that leaves a little room at a time."""

    way = "a small file system"

    def __init__(self, folder: Path, times: int) -> None:
        self._ballast = folder / "ballast"
        self._num_bytes = times * ROOM_BYTES + LAST_ROOM_BYTES
        self._ballast.write_bytes(bytes(self._num_bytes))

    def make_room(self, num_bytes: int = ROOM_BYTES) -> None:
        self._num_bytes -= num_bytes
        os.truncate(self._ballast, self._num_bytes)


class LimitedFiles:
    """A limit on the size of every file that this process writes."""

    way = "a limit on the size of files"

    def __init__(self, folder: Path, times: int) -> None:
        self._num_bytes = 0
        self.make_room()

    def make_room(self, num_bytes: int = ROOM_BYTES) -> None:
        self._num_bytes += num_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._num_bytes, resource.RLIM_INFINITY))


Disk = MountedDisk | LimitedFiles


def can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "/mnt"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def wait_until_full(load: WriteLoad, store: HistoryStore) -> bool:
    """Whether the store says by its check that it cannot be written, while it still answers."""
    before = load.account.num_unavailable
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while load.account.num_unavailable == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    while time.monotonic() < deadline:
        store.history("user-1")
        try:
            store.check()
        except StoreUnavailable:
            return True
        # A smaller batch still found room.
        time.sleep(0.005)
    return False


def wait_until_acknowledged(load: WriteLoad) -> bool:
    """Whether writing goes on by itself."""
    before = load.account.num_batches
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while load.account.num_batches == before and time.monotonic() < deadline:
        time.sleep(0.005)
    return load.account.num_batches > before


def fill_and_free(disk: Disk, path: Path, arguments: argparse.Namespace) -> tuple[dict[str, object], bool]:
    """Let the disk become full and free again so many times; the outcome, and whether all is well."""
    store = open_store(f"sqlite:///{path}?history_limit={HISTORY_LIMIT}&durability=fast")
    load = WriteLoad(store, "load", arguments.threads, lambda batch: None)
    load.start()
    num_full = num_recovered = num_told = 0
    while num_full < arguments.times:
        num_told += wait_until_full(load, store)
        num_full += 1
        disk.make_room()
        num_recovered += wait_until_acknowledged(load)
    disk.make_room(LAST_ROOM_BYTES)
    account = load.stop()
    found = compare({event.event_id for event in account.acknowledged}, store)
    store.close()
    connection = sqlite3.connect(path)
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    is_good = not (found["lost"] or found["doubled"] or found["stored_without_acknowledgement"] or account.wrong)
    outcome: dict[str, object] = {
        "way": disk.way,
        "times_full": num_full,
        "times_told_by_check": num_told,
        "times_recovered": num_recovered,
        "calls_refused": account.num_unavailable,
        **found,
        "integrity": integrity,
        "wrong": account.wrong,
    }
    return outcome, is_good and num_full > 0 and num_told == num_recovered == num_full and integrity == "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--way", choices=["mount", "limit"], help="how the disk is made small; found out if not given")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.disk is None and (arguments.way or ("mount" if can_mount() else "limit")) == "mount":
        with tempfile.TemporaryDirectory(prefix="variseq-full-") as folder:
            size = FIRST_ROOM_BYTES + arguments.times * ROOM_BYTES + LAST_ROOM_BYTES
            mounted = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
            own = [sys.executable, __file__, *sys.argv[1:], "--disk", folder]
            sys.exit(subprocess.run(["unshare", "-m", "sh", "-c", mounted, folder, *own], check=False).returncode)
    if arguments.disk is not None:
        disk: Disk = MountedDisk(arguments.disk, arguments.times)
        outcome, is_good = fill_and_free(disk, arguments.disk / "events.db", arguments)
    else:
        with tempfile.TemporaryDirectory(prefix="variseq-full-") as folder:
            disk = LimitedFiles(Path(folder), arguments.times)
            outcome, is_good = fill_and_free(disk, Path(folder) / "events.db", arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    finish(__file__, arguments.out, outcome, is_good)


if __name__ == "__main__":
    main()
