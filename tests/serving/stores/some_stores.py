"""Empty stores of every kind."""

from __future__ import annotations

from pathlib import Path

from tests.serving.stores.some_redis import RedisServer
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import HistoryStore


class Stores:
    """Opens empty stores of one kind, and closes them all."""

    def __init__(self, kind: str, folder: Path, server: RedisServer | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.server = server
        self.opened: list[HistoryStore] = []

    def __call__(self, history_limit: int) -> HistoryStore:
        file = self.folder / f"{len(self.opened)}.db"
        limit = f"history_limit={history_limit}"
        if self.kind == "memory":
            store = open_store(f"memory://?{limit}")
        elif self.server is not None:
            store = open_store(self.server.address(file, "durability=fast", f"&{limit}"))
        else:
            store = open_store(f"sqlite:///{file}?{limit}{'&durability=fast' if self.kind == 'sqlite-fast' else ''}")
        self.opened.append(store)
        return store

    def close(self) -> None:
        for store in self.opened:
            store.close()
