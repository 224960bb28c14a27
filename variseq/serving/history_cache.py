"""Decoded histories kept for the next request of the same user, bounded in bytes; the oldest use goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from variseq.events.vocabulary import Id
from variseq.ranking.engine import KnownHistory

OVERHEAD_BYTES = 1000  # Of an entry besides its arrays (measured: 850 for the objects, and the table).


@dataclass(frozen=True, slots=True)
class _Entry:
    store_version: int
    model: str
    history: KnownHistory
    nbytes: int


class HistoryCache:
    """Of one thread only. An entry counts only for the very version of the history and of the model it was made with,
    so that what other processes write is seen."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[Id, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: Id, store_version: int, model: str) -> KnownHistory | None:
        entry = self._entries.get(user_id)
        if entry is None or entry.store_version != store_version or entry.model != model:
            return None
        self._entries.move_to_end(user_id)
        return entry.history

    def put(self, user_id: Id, store_version: int, model: str, history: KnownHistory) -> None:
        self.drop(user_id)
        nbytes = history.nbytes + OVERHEAD_BYTES
        if nbytes > self.max_bytes:
            return
        self._entries[user_id] = _Entry(store_version, model, history, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self.max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.nbytes -= evicted.nbytes

    def drop(self, user_id: Id) -> None:
        entry = self._entries.pop(user_id, None)
        if entry is not None:
            self.nbytes -= entry.nbytes

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0
