"""What the routes of one process work with, put together once at its start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TypeVar

from variseq.serving.batching import Batcher
from variseq.serving.gate import Door
from variseq.serving.metrics import Metrics
from variseq.serving.models import Models
from variseq.serving.refusals import overloaded
from variseq.serving.stores.protocol import HistoryStore, StoreUnavailable

Result = TypeVar("Result")
NUM_WRITERS = 16
NUM_READERS = 4
CHECK_SECONDS = 1.0


class Pool:
    """Threads for work that waits for a disk or another machine; what does not fit is refused, not piled up."""

    def __init__(self, name: str, num_threads: int, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.num_waiting = 0
        self._threads = ThreadPoolExecutor(num_threads, name)

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of some work. Raises Refusal (429) when too much waits, and what the work raises."""
        if self.num_waiting >= self.max_waiting:
            raise overloaded("Too many requests of this kind wait already. Send fewer at once, or later.")
        self.num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.num_waiting -= 1

    def close(self) -> None:
        self._threads.shutdown()


@dataclass
class Services:
    """Everything behind the routes. Appends have threads of their own, so that they wait for nothing else."""

    models: Models
    store: HistoryStore
    batcher: Batcher
    door: Door
    metrics: Metrics
    writers: Pool
    readers: Pool
    max_batch_users: int
    asking: Lock = field(default_factory=Lock)
    _checked: float = -CHECK_SECONDS
    _store_problem: str | None = None

    async def store_problem(self) -> str | None:
        """Why the store cannot be used now; looked at once a second at most."""
        if monotonic() - self._checked >= CHECK_SECONDS:
            self._checked = monotonic()
            try:
                await self.readers.run(self.store.check)
                self._store_problem = None
            except StoreUnavailable as error:
                self._store_problem = str(error)
                self.metrics.store_errors.inc()
        return self._store_problem

    def note_levels(self) -> None:
        """Write down in the metrics what rises and falls."""
        self.metrics.level(self.batcher.num_waiting, self.batcher.cache.nbytes)

    def close(self) -> None:
        """Finish what was begun."""
        self.batcher.stop()
        self.writers.close()
        self.readers.close()
        self.door.audit.close()
        self.store.close()
