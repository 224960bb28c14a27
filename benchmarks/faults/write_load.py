"""An open store into a load of several threads that write batches, and the exact account of what it acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from variseq.serving.stores.protocol import Event, HistoryStore, StoreUnavailable

NUM_USERS = 40
MAX_BATCH = 8
# No history of a load is cut, so that each acknowledged event has to be found.
HISTORY_LIMIT = 1_000_000


@dataclass
class Account:
    """What became of the batches of a load."""

    acknowledged: list[Event] = field(default_factory=list)
    num_batches: int = 0
    num_unavailable: int = 0
    slowest_refusal_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def batch_of(random: Random, name: str, number: int) -> list[Event]:
    """New events of random users at random times; ids begin with `name`, which no other batch's do."""
    return [
        Event(
            f"{name}-{number}-{place}",
            f"user-{random.randrange(NUM_USERS)}",
            random.randrange(1000),
            random.randrange(10**9),
        )
        for place in range(random.randint(1, MAX_BATCH))
    ]


class WriteLoad:
    """Threads that write until they are told to stop; a batch that the store could not take is sent again."""

    def __init__(
        self,
        store: HistoryStore,
        name: str,
        num_threads: int,
        tell: Callable[[list[Event]], None],
        tells_too_early: bool = False,
    ) -> None:
        self._store = store
        self._tell = tell
        self._tells_too_early = tells_too_early
        self._is_over = threading.Event()
        self.account = Account()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write, args=(f"{name}-{number}", Random(f"{name}-{number}")))
            for number in range(num_threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Account:
        """Each thread ends when its batch is acknowledged."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return self.account

    def _write(self, name: str, random: Random) -> None:
        number = 0
        while not self._is_over.is_set():
            batch = batch_of(random, name, number)
            was_refused = self._append(batch)
            number += 1
            if random.random() < 0.1:
                # A client that did not hear the answer sends again.
                again = self._append(batch)
                if not again and not was_refused:
                    self._read_own_write(batch[-1])

    def _append(self, batch: list[Event]) -> bool:
        """Send until it is taken; whether the store refused it before."""
        was_refused = False
        if self._tells_too_early:
            self._tell(batch)
        while True:
            start = time.monotonic()
            try:
                self._store.append(batch)
                break
            except StoreUnavailable:
                was_refused = True
                with self._lock:
                    self.account.num_unavailable += 1
                    slowest = max(self.account.slowest_refusal_seconds, time.monotonic() - start)
                    self.account.slowest_refusal_seconds = slowest
                time.sleep(0.01)
        with self._lock:
            self.account.num_batches += 1
            self.account.acknowledged += batch
        if not self._tells_too_early:
            self._tell(batch)
        return was_refused

    def _read_own_write(self, event: Event) -> None:
        try:
            is_seen = event in self._store.history(event.user_id)
        except StoreUnavailable:
            return
        if not is_seen:
            with self._lock:
                self.account.wrong.append(f"{event.event_id} was acknowledged and is not seen")


def compare(acknowledged: set[str], store: HistoryStore) -> dict[str, int]:
    """How many acknowledged events are lost or doubled, and how many others are there (sent, and not acknowledged)."""
    found = [event.event_id for user_id in store.users("", NUM_USERS + 1) for event in store.history(user_id)]
    return {
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(found)),
        "doubled": len(found) - len(set(found)),
        "stored_without_acknowledgement": len(set(found) - acknowledged),
    }
