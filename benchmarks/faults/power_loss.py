"""The power goes at any moment: is an acknowledged event ever lost, an erased one ever back, or the store damaged?

    python benchmarks/faults/power_loss.py --moments 400
    python benchmarks/faults/power_loss.py --moments 40 --disk-lies    # syncs do nothing; must be found out

Nothing is switched off. A process writes from several threads, erases users, ends with and without closing its store,
and is started again; strace writes down each write and each sync (disk_record.py). For each of many moments of that
record, the files are built as a disk may hold them when the power goes then, the store is opened there, and asked for
every event that had been acknowledged. Both settings are tried: `durable`, which must lose nothing, and `fast`, which
may lose events (they are counted) but may not be damaged.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from random import Random

from disk_record import Disk, calls, record
from kill_minus_nine import address_of, is_sound, tell
from report import finish
from write_load import MAX_BATCH, NUM_USERS, WriteLoad

from variseq.errors import VariseqError
from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import Event, HistoryStore

LIVES, SECONDS_BETWEEN_ERASURES = 4, 0.15
ERASED = "erased"


def write_lives(arguments: argparse.Namespace) -> None:
    """The process that is recorded: one child after the other on one file; every second one does not close it."""
    for life in range(LIVES):
        child = os.fork()
        if child == 0:
            store = open_store(address_of(arguments.store, arguments.durability))
            load = WriteLoad(store, f"life-{life}", arguments.threads, tell)
            load.start()
            erase_now_and_then(store, life, arguments.seconds / LIVES)
            account = load.stop()
            if life % 2:
                store.close()
            os._exit(int(bool(account.wrong)))
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit("a recorded process failed")


def erase_now_and_then(store: HistoryStore, life: int, seconds: float) -> None:
    """Users who come and are erased, until the time is over."""
    is_over = threading.Event()
    threading.Timer(seconds, is_over.set).start()
    number = 0
    while not is_over.wait(SECONDS_BETWEEN_ERASURES):
        user = f"gone-{life}-{number}"
        store.append([Event(f"{user}-{place}", user, place, place) for place in range(MAX_BATCH)])
        store.erase(user)
        os.write(1, f"{ERASED} {user}\n".encode())
        number += 1


def lose_power(arguments: argparse.Namespace, folder: Path, durability: str) -> Counter[str]:
    """Record a process that writes, and look at the store after a loss of power at each of many moments."""
    disk_folder = folder / durability
    disk_folder.mkdir()
    trace = folder / f"{durability}.trace"
    words = [sys.executable, __file__, "--child", "--store", str(disk_folder / "events.db"), "--durability", durability]
    record([*words, "--threads", str(arguments.threads), "--seconds", str(arguments.seconds)], trace)
    random = Random(arguments.seed)
    num_steps = sum(1 for _ in calls(trace))
    moments = set(random.sample(range(num_steps), min(arguments.moments, num_steps)))
    disk = Disk(disk_folder, not arguments.disk_lies)
    found: Counter[str] = Counter(calls_recorded=num_steps)
    for step, (call, has_ended) in enumerate(calls(trace)):
        disk.take(call, has_ended)
        found["syncs"] += has_ended and "sync" in call.name
        if step in moments:
            found["moments"] += 1
            found.update(look(disk, random, folder / "after", durability))
    trace.unlink()
    found["acknowledged"] = len(acknowledged(disk)[0])
    return found


def acknowledged(disk: Disk) -> tuple[set[str], set[str]]:
    """Events that the process said are stored, and users whom it said are erased, by the moment of the disk."""
    lines = b"".join(disk.told).decode().splitlines()
    erased = {line.split()[1] for line in lines if line.startswith(ERASED)}
    return {event_id for line in lines if not line.startswith(ERASED) for event_id in line.split()}, erased


def look(disk: Disk, random: Random, after: Path, durability: str) -> dict[str, int]:
    """What is wrong with the store that is found when the power is back, in counts."""
    stored, erased = acknowledged(disk)
    shutil.rmtree(after, ignore_errors=True)
    after.mkdir()
    for name, content in disk.after_power_loss(random).items():
        (after / name).write_bytes(content)
    try:
        store = open_store(address_of(after / "events.db", durability))
        users = store.users("", NUM_USERS + 1)
        found = Counter(event.event_id for user in users for event in store.history(user))
        num_back = sum(bool(store.history(user)) for user in sorted(erased))
        store.append([Event("after", "after", 1, 1)])
        store.close()
        is_damaged = not is_sound(after / "events.db")
    except VariseqError as error:
        print(f"damaged: {error}", flush=True)
        return {"damaged": 1, "lost": len(stored), "moments_that_lost": int(bool(stored))}
    num_lost = len(stored - found.keys())
    return {
        "damaged": int(is_damaged),
        "lost": num_lost,
        "moments_that_lost": int(num_lost > 0),
        "doubled": sum(found.values()) - len(found),
        "erased_users_back": num_back,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=8.0, help="of writing that are recorded")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--disk-lies", action="store_true", help="syncs do nothing")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--durability", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        write_lives(arguments)
        return
    if shutil.which("strace") is None:
        sys.exit("strace is not installed.")
    with tempfile.TemporaryDirectory(prefix="variseq-power-") as folder:
        durable, fast = (lose_power(arguments, Path(folder), name) for name in ("durable", "fast"))
    shown = ("moments", "syncs", "acknowledged", "lost", "doubled", "damaged", "erased_users_back")
    outcome = {
        "disk_lies": arguments.disk_lies,
        **{name: durable[name] for name in shown},
        **{f"fast_{name}": fast[name] for name in (*shown, "moments_that_lost")},
    }
    broken = ("lost", "doubled", "damaged", "erased_users_back", "fast_damaged", "fast_doubled")
    is_good = not any(outcome[name] for name in broken) and durable["syncs"] > durable["moments"] / 10
    finish(__file__, arguments.out, outcome, is_good)


if __name__ == "__main__":
    main()
