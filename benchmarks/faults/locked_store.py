"""Another process holds the file of the store: are callers told in time, and does all go on when it lets go?

    python benchmarks/faults/locked_store.py --times 20

Threads write while another process takes the lock again and again, sometimes longer than the store waits (0.3 s).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from report import finish
from write_load import HISTORY_LIMIT, WriteLoad, compare

from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import HistoryStore

LOCK_SECONDS = 0.3
# A refused call waited for the lock, and maybe once more for a group that was before it.
MOST_SECONDS_UNTIL_REFUSED = 2 * LOCK_SECONDS + 1.0
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
while not connection.in_transaction:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        time.sleep(0.0005)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


def hold_lock(path: Path, store: HistoryStore, seconds: float) -> int:
    """How often the store could be read while its lock was held."""
    num_reads = 0
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            store.history(f"user-{num_reads % 40}")
            num_reads += 1
            time.sleep(0.01)
    return num_reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    random = Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="variseq-locked-") as folder:
        path = Path(folder) / "events.db"
        store = open_store(f"sqlite:///{path}?history_limit={HISTORY_LIMIT}&lock_seconds={LOCK_SECONDS}")
        load = WriteLoad(store, "load", arguments.threads, lambda batch: None)
        load.start()
        num_reads = 0
        for number in range(arguments.times):
            time.sleep(0.1)
            # Every other time longer than the store waits.
            num_reads += hold_lock(
                path, store, random.uniform(0.5, 1.0) if number % 2 == 0 else random.uniform(0.0, 0.2)
            )
        account = load.stop()
        found = compare({event.event_id for event in account.acknowledged}, store)
        store.close()
    outcome = {
        "locks": arguments.times,
        "threads": arguments.threads,
        **found,
        "calls_refused": account.num_unavailable,
        "slowest_refusal_seconds": round(account.slowest_refusal_seconds, 2),
        "reads_while_locked": num_reads,
        "wrong": account.wrong,
    }
    is_good = not (found["lost"] or found["doubled"] or found["stored_without_acknowledgement"] or account.wrong)
    is_in_time = account.slowest_refusal_seconds <= MOST_SECONDS_UNTIL_REFUSED
    finish(__file__, arguments.out, outcome, is_good and is_in_time and account.num_unavailable > 0 and num_reads > 0)


if __name__ == "__main__":
    main()
