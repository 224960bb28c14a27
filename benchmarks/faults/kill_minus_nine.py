"""A server that is killed in the middle of writing, many times: is an acknowledged event ever lost or doubled?

    python benchmarks/faults/kill_minus_nine.py --times 100
    python benchmarks/faults/kill_minus_nine.py --times 5 --break     # acknowledges too early; must be found out

A child process writes batches from several threads and tells each acknowledged one through a pipe without a buffer. The
parent kills it with SIGKILL at a random moment, opens the same file, and looks for every event that was acknowledged.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from report import finish
from write_load import HISTORY_LIMIT, WriteLoad, compare

from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import Event

READY = b"ready\n"
KILLS_PER_FILE = 10


def address_of(path: Path, durability: str) -> str:
    return f"sqlite:///{path}?durability={durability}&history_limit={HISTORY_LIMIT}"


def tell(batch: list[Event]) -> None:
    # One write of less than PIPE_BUF is whole or not there, whatever the other threads write.
    os.write(1, (" ".join(event.event_id for event in batch) + "\n").encode())


def write_until_killed(arguments: argparse.Namespace) -> None:
    """The child."""
    store = open_store(address_of(arguments.store, arguments.durability))
    os.write(1, READY)
    WriteLoad(store, arguments.name, arguments.threads, tell, arguments.is_broken).start()


def kill_one(arguments: argparse.Namespace, path: Path, name: str, seconds: float) -> list[str]:
    """The ids that a child acknowledged before it was killed."""
    words = [sys.executable, __file__, "--child", "--name", name, "--store", str(path)]
    words += ["--durability", arguments.durability, "--threads", str(arguments.threads)]
    words += ["--break"] if arguments.is_broken else []
    with subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        if child.stdout.read(len(READY)) != READY:
            raise SystemExit("the child did not start")
        told = bytearray()
        os.set_blocking(child.stdout.fileno(), False)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # The pipe must not become full, or the child would wait instead of writing.
            told += child.stdout.read(1 << 20) or b""
            time.sleep(min(0.002, max(deadline - time.monotonic(), 0)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        os.set_blocking(child.stdout.fileno(), True)
        told += child.stdout.read() or b""
    return told.decode().split()


def is_sound(path: Path) -> bool:
    """Whether the database says so of itself, and its own counts are those of its rows."""
    connection = sqlite3.connect(path)
    try:
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        counts = connection.execute(
            "SELECT (SELECT num_events FROM store) - (SELECT count(*) FROM events), "
            "(SELECT num_users FROM store) - (SELECT count(*) FROM users), "
            "(SELECT sum(num_events) FROM users) - (SELECT count(*) FROM events)"
        ).fetchone()
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()
    return integrity == "ok" and all(not difference for difference in counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--durability", choices=["durable", "fast"], default="durable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--break", dest="is_broken", action="store_true", help="acknowledge before the commit")
    parser.add_argument("--out", type=Path)
    for name in ("--child", "--name", "--store"):
        hidden = {"action": "store_true"} if name == "--child" else {"type": Path if name == "--store" else str}
        parser.add_argument(name, help=argparse.SUPPRESS, **hidden)  # type: ignore[arg-type]
    arguments = parser.parse_args()
    if arguments.child:
        write_until_killed(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="variseq-kill-") as folder:
        found, num_unsound = kill_many(arguments, Path(folder))
    outcome = {
        "kills": arguments.times,
        "durability": arguments.durability,
        "threads": arguments.threads,
        "is_broken_on_purpose": arguments.is_broken,
        **found,
        "unsound_files": num_unsound,
    }
    finish(__file__, arguments.out, outcome, not (found["lost"] or found["doubled"] or num_unsound))


def kill_many(arguments: argparse.Namespace, folder: Path) -> tuple[Counter[str], int]:
    """What was found, over all files; and after how many kills a file was not sound."""
    random = Random(arguments.seed)
    total: Counter[str] = Counter()
    num_unsound = 0
    for first in range(0, arguments.times, KILLS_PER_FILE):
        # A new file now and then, so that the first moments of a file are met too.
        path = folder / f"{first}.db"
        told: set[str] = set()
        for number in range(first, min(first + KILLS_PER_FILE, arguments.times)):
            told |= set(kill_one(arguments, path, f"life-{number}", random.uniform(0.0, 0.4)))
            store = open_store(address_of(path, arguments.durability))
            found = compare(told, store)
            store.close()
            num_unsound += not is_sound(path)
            if found["lost"] or found["doubled"]:
                break
        total.update(found)
    return total, num_unsound


if __name__ == "__main__":
    main()
